"""The comparison in a Milvus collection: the embeddings that exact search has, stored, searched and fused by Milvus.

Knows collections, retrievers and Milvus; its measures are those of `running.py`.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from splade_integrations.evaluation.compare import (
    DEPTH,
    Comparison,
    check_baseline,
    compare,
    fusions,
    median_ms,
    rrf_name,
    system_names,
)
from splade_integrations.evaluation.dataset import Collection
from splade_integrations.evaluation.measures import MEASURES
from splade_integrations.evaluation.milvus import MilvusCollection, bm25_analyzer
from splade_integrations.evaluation.retrievers import Retriever

__all__ = ["evaluate_milvus", "milvus_system_names"]

_STORED = ("dense", "SPLADE")


def evaluate_milvus(
    collection: Collection,
    retrievers: Sequence[Retriever],
    *,
    uri: str,
    token: str = "",
    name: str = "splade_evaluate",
    candidates: int = 100,
    measures: Sequence[str] = MEASURES,
    baseline: str | None = None,
    report: Callable[[int], object] = lambda _: None,
) -> Comparison:
    """The same in a Milvus collection, made for this and dropped afterwards; BM25 is then Milvus's own function.

    Args:
        collection: The collection.
        retrievers: Those of `evaluate`; the embeddings of the dense one and of SPLADE are stored.
        uri: A milvus-lite file, or a server.
        token: Of a server.
        name: Name of the collection. One of that name is replaced.
        candidates: As in `evaluate`.
        measures: As in `evaluate`.
        baseline: As in `evaluate`. One that needs BM25, in a store without that function, is as None.
        report: Told how many more documents are stored.
    Raises:
        ValueError: An unknown baseline or measure.
    """
    check_baseline(baseline, milvus_system_names([retriever.name for retriever in retrievers]))
    known = {retriever.name: retriever for retriever in retrievers if retriever.name in _STORED}
    stored = {side: getattr(known[side], "documents", None) if side in known else None for side in _STORED}
    start = time.perf_counter()
    store = MilvusCollection(uri, name, collection.documents, stored["dense"], stored["SPLADE"], report, token=token)
    seconds = time.perf_counter() - start
    try:
        depth = max(DEPTH, candidates)

        def encode(side: str, texts: list[str]) -> Any:
            return known[side].encode(texts) if side in known else texts

        encoded = {side: encode(side, collection.queries) for side in store.sides}
        found = {side: store.search(side, encoded[side], depth) for side in store.sides}
        train = {}
        if collection.train is not None:
            queries = collection.train.queries
            train = {side: store.search(side, encode(side, queries), candidates) for side in store.sides}
        sides_of = {rrf_name(sides): sides for sides in fusions(store.sides)}
        rrf = {
            fusion: store.fuse({side: encoded[side] for side in sides}, candidates, DEPTH)
            for fusion, sides in sides_of.items()
        }
        latency = {
            side: median_ms(lambda text, side=side: store.search(side, encode(side, [text]), 10), collection)  # type: ignore[misc]
            for side in store.sides
        }
        for fusion, sides in sides_of.items():
            latency[fusion] = median_ms(
                lambda text, sides=sides: store.fuse({s: encode(s, [text]) for s in sides}, candidates, 10),  # type: ignore[misc]
                collection,
            )
        notes = [f"Stored {len(collection.documents) / seconds:,.0f} documents/s, all fields together."]
        if not store.bm25_refused:
            notes.append(f"BM25: Milvus's own function, analyzer {json.dumps(bm25_analyzer(uri))}.")
        else:
            notes.append(f"This store has no BM25 function: {store.bm25_refused}.")
        return compare(
            collection,
            found,
            train,
            rrf=rrf,
            latency=latency,
            candidates=candidates,
            measures=measures,
            baseline=baseline if baseline in system_names(store.sides) else None,
            search="Milvus",
            costs={},
            notes=notes,
        )
    finally:
        store.close()


def milvus_system_names(retrievers: Sequence[str]) -> list[str]:
    """Names of the systems in Milvus: those of the retrievers that it stores, with Milvus's own BM25.

    Example:
        >>> milvus_system_names(["BM25 unstemmed", "BM25", "SPLADE"])
        ['SPLADE', 'BM25', 'BM25 + SPLADE, RRF', 'BM25 + SPLADE, weights']
    """
    return system_names([*(side for side in _STORED if side in retrievers), "BM25"])
