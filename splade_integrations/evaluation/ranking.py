"""Exact rankings from all scores, and fusion of rankings: reciprocal rank and weighted sum.

Uses numpy and scipy; knows no model, no store and no dataset.
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

# Queries scored at once: a block of (64, N) float64 scores.
_QUERIES_AT_ONCE = 64


@dataclass(frozen=True)
class Ranking:
    """What a search found for one query.

    Args:
        rows: Rows of the corpus, best first.
        scores: Their scores, falling.
    """

    rows: list[int]
    scores: list[float]

    def cut(self, depth: int) -> "Ranking":
        """Return the first `depth` hits."""
        return Ranking(self.rows[:depth], self.scores[:depth])


def rank_scores(scores: NDArray[Any], depth: int, *, positive: bool = True) -> Ranking:
    """Return the `depth` highest scores, ties in the order of rows.

    Args:
        scores: One per document. (N,).
        depth: Most hits.
        positive: Leave out documents whose score is not above 0: those that share no term.
    """
    found = np.flatnonzero(scores > 0) if positive else np.arange(len(scores))
    if len(found) > depth:  # keep all that tie with the last one, so that ties stay in order
        least = np.partition(scores[found], len(found) - depth)[len(found) - depth]
        found = found[scores[found] >= least]
    order = found[np.argsort(-scores[found], kind="stable")][:depth]
    return Ranking(order.tolist(), scores[order].tolist())


def rank_dense(queries: NDArray[np.float32], documents: NDArray[np.float64], depth: int) -> list[Ranking]:
    """Return the `depth` documents of highest cosine for each query, computed in float64, ties in the order of rows.

    Args:
        queries: Dense embeddings. (Q, H).
        documents: `unit_rows` of dense embeddings. (N, H).
        depth: Most hits.
    """
    unit_queries = unit_rows(queries)
    return [
        rank_scores(scores, depth, positive=False)
        for block in blocks(len(unit_queries), _QUERIES_AT_ONCE)
        for scores in unit_queries[block] @ documents.T
    ]


def unit_rows(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Divide rows by their length, in float64; a row of zeros stays."""
    wide = matrix.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: NDArray[np.float64] = wide / np.where(norms == 0, 1, norms)
    return unit


def rank_sparse(queries: csr_array, documents: csr_array, depth: int) -> list[Ranking]:
    """Return the `depth` documents of highest inner product for each query, computed in float64.

    Ties are in the order of rows. A document that shares no term with the query is not ranked, as in Milvus.

    Args:
        queries: Sparse embeddings. (Q, V).
        documents: `postings` of sparse embeddings. (V, N).
        depth: Most hits.
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
    """Fuse rankings by reciprocal rank: each ranking adds 1 / (k + rank). Equal scores are in the order of rows.

    milvus-lite 3.2 breaks ties the same way (`SortOp`, by primary key) if rows are the primary keys.

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
    """Whether equal scores are among the first `depth` + 1, so that the tie rule decides about the first `depth`."""
    best = ranking.scores[: depth + 1]
    return len(set(best)) < len(best)


class Candidates:
    """The rankings of several retrievers for one query, with scores on one scale, so that weighted sums make sense.

    Each retriever's scores are scaled to 0 for its lowest candidate and 1 for its highest. A document that it did not
    find has 0. The scale depends on how many candidates there are.

    Args:
        rankings: One per retriever.

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
        """Return the candidates by weighted sum, ties in the order of rows."""
        scores = self.scaled @ np.asarray(weights, np.float64)
        order = np.argsort(-scores, kind="stable")[:depth]
        return Ranking(self.rows[order].tolist(), scores[order].tolist())


def blocks(total: int, size: int) -> Iterator[slice]:
    """Return slices of at most `size` that cover `total`."""
    return (slice(start, min(start + size, total)) for start in range(0, total, size))
