"""A test collection in BEIR layout, exact rankings, reciprocal rank fusion, and measures of a ranking.

numpy, scipy and ir_measures; knows no model and no store. A ranking is a list of rows of the corpus, best first.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from splade_integrations.errors import OptionalDependencyError

__all__ = [
    "Collection",
    "CollectionError",
    "Ranking",
    "fuse",
    "has_tie",
    "load_collection",
    "measure",
    "rank_dense",
    "rank_sparse",
    "rrf_scores",
]

Ranking = list[int]

# Queries scored at once: a block of (64, N) float64 scores.
_QUERIES_AT_ONCE = 64


class CollectionError(ValueError):
    """A folder is no test collection in BEIR layout; the message names file and line, and says what to do."""


@dataclass(frozen=True)
class Collection:
    """A corpus, the queries that somebody judged, and the judgments.

    Args:
        name: Name of the folder.
        document_ids: One per document, unique.
        documents: Title and text of each document, joined by a space. May be empty.
        query_ids: One per judged query, in the order of the judgments.
        queries: Text of each judged query.
        qrels: Grades, 1 and more being relevant: {query id: {document id: grade}}.
    """

    name: str
    document_ids: list[str]
    documents: list[str]
    query_ids: list[str]
    queries: list[str]
    qrels: dict[str, dict[str, int]]

    @property
    def judgments(self) -> int:
        """Judged pairs of query and document."""
        return sum(map(len, self.qrels.values()))

    @property
    def judged_but_absent(self) -> int:
        """Judgments whose document is not in the corpus: nothing can find those."""
        known = set(self.document_ids)
        return sum(document not in known for grades in self.qrels.values() for document in grades)


def load_collection(folder: str | Path) -> Collection:
    """Read `corpus.jsonl`, `queries.jsonl` and `qrels.tsv` (or BEIR's own `qrels/test.tsv`).

    Raises:
        CollectionError: A file is missing, empty or broken (its line is named), or the files do not fit together.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CollectionError(f"{folder} must be a folder, and is {'a file' if folder.exists() else 'not there'}.")
    corpus = _read_jsonl(folder / "corpus.jsonl", lambda row: f"{row.get('title') or ''} {row['text']}".strip())
    queries = _read_jsonl(folder / "queries.jsonl", lambda row: row["text"])
    qrels_file = folder / "qrels.tsv"
    if not qrels_file.is_file() and (folder / "qrels" / "test.tsv").is_file():
        qrels_file = folder / "qrels" / "test.tsv"
    qrels = _read_qrels(qrels_file)
    unknown = next((query for query in qrels if query not in queries), None)
    if unknown is not None:
        raise CollectionError(
            f"{qrels_file} judges query {unknown!r}, which {folder / 'queries.jsonl'} lacks. "
            "Put queries and judgments of the same split together."
        )
    return Collection(
        name=folder.resolve().name,
        document_ids=list(corpus),
        documents=list(corpus.values()),
        query_ids=list(qrels),
        queries=[queries[query] for query in qrels],
        qrels=qrels,
    )


def rank_dense(queries: NDArray[np.float32], documents: NDArray[np.float32], depth: int) -> list[Ranking]:
    """The `depth` documents of highest cosine for each query, computed in float64; ties by row.

    Args:
        queries: Dense embeddings. (Q, H).
        documents: Dense embeddings. (N, H).
        depth: Longest ranking.
    """
    unit_queries, unit_documents = _unit_rows(queries), _unit_rows(documents)
    return [
        np.argsort(-scores, kind="stable")[:depth].tolist()
        for start in range(0, len(unit_queries), _QUERIES_AT_ONCE)
        for scores in unit_queries[start : start + _QUERIES_AT_ONCE] @ unit_documents.T
    ]


def rank_sparse(queries: csr_array, documents: csr_array, depth: int) -> list[Ranking]:
    """The `depth` documents of highest inner product for each query, computed in float64; ties by row.

    A document that shares no term with the query is not ranked, as in Milvus.

    Args:
        queries: Sparse embeddings. (Q, V).
        documents: Sparse embeddings. (N, V).
        depth: Longest ranking.
    """
    wide_queries, columns = queries.astype(np.float64), documents.astype(np.float64).T.tocsr()
    rankings = []
    for start in range(0, wide_queries.shape[0], _QUERIES_AT_ONCE):
        block: NDArray[np.float64] = (wide_queries[start : start + _QUERIES_AT_ONCE] @ columns).toarray()
        for scores in block:
            found = np.flatnonzero(scores > 0)
            rankings.append(found[np.argsort(-scores[found], kind="stable")][:depth].tolist())
    return rankings


def rrf_scores(rankings: Sequence[Ranking], k: int) -> dict[int, float]:
    """Reciprocal rank fusion: {row: sum over the rankings of 1 / (k + its rank there)}.

    Source:
        Cormack et al., Reciprocal Rank Fusion outperforms Condorcet, SIGIR 2009.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, row in enumerate(ranking, start=1):
            scores[row] = scores.get(row, 0.0) + 1 / (k + rank)
    return scores


def fuse(rankings: Sequence[Ranking], k: int) -> Ranking:
    """Rows by falling RRF score; equal scores by row.

    That is the tie rule of milvus-lite 3.2 (`SortOp` with the primary key as its tie-break), for rows as primary keys.

    Example:
        >>> fuse([[9, 8], [8, 9, 7]], k=60)
        [8, 9, 7]
    """
    scores = rrf_scores(rankings, k)
    return sorted(scores, key=lambda row: (-scores[row], row))


def has_tie(rankings: Sequence[Ranking], k: int, depth: int) -> bool:
    """Whether equal scores are among the first `depth` + 1: then the tie rule has a say in the first `depth`."""
    best = sorted(rrf_scores(rankings, k).values(), reverse=True)[: depth + 1]
    return len(set(best)) < len(best)


def measure(collection: Collection, rankings: Sequence[Ranking]) -> dict[str, float]:
    """nDCG@10, R@100 and MRR@10 as trec_eval defines them: means over the judged queries, found or not.

    Args:
        collection: Where the judgments are.
        rankings: One for each of the collection's queries, in their order.
    """
    try:
        import ir_measures  # an optional dependency, and a slow import
    except ImportError as err:
        raise OptionalDependencyError(
            "The measures need ir_measures. Install it with: pip install ir-measures.", name="ir_measures"
        ) from err
    measures = {"nDCG@10": ir_measures.nDCG @ 10, "R@100": ir_measures.R @ 100, "MRR@10": ir_measures.RR @ 10}
    # Scores that fall by whole numbers: trec_eval would break ties of real ones by document id.
    run = {
        query: {collection.document_ids[row]: float(-rank) for rank, row in enumerate(ranking)}
        for query, ranking in zip(collection.query_ids, rankings, strict=True)
    }
    totals = dict.fromkeys(measures, 0.0)
    for metric in ir_measures.iter_calc(measures.values(), collection.qrels, run):
        name = next(name for name, measure in measures.items() if measure == metric.measure)
        totals[name] += metric.value
    return {name: total / len(collection.qrels) for name, total in totals.items()}


def _unit_rows(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = matrix.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: NDArray[np.float64] = wide / np.where(norms == 0, 1, norms)
    return unit


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """(file and line number, line) of each line that is not blank."""
    empty = True
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    empty = False
                    yield f"{file}, line {number}", line.rstrip("\r\n")
    except OSError as err:
        raise CollectionError(
            f"{file} cannot be read: {err.strerror}. A BEIR folder has corpus.jsonl, queries.jsonl and qrels.tsv."
        ) from err
    except UnicodeDecodeError as err:
        raise CollectionError(f"{file} must be UTF-8, and is not: {err}. Convert it, for instance by iconv.") from err
    if empty:
        raise CollectionError(f"{file} must have at least one line, and is empty.")


def _read_jsonl(file: Path, text_of: Callable[[dict[str, Any]], str]) -> dict[str, str]:
    """{id: text} of a file of JSON objects, in its order."""
    texts: dict[str, str] = {}
    for place, line in _lines(file):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as err:
            raise CollectionError(f"{place}: must be one JSON object, but {err}.") from err
        if not isinstance(row, dict) or not isinstance(row.get("text"), str) or "_id" not in row:
            raise CollectionError(f'{place}: must be like {{"_id": "1", "title": "…", "text": "…"}}, got {line[:80]}')
        identifier = str(row["_id"])
        if identifier in texts:
            raise CollectionError(f"{place}: _id {identifier!r} must be unique, and is taken. Rename or drop one.")
        texts[identifier] = text_of(row)
    return texts


def _read_qrels(file: Path) -> dict[str, dict[str, int]]:
    """{query id: {document id: grade}} of a tab-separated file, whose header line may be missing."""
    qrels: dict[str, dict[str, int]] = {}
    for number, (place, line) in enumerate(_lines(file)):
        columns = line.split("\t")
        try:
            query, document, grade = columns[0], columns[1], int(columns[2])
        except (IndexError, ValueError) as err:
            if number == 0 and len(columns) == 3:
                continue  # the header
            raise CollectionError(
                f"{place}: must be query-id, corpus-id and an integer score with tabs between, got {line[:80]!r}."
            ) from err
        qrels.setdefault(query, {})[document] = grade
    if not qrels:
        raise CollectionError(f"{file} must have at least one judgment, and has a header line only.")
    return qrels
