"""`splade evaluate --fit --write`: finds the best fusion for a collection, and stores the fusion in the collection.

The fusion is chosen with judged queries. Only these queries are encoded. The documents and their vectors come from the
collection, so the measured quality is what users of the collection get.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from splade_integrations.cli.milvus_store import Store
from splade_integrations.evaluation.dataset import Dataset
from splade_integrations.evaluation.fit import Fit, fit
from splade_integrations.evaluation.ranking import Ranking
from splade_integrations.evaluation.retrievers import DenseEncoder
from splade_integrations.sparse import to_dicts

__all__ = ["fit_collection"]


def fit_collection(
    dataset: Dataset,
    store: Store,
    encoder: Any,
    dense_encoder: DenseEncoder | None,
    *,
    measure: str,
    depth: int,
) -> Fit:
    """Fit a fusion to a collection, and store the fusion in the collection.

    Args:
        dataset: The judged queries. Their judgments name documents by the ids that the collection uses.
        store: The collection.
        encoder: The SPLADE encoder of the collection, or None if the collection has no SPLADE vectors.
        dense_encoder: The dense model of the collection, or None if the collection has no dense vectors.
        measure: The name of the measure by which fusions are compared.
        depth: How many hits of each kind of vector ("sparse", "dense" or "bm25") are fused.
    Raises:
        ValueError: There are too few judged queries, or no judged document is in the collection.
    """
    known = store.known(list({document for grades in dataset.qrels.values() for document in grades}))
    if not known:
        raise ValueError(
            f"the judged documents of {dataset.name!r} must be in the collection {store.name!r}, but none of "
            "them is. Index the same corpus, and keep its document ids."
        )
    rows = {document: row for row, document in enumerate(dataset.document_ids)}
    found = _rankings(dataset.queries, store, encoder, dense_encoder, depth, rows)
    train = (
        {} if dataset.train is None else _rankings(dataset.train.queries, store, encoder, dense_encoder, depth, rows)
    )
    ids = list(rows)  # `_rankings` has added the ids of documents that the dataset lacks
    both = None if dataset.train is None else replace(dataset.train, document_ids=ids)
    fitted = fit(replace(dataset, document_ids=ids, train=both), found, train, measure=measure, depth=depth)
    store.record_fusion(fitted.fusion)
    return fitted


def _rankings(
    texts: list[str],
    store: Store,
    encoder: Any,
    dense_encoder: DenseEncoder | None,
    depth: int,
    rows: dict[str, int],
) -> dict[str, list[Ranking]]:
    """Return {side: a ranking for each text}. A side is a kind of vector: "sparse", "dense" or "bm25".

    `rows` is {document id: row number}. This function adds the found documents that are not yet in `rows`.
    """
    queries: dict[str, Sequence[Any]] = {"bm25": texts}
    if encoder is not None:
        queries["sparse"] = to_dicts(encoder.encode_queries(texts))
    if dense_encoder is not None:
        queries["dense"] = list(dense_encoder.encode(texts))
    found: dict[str, list[Ranking]] = {}
    for side in (one for one in store.sides if one in queries):
        found[side] = [
            Ranking([rows.setdefault(hit.id, len(rows)) for hit in hits], [hit.score for hit in hits])
            for hits in store.rank(side, queries[side], depth)
        ]
    return found
