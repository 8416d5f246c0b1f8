"""What a hybrid store asks Milvus for a query of LlamaIndex's. Knows no encoder and no client."""

from typing import TYPE_CHECKING, Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from pymilvus import RRFRanker, WeightedRanker

from splade_integrations.milvus.settings import RRF_K, hybrid_request

if TYPE_CHECKING:
    from splade_integrations.llama_index.store import HybridMilvusVectorStore

__all__ = ["Hits", "hybrid_search", "sparse_search", "text_of"]

Hits = tuple[list[BaseNode], list[float], list[str]]


def text_of(query: VectorStoreQuery) -> str:
    """The query's text, or a ValueError where it has none."""
    if query.query_str is None:
        raise ValueError(
            f"query_str must be given for mode {query.mode.value!r}, got None. Set it beside the embedding."
        )
    return query.query_str


def sparse_search(
    store: "HybridMilvusVectorStore",
    rows: list[dict[int, float]],
    query: VectorStoreQuery,
    string_expr: str,
    output_fields: list[str],
    **kwargs: Any,
) -> dict[str, Any]:
    """The arguments of `MilvusClient.search` for the sparse side alone.

    Args:
        store: The store.
        rows: The query, encoded.
        query: The query.
        string_expr: The filter that the framework made.
        output_fields: Fields to return.
        **kwargs: The framework's: `milvus_partition_names`.
    """
    return {
        "collection_name": store.collection_name,
        "data": rows,
        "anns_field": store.sparse_embedding_field,
        "limit": query.similarity_top_k,
        "filter": string_expr,
        # The framework's would drop terms on a server, and is refused by milvus-lite 3.
        "search_params": {"params": {}},
        "output_fields": output_fields,
        "partition_names": kwargs.get("milvus_partition_names"),
    }


def hybrid_search(
    store: "HybridMilvusVectorStore",
    rows: list[dict[int, float]],
    query: VectorStoreQuery,
    string_expr: str,
    output_fields: list[str],
    **kwargs: Any,
) -> dict[str, Any]:
    """The arguments of `MilvusClient.hybrid_search` for both sides; arguments as `sparse_search`."""
    sides: list[tuple[str, Any, Any]] = [
        (store.embedding_field, query.query_embedding, {"params": store.search_config}),
        (store.sparse_embedding_field, rows[0], {"params": {}}),
    ]
    k = query.hybrid_top_k or query.similarity_top_k
    request = hybrid_request(sides, k=k, depth=query.sparse_top_k, expr=string_expr, ranker=_ranker(store))
    partitions = kwargs.get("milvus_partition_names")
    names = {"collection_name": store.collection_name, "output_fields": output_fields, "partition_names": partitions}
    return request | names


def _ranker(store: "HybridMilvusVectorStore") -> RRFRanker | WeightedRanker:
    if store.hybrid_ranker == "RRFRanker":
        return RRFRanker(store.hybrid_ranker_params.get("k", RRF_K))
    if store.hybrid_ranker == "WeightedRanker":
        return WeightedRanker(*store.hybrid_ranker_params.get("weights", [1.0, 1.0]))
    raise ValueError(f"hybrid_ranker must be 'RRFRanker' or 'WeightedRanker', got {store.hybrid_ranker!r}.")
