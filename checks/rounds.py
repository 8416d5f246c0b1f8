"""Open three stores on milvus-lite: this package's two stores, and `MilvusClient` alone.

For each store there is a function that adds, searches and deletes documents once. The three functions do the same work,
so that the memory of the stores can be compared.
"""

import random
from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import csr_array

__all__ = ["STORES"]


class _Words:
    """An encoder without a model, so that the measured memory does not include torch."""

    def encode_documents(self, texts: Sequence[str]) -> csr_array:
        rows = np.zeros((len(texts), 3000), np.float32)
        for row, text in enumerate(texts):
            rows[row, [hash(f"{text} {place}") % 3000 for place in range(40)]] = 1
        return csr_array(rows)

    encode_queries = encode_documents


def _vector() -> list[float]:
    return [random.random() for _ in range(64)]


def _bare(uri: str) -> Callable[[list[str]], None]:
    from pymilvus import AnnSearchRequest, DataType, MilvusClient, RRFRanker

    from splade_integrations import to_dicts

    client = MilvusClient(uri)
    schema = client.create_schema(enable_dynamic_field=False)
    schema.add_field("pk", DataType.VARCHAR, max_length=64, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=1000)
    schema.add_field("metadata", DataType.JSON)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=64)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    indexes = client.prepare_index_params()
    indexes.add_index("dense", index_type="AUTOINDEX", metric_type="COSINE")
    indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection("rounds", schema=schema, index_params=indexes)
    client.load_collection("rounds")

    def one_round(ids: list[str]) -> None:
        sparse = to_dicts(_Words().encode_documents(ids))
        rows = [
            {"pk": key, "text": key, "metadata": {"n": 1}, "dense": _vector(), "sparse": terms}
            for key, terms in zip(ids, sparse, strict=True)
        ]
        client.upsert("rounds", rows)
        for terms in sparse[:3]:
            asked = [
                AnnSearchRequest([_vector()], "dense", {"metric_type": "COSINE"}, 8),
                AnnSearchRequest([terms], "sparse", {"metric_type": "IP"}, 8),
            ]
            client.hybrid_search("rounds", asked, RRFRanker(60), limit=4, output_fields=["text", "metadata"])
        client.delete("rounds", ids=ids)

    return one_round


def _langchain(uri: str) -> Callable[[list[str]], None]:
    from langchain_core.embeddings import DeterministicFakeEmbedding

    from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus

    store = hybrid_milvus(DeterministicFakeEmbedding(size=64), SpladeSparseEmbedding(encoder=_Words()), uri=uri)

    def one_round(ids: list[str]) -> None:
        store.add_texts(ids, metadatas=[{"n": 1}] * len(ids), ids=ids)
        for key in ids[:3]:
            store.similarity_search(key, k=4)
        store.delete(ids)

    return one_round


def _llama_index(uri: str) -> Callable[[list[str]], None]:
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

    from splade_integrations.llama_index import HybridMilvusVectorStore, SpladeSparseEmbedding

    sparse = SpladeSparseEmbedding(encoder=_Words())
    store = HybridMilvusVectorStore(uri=uri, dim=64, sparse_embedding_function=sparse)

    def one_round(ids: list[str]) -> None:
        store.add([TextNode(id_=key, text=key, metadata={"n": 1}, embedding=_vector()) for key in ids])
        for key in ids[:3]:
            store.query(
                VectorStoreQuery(
                    query_embedding=_vector(), query_str=key, similarity_top_k=4, mode=VectorStoreQueryMode.HYBRID
                )
            )
        store.delete_nodes(ids)

    return one_round


STORES: dict[str, Callable[[str], Callable[[list[str]], None]]] = {
    "MilvusClient": _bare,
    "HybridMilvus": _langchain,
    "HybridMilvusVectorStore": _llama_index,
}
