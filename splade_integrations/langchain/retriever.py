"""The retriever that `HybridMilvus.as_retriever` returns."""

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.documents import Document
from langchain_core.runnables.config import ensure_config, get_config_list
from langchain_core.vectorstores import VectorStoreRetriever

__all__ = ["HybridRetriever"]


class HybridRetriever(VectorStoreRetriever):
    """A retriever with a method `batch` that encodes all questions together and sends them to Milvus in one request.

    Callbacks, tags and metadata are the same as if `invoke` were called for each question.
    """

    def batch(
        self, inputs: list[str], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[list[Document]]:
        """Return the documents for each question.

        If the request for all questions fails and `return_exceptions` is true, the store is searched for each question
        separately. The result then holds the documents or an exception for each question.
        """
        if self.search_type != "similarity" or len(inputs) < 2:
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        store: Any = self.vectorstore  # a `HybridMilvus`, which has more methods than a `VectorStore`
        how = {**self.search_kwargs, **kwargs}
        runs = [
            CallbackManager.configure(**arguments).on_retriever_start(None, question, **started)
            for question, (arguments, started) in zip(inputs, self._runs(inputs, config), strict=True)
        ]
        try:
            found = store.similarity_search_many(inputs, **how)
        except Exception as err:
            if not return_exceptions:
                for run in runs:
                    run.on_retriever_error(err)
                raise
            found = [_attempt(store, question, how) for question in inputs]
        for run, documents in zip(runs, found, strict=True):
            if isinstance(documents, Exception):
                run.on_retriever_error(documents)
            else:
                run.on_retriever_end(documents)
        return list(found)

    async def abatch(
        self, inputs: list[str], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[list[Document]]:
        """Search like `batch`."""
        if self.search_type != "similarity" or len(inputs) < 2:
            return await super().abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        store: Any = self.vectorstore
        how = {**self.search_kwargs, **kwargs}
        runs = [
            await AsyncCallbackManager.configure(**arguments).on_retriever_start(None, question, **started)
            for question, (arguments, started) in zip(inputs, self._runs(inputs, config), strict=True)
        ]
        try:
            found = await store.asimilarity_search_many(inputs, **how)
        except Exception as err:
            if not return_exceptions:
                await asyncio.gather(*(run.on_retriever_error(err) for run in runs))
                raise
            asked = (store.asimilarity_search(question, **how) for question in inputs)
            found = await asyncio.gather(*asked, return_exceptions=True)
        for run, documents in zip(runs, found, strict=True):
            if isinstance(documents, Exception):
                await run.on_retriever_error(documents)
            else:
                await run.on_retriever_end(documents)
        return list(found)

    def _runs(self, inputs: Sequence[str], config: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Return two dicts for each question: arguments to configure its callbacks, and arguments to start its run."""
        runs = []
        for each in map(ensure_config, get_config_list(config, len(inputs))):
            arguments = {
                "inheritable_callbacks": each.get("callbacks"),
                "inheritable_tags": each.get("tags"),
                "local_tags": self.tags,
                "inheritable_metadata": {**(each.get("metadata") or {}), **self._get_ls_params()},
                "local_metadata": self.metadata,
            }
            runs.append((arguments, {"name": each.get("run_name") or self.get_name(), "run_id": each.get("run_id")}))
        return runs


def _attempt(store: Any, question: str, how: dict[str, Any]) -> Any:
    try:
        return store.similarity_search(question, **how)
    except Exception as err:
        return err
