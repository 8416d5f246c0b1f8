"""`BaseSparseEmbeddingFunction`, the base class of sparse embedding functions for Milvus stores.

LlamaIndex's own Milvus store is in the package llama-index-vector-stores-milvus. That package has a class with the same
name, and its store accepts only instances of that class. So if the package is installed, the name
`BaseSparseEmbeddingFunction` refers to the class of the package. If not, the name refers to a class of this module with
the same methods. This module uses neither an encoder nor Milvus.
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
