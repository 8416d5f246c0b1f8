"""The one seam to langchain-milvus: its abstract class of sparse embeddings if it is installed, else one like it.

LangChain's own store takes an embedding for a sparse one by that class alone; langchain-core has no such class.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from langchain_core.runnables.config import run_in_executor

__all__ = ["BaseSparseEmbedding"]


class LocalSparseEmbedding(ABC):
    """Sparse embeddings, as langchain-milvus asks for them."""

    @abstractmethod
    def embed_query(self, query: str) -> dict[int, float]:
        """Embed a query as {token id: weight}."""

    @abstractmethod
    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Embed N texts as N dicts of {token id: weight}."""

    async def aembed_query(self, query: str) -> dict[int, float]:
        """Embed as `embed_query`, in a thread."""
        return await run_in_executor(None, self.embed_query, query)

    async def aembed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Embed as `embed_documents`, in a thread."""
        return await run_in_executor(None, self.embed_documents, texts)


if TYPE_CHECKING:
    BaseSparseEmbedding = LocalSparseEmbedding
else:
    try:
        from langchain_milvus.utils.sparse import BaseSparseEmbedding
    except ImportError:
        BaseSparseEmbedding = LocalSparseEmbedding
