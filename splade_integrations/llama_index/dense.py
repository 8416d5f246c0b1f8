"""Lets LlamaIndex use the dense vectors of an encoder that makes dense and sparse vectors in one run of its model."""

import asyncio

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from splade_integrations.one_pass import OnePassEncoder

__all__ = ["DenseEmbedding"]


class DenseEmbedding(BaseEmbedding):
    """The dense embedding of BGE-M3, a model that makes a text's dense and sparse vectors in one run.

    The vectors have length 1. Use the object as the `embed_model` of an index over `HybridMilvusVectorStore`.

    Args:
        encoder: The `OnePassEncoder` that the sparse embedding of the store also uses.
        embed_batch_size: The number of texts in one call of the encoder, at most 2 048. The encoder itself limits the
            memory that it needs for many texts.
    Raises:
        TypeError: The encoder is not a `OnePassEncoder`.

    Example:
        >>> from splade_integrations import OnePassEncoder, SpladeEncoder
        >>> from splade_integrations.llama_index import DenseEmbedding, HybridMilvusVectorStore, SpladeSparseEmbedding
        >>> def store_of_bge_m3(uri):
        ...     both = OnePassEncoder(SpladeEncoder("BAAI/bge-m3"))
        ...     sparse = SpladeSparseEmbedding(encoder=both)
        ...     store = HybridMilvusVectorStore(uri, dim=1024, sparse_embedding_function=sparse)
        ...     return store, DenseEmbedding(both)  # the second is the embed_model of the index
    """

    _encoder: OnePassEncoder = PrivateAttr()

    def __init__(self, encoder: OnePassEncoder, *, embed_batch_size: int = 512) -> None:
        super().__init__(model_name="dense vectors of a OnePassEncoder", embed_batch_size=embed_batch_size)
        self._encoder = OnePassEncoder.checked(encoder)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that this class has in serialised objects and in events."""
        return "DenseEmbedding"

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._encoder.dense_documents(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        vectors: list[list[float]] = self._encoder.dense_queries([query]).tolist()
        return vectors[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)
