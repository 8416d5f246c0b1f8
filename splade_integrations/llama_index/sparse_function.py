"""`BaseSparseEmbeddingFunction`, the base class of sparse embedding functions for Milvus stores.

The package of LlamaIndex's own Milvus store has a class with this name. That store accepts only instances of its class.
So if the package is installed, the name `BaseSparseEmbeddingFunction` refers to the class of the package. Otherwise,
the name refers to a class of this module with the same methods. This module uses neither an encoder nor Milvus.
"""

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING

__all__ = ["BaseSparseEmbeddingFunction"]


class BaseSparseEmbeddingFunction(ABC):
    """The methods that a Milvus store calls on a sparse embedding. They return `{token id: weight}` dicts.

    If llama-index-vector-stores-milvus is installed, this name refers to the class of that package, because the store
    of that package accepts only instances of its class. Both classes have the same methods.
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
