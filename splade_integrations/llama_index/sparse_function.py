"""The abstract class that LlamaIndex's Milvus store asks of a sparse embedding, if that store is installed.

Knows no encoder and no Milvus.
"""

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING

__all__ = ["BaseSparseEmbeddingFunction"]


class BaseSparseEmbeddingFunction(ABC):
    """What a Milvus store asks of a sparse embedding: rows as `{token id: weight}`.

    If llama-index-vector-stores-milvus is installed, this name is that package's class, because its store tests
    `isinstance`. Both classes have the same methods.
    """

    @abstractmethod
    def encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        """Encode N queries as N dicts."""

    async def async_encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        """Encode N queries as N dicts."""
        return self.encode_queries(queries)

    @abstractmethod
    def encode_documents(self, documents: list[str]) -> list[dict[int, float]]:
        """Encode N documents as N dicts."""

    async def async_encode_documents(self, documents: list[str]) -> list[dict[int, float]]:
        """Encode N documents as N dicts."""
        return self.encode_documents(documents)


if not TYPE_CHECKING:
    with suppress(ImportError):
        from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction
