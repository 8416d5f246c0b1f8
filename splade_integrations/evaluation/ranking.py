"""Ranks documents by exact scores, and fuses rankings by reciprocal rank or by weighted sum.

This module uses numpy and scipy only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

__all__ = [
    "Candidates",
    "Ranking",
    "blocks",
    "fuse_rrf",
    "has_tie",
    "postings",
    "rank_dense",
    "rank_scores",
    "rank_sparse",
    "unit_rows",
]

# The number of queries scored at once. It limits the memory for the scores of N documents, a (64, N) float64 matrix.
_QUERIES_AT_ONCE = 64


@dataclass(frozen=True)
class Ranking:
    """The hits of a search for one query.

    Args:
        rows: The documents found, best first. Each is given by its row number, that is, its position in the corpus.
        scores: The score of each hit, highest first.
    """

    rows: list[int]
    scores: list[float]

    def cut(self, depth: int) -> "Ranking":
        """Return the first `depth` hits."""
        return Ranking(self.rows[:depth], self.scores[:depth])


def rank_scores(scores: NDArray[Any], depth: int, *, positive: bool = True) -> Ranking:
    """Return the documents with the `depth` highest scores. Documents with equal scores stay in row order.

    Args:
        scores: One score per document. (N,).
        depth: The largest number of hits.
        positive: Whether to leave out documents with a score of 0 or less. With BM25 or SPLADE, these documents share
            no term with the query.
    """
    found = np.flatnonzero(scores > 0) if positive else np.arange(len(scores))
    if len(found) > depth:  # keep every document that ties with the last hit, so that the sort can order the ties
        least = np.partition(scores[found], len(found) - depth)[len(found) - depth]
        found = found[scores[found] >= least]
    order = found[np.argsort(-scores[found], kind="stable")][:depth]
    return Ranking(order.tolist(), scores[order].tolist())


def rank_dense(queries: NDArray[np.float32], documents: NDArray[np.float64], depth: int) -> list[Ranking]:
    """Return, for each query, the `depth` documents with the highest cosine. Ties stay in row order.

    The cosine is computed in float64.

    Args:
        queries: Dense embeddings. (Q, H).
        documents: Dense embeddings that `unit_rows` has scaled to length 1. (N, H).
        depth: The largest number of hits.
    """
    unit_queries = unit_rows(queries)
    return [
        rank_scores(scores, depth, positive=False)
        for block in blocks(len(unit_queries), _QUERIES_AT_ONCE)
        for scores in unit_queries[block] @ documents.T
    ]


def unit_rows(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Divide each row by its Euclidean length, in float64. A row of zeros does not change."""
    wide = matrix.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: NDArray[np.float64] = wide / np.where(norms == 0, 1, norms)
    return unit


def rank_sparse(queries: csr_array, documents: csr_array, depth: int) -> list[Ranking]:
    """Return, for each query, the `depth` documents with the highest inner product. Ties stay in row order.

    The inner product is computed in float64. As in Milvus, a document that shares no term with the query is not ranked.

    Args:
        queries: Sparse embeddings. (Q, V).
        documents: The inverted index that `postings` returns. (V, N).
        depth: The largest number of hits.
    """
    wide = queries.astype(np.float64)
    return [
        rank_scores(scores, depth)
        for block in blocks(wide.shape[0], _QUERIES_AT_ONCE)
        for scores in (wide[block] @ documents).toarray()
    ]


def postings(documents: csr_array) -> csr_array:
    """Return sparse embeddings (N, V) as an inverted index (V, N) in float64."""
    inverted: csr_array = documents.astype(np.float64).T.tocsr()
    return inverted


def fuse_rrf(rankings: Sequence[Ranking], k: int) -> Ranking:
    """Fuse rankings by reciprocal rank: each ranking adds 1 / (k + rank) to a document's score.

    Documents with equal scores are sorted by row number. milvus-lite 3.2 sorts such documents by primary key (in its
    `SortOp`). So if the primary keys are the row numbers, milvus-lite's order is the same.

    Source:
        Cormack et al., Reciprocal Rank Fusion outperforms Condorcet, SIGIR 2009.

    Example:
        >>> fuse_rrf([Ranking([9, 8], [2.0, 1.0]), Ranking([8, 9, 7], [3.0, 2.0, 1.0])], k=60).rows
        [8, 9, 7]
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, row in enumerate(ranking.rows, start=1):
            scores[row] = scores.get(row, 0.0) + 1 / (k + rank)
    rows = sorted(scores, key=lambda row: (-scores[row], row))
    return Ranking(rows, [scores[row] for row in rows])


def has_tie(ranking: Ranking, depth: int) -> bool:
    """Return whether two of the first `depth` + 1 scores are equal.

    If two are equal, the rule that orders equal scores affects the first `depth` hits.
    """
    best = ranking.scores[: depth + 1]
    return len(set(best)) < len(best)


class Candidates:
    """The documents that several retrievers found for one query, with scores that are scaled so that they can be added.

    A retriever's lowest score becomes 0, and its highest score becomes 1. A document that a retriever did not find gets
    0 from this retriever. In a longer ranking, the lowest score is lower. So the scaled scores depend on the lengths of
    the rankings.

    Args:
        rankings: One ranking per retriever.

    Example:
        >>> found = Candidates([Ranking([4, 2], [9.0, 5.0]), Ranking([2, 7], [1.0, 0.5])])
        >>> found.fuse([0.75, 0.25]).rows, found.fuse([0.25, 0.75]).rows
        ([4, 2, 7], [2, 4, 7])
    """

    def __init__(self, rankings: Sequence[Ranking]) -> None:
        self.rows = np.unique(np.concatenate([np.array(ranking.rows, np.int64) for ranking in rankings]))
        self.scaled = np.zeros((len(self.rows), len(rankings)))  # (n, retrievers)
        for column, ranking in enumerate(rankings):
            if ranking.rows:
                scores = np.array(ranking.scores)
                spread = scores.max() - scores.min()
                places = np.searchsorted(self.rows, ranking.rows)
                self.scaled[places, column] = (scores - scores.min()) / spread if spread > 0 else 1.0

    def fuse(self, weights: Sequence[float], depth: int | None = None) -> Ranking:
        """Rank the candidates by the weighted sum of their scores. Candidates with equal sums stay in row order."""
        scores = self.scaled @ np.asarray(weights, np.float64)
        order = np.argsort(-scores, kind="stable")[:depth]
        return Ranking(self.rows[order].tolist(), scores[order].tolist())


def blocks(total: int, size: int) -> Iterator[slice]:
    """Return slices of at most `size` rows that together cover `total` rows."""
    return (slice(start, min(start + size, total)) for start in range(0, total, size))
