"""Compares systems as `compare.evaluate` does, but searches in a Milvus collection that holds the same embeddings.

Milvus also fuses the hits by rank. This module collects the rankings, and `compare.py` measures them.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from splade_integrations.evaluation.compare import (
    DEPTH,
    check_baseline,
    compare,
    fusions,
    median_ms,
    rrf_name,
    system_names,
)
from splade_integrations.evaluation.dataset import Dataset
from splade_integrations.evaluation.measures import MEASURES
from splade_integrations.evaluation.milvus import MilvusCollection
from splade_integrations.evaluation.results import Comparison
from splade_integrations.evaluation.retrievers import Retriever

__all__ = ["evaluate_milvus", "milvus_system_names"]

_STORED = ("dense", "SPLADE")


def evaluate_milvus(
    dataset: Dataset,
    retrievers: Sequence[Retriever],
    *,
    uri: str,
    token: str = "",
    db_name: str = "",
    collection: str = "splade_evaluate",
    candidates: int = 100,
    measures: Sequence[str] = MEASURES,
    baseline: str | None = None,
    report: Callable[[int], object] = lambda _: None,
    fitted: bool = False,
) -> Comparison:
    """Compare systems as `evaluate` does, but search in a temporary Milvus collection, which is dropped at the end.

    The system "BM25" is Milvus's own BM25 function.

    Args:
        dataset: The dataset.
        retrievers: As in `evaluate`. The embeddings of the retrievers "dense" and "SPLADE" are stored in Milvus.
        uri: A milvus-lite file, or a server.
        token: The server's token.
        db_name: The server's database. "" is its default database.
        collection: The name of the collection. An existing collection of this name is replaced.
        candidates: As in `evaluate`.
        measures: As in `evaluate`.
        baseline: As in `evaluate`. If Milvus has no BM25 function, a baseline that needs BM25 is treated as None.
        report: Called with the number of documents stored since its last call.
        fitted: As in `evaluate`.
    Raises:
        ValueError: The baseline or a measure is unknown.
    """
    check_baseline(baseline, milvus_system_names([retriever.name for retriever in retrievers]))
    known = {retriever.name: retriever for retriever in retrievers if retriever.name in _STORED}
    stored = {name: getattr(known[name], "documents", None) if name in known else None for name in _STORED}
    start = time.perf_counter()
    where = {"token": token, "db_name": db_name}
    store = MilvusCollection(uri, collection, dataset.documents, stored["dense"], stored["SPLADE"], report, **where)
    seconds = time.perf_counter() - start
    try:
        depth = max(DEPTH, candidates)

        def encode(name: str, texts: list[str]) -> Any:
            return known[name].encode(texts) if name in known else texts

        encoded = {name: encode(name, dataset.queries) for name in store.retrievers}
        found = {name: store.search(name, encoded[name], depth) for name in store.retrievers}
        train = {}
        if dataset.train is not None:
            queries = dataset.train.queries
            train = {name: store.search(name, encode(name, queries), candidates) for name in store.retrievers}
        parts_of = {rrf_name(parts): parts for parts in fusions(store.retrievers)}
        rrf = {
            fusion: store.fuse({part: encoded[part] for part in parts}, candidates, DEPTH)
            for fusion, parts in parts_of.items()
        }
        latency = {
            name: median_ms(lambda text, name=name: store.search(name, encode(name, [text]), 10), dataset)  # type: ignore[misc]
            for name in store.retrievers
        }
        for fusion, parts in parts_of.items():
            latency[fusion] = median_ms(
                lambda text, parts=parts: store.fuse({part: encode(part, [text]) for part in parts}, candidates, 10),  # type: ignore[misc]
                dataset,
            )
        notes = [f"Stored {len(dataset.documents) / seconds:,.0f} documents/s, each with all its fields."]
        if not store.bm25_refused:
            notes.append(f"BM25: Milvus's own function, analyzer {json.dumps(store.analyzer)}.")
        else:
            notes.append(f"This store has no BM25 function: {store.bm25_refused}.")
        return compare(
            dataset,
            found,
            train,
            rrf=rrf,
            latency=latency,
            candidates=candidates,
            measures=measures,
            baseline=baseline if baseline in system_names(store.retrievers) else None,
            search="Milvus",
            costs={},
            notes=notes,
            fitted=fitted,
        )
    finally:
        store.close()


def milvus_system_names(retrievers: Sequence[str]) -> list[str]:
    """Return the names of the systems in Milvus: the retrievers stored there, Milvus's own BM25, and their fusions.

    Example:
        >>> milvus_system_names(["BM25 unstemmed", "BM25", "SPLADE"])
        ['SPLADE', 'BM25', 'BM25 + SPLADE, RRF', 'BM25 + SPLADE, weights']
    """
    return system_names([*(name for name in _STORED if name in retrievers), "BM25"])
