"""`BaseSparseEmbedding`, the base class of sparse embeddings.

If langchain-milvus is installed, `BaseSparseEmbedding` is the class of langchain-milvus, because the `Milvus` store of
langchain-milvus accepts only sparse embeddings of this class. Otherwise, `BaseSparseEmbedding` is
`LocalSparseEmbedding`, a class of this module with the same methods. No other module of this package imports
langchain-milvus.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from langchain_core.runnables.config import run_in_executor

__all__ = ["BaseSparseEmbedding"]


class LocalSparseEmbedding(ABC):
    """A sparse embedding with the methods that langchain-milvus calls."""

    @abstractmethod
    def embed_query(self, query: str) -> dict[int, float]:
        """Embed a query as {token id: weight}."""

    @abstractmethod
    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Embed N texts as N dicts of {token id: weight}."""

    async def aembed_query(self, query: str) -> dict[int, float]:
        """Embed like `embed_query`, in a thread."""
        return await run_in_executor(None, self.embed_query, query)

    async def aembed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Embed like `embed_documents`, in a thread."""
        return await run_in_executor(None, self.embed_documents, texts)


if TYPE_CHECKING:
    BaseSparseEmbedding = LocalSparseEmbedding
else:
    try:
        from langchain_milvus.utils.sparse import BaseSparseEmbedding
    except ImportError:
        BaseSparseEmbedding = LocalSparseEmbedding
