"""The retriever that `HybridMilvus.as_retriever` returns."""

from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStoreRetriever

__all__ = ["HybridRetriever"]


class HybridRetriever(VectorStoreRetriever):
    """A retriever whose `batch` encodes all questions together, and sends them to Milvus in one request."""

    def batch(
        self, inputs: list[str], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[list[Document]]:
        """Return the documents for each question. If one question fails, all fail."""
        if self.search_type != "similarity":
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        store: Any = self.vectorstore  # a `HybridMilvus`, which has more methods than a `VectorStore`
        how = {**self.search_kwargs, **kwargs}
        return self._batch_with_config(
            lambda questions: store.similarity_search_many(questions, **how),
            inputs,
            config,
            return_exceptions=return_exceptions,
        )

    async def abatch(
        self, inputs: list[str], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[list[Document]]:
        """Search like `batch`."""
        if self.search_type != "similarity":
            return await super().abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        store: Any = self.vectorstore
        how = {**self.search_kwargs, **kwargs}

        async def search(questions: list[str]) -> list[Exception | list[Document]]:
            return list(await store.asimilarity_search_many(questions, **how))

        return await self._abatch_with_config(search, inputs, config, return_exceptions=return_exceptions)
