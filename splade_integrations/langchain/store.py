"""LangChain's `Milvus` store, set up for hybrid retrieval: its defaults and a few of its methods put right.

Everything else is the framework's own. Knows no encoder: any dense and any sparse embedding of LangChain's will do.
"""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from os import PathLike, fspath
from typing import Any, Literal, cast

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from langchain_milvus import Milvus
from langchain_milvus.utils.sparse import BaseSparseEmbedding
from pymilvus import AsyncMilvusClient

from splade_integrations.langchain.checks import (
    check_ids,
    check_metadatas,
    check_sides,
    check_storable,
    existing_settings,
)
from splade_integrations.milvus_settings import (
    AsyncClients,
    candidates,
    dense_index,
    insert_replaces,
    is_lite,
    open_client,
    rrf_reranker,
    sparse_index,
)
from splade_integrations.tokenization import check_texts

__all__ = ["HybridMilvus", "hybrid_milvus"]

Mode = Literal["hybrid", "dense", "sparse"]

# Documents encoded and written together: enough for full batches, and a sparse row takes some 20 KB as a dict.
_CHUNK = 512
_FLUSH = 8 * _CHUNK


def hybrid_milvus(
    dense: Embeddings,
    sparse: BaseSparseEmbedding,
    *,
    uri: str | PathLike[str] | None = None,
    token: str | None = None,
    collection_name: str = "LangChainCollection",
    connection_args: dict[str, Any] | None = None,
    **milvus_options: Any,
) -> "HybridMilvus":
    """Open a Milvus collection, or the place for one, for hybrid retrieval.

    Args:
        dense: Dense embeddings of LangChain's.
        sparse: Sparse embeddings: a `SpladeSparseEmbedding`.
        uri: A milvus-lite file, `./name.db`, or a server, `http://host:19530`. A server must be Milvus 2.6 or newer;
            for an older one pass `ranker_type="rrf"` with each search.
        token: Of a server: `user:password`, or an API key.
        collection_name: The collection; the first documents added create it.
        connection_args: What else `MilvusClient` takes, such as `db_name`; may hold `uri` and `token` instead.
        **milvus_options: Any keyword of `langchain_milvus.Milvus`, such as `drop_old`, `index_params`,
            `partition_key_field` or `consistency_level`; it takes the place of our default.
    Returns:
        The store. It searches as `HybridMilvus` says.
    Raises:
        TypeError: `dense` and `sparse` are no such embeddings or in the wrong order, or an option is unknown.
        ValueError: The collection exists and has other fields.
        OSError: The milvus-lite file cannot be opened.

    Example:
        >>> import tempfile
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
        >>> dense, sparse = DeterministicFakeEmbedding(size=8), SpladeSparseEmbedding(model_name=model_folder)
        >>> store = hybrid_milvus(dense, sparse, uri=tempfile.mkdtemp() + "/example.db")
        >>> store.add_texts(["Cats purr.", "Dogs bark."], ids=["cat", "dog"])
        ['cat', 'dog']
        >>> [document.id for document in store.similarity_search("a barking dog", k=1, mode="sparse")]
        ['dog']
    """
    arguments = dict(connection_args or {})
    for name, value in {"uri": uri and fspath(uri), "token": token}.items():
        if value is not None and arguments.setdefault(name, value) != value:
            raise TypeError(f"{name} must be given once, got another one in connection_args. Drop one of them.")
    return HybridMilvus([dense, sparse], collection_name, connection_args=arguments or None, **milvus_options)


class HybridMilvus(Milvus):  # type: ignore[misc]  # langchain_milvus is untyped
    """`langchain_milvus.Milvus` over a dense and a sparse field, right by default.

    - Search fuses both sides by reciprocal rank (k = 60) from max(100, 10 k) candidates a side. A search's own
      `fetch_k`, `reranker` or `ranker_type` go first; `expr` filters both sides; `mode="dense"` or `mode="sparse"`
      searches one side alone. Documents found carry their id.
    - Adding takes ids from `ids=` or else from `Document.id`, and replaces what is there under them. Without ids
      Milvus numbers the documents, and adding twice duplicates. An error part-way leaves earlier chunks stored.
    - Async methods work in any number of event loops. Adding runs in a thread, by the embeddings' sync methods.
    - Metadata goes into the collection's dynamic field: documents may differ in their keys, all can be filtered on.
    - Exact dense index, and a flush after adding, on milvus-lite only.

    Args:
        embedding_function: [dense, sparse].
        collection_name: The collection.
        **milvus_options: Any keyword of `langchain_milvus.Milvus`; it takes the place of our default.

    Raises:
        TypeError, ValueError, OSError: As `hybrid_milvus`.
    """

    auto_id: bool  # whether Milvus numbers the documents; the framework's

    def __init__(
        self, embedding_function: list[Any], collection_name: str = "LangChainCollection", **milvus_options: Any
    ) -> None:
        check_sides(embedding_function)
        options = {key: value for key, value in milvus_options.items() if value is not None}
        connection_args = options.setdefault("connection_args", {"uri": "http://localhost:19530"})
        uri = connection_args.get("uri", "")
        self._is_lite, self._insert_replaces = is_lite(uri), insert_replaces(uri)
        self._writing = threading.Lock()
        self._async_clients = AsyncClients(**connection_args)
        options.setdefault("index_params", [dense_index(uri), sparse_index(uri)])
        # The framework's own would drop sparse terms. No metric_type: Milvus takes the index's.
        options.setdefault("search_params", [{"params": {}}, {"params": {}}])
        options.setdefault("vector_field", ["dense", "sparse"])
        # The framework ignores these two beside a dynamic field.
        options.setdefault("enable_dynamic_field", not {"metadata_field", "metadata_schema"} & options.keys())
        client = open_client(**connection_args)
        if not options.get("drop_old") and client.has_collection(collection_name):
            options |= existing_settings(client, collection_name, options)
        with _silent_about_async_client():
            super().__init__(embedding_function, collection_name, **options)

    @property
    def aclient(self) -> AsyncMilvusClient:
        """The async client of the running event loop. The framework's is lost with the first loop."""
        return self._async_clients.current()

    # LangChain's own: they take ids from `Document.id`, and add in a thread. Milvus's drop those ids, and stall the
    # event loop while they write.
    add_documents = VectorStore.add_documents
    aadd_documents = VectorStore.aadd_documents
    aadd_texts = VectorStore.aadd_texts

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        timeout: float | None = None,
        batch_size: int = 1000,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Encode texts and write them, some hundreds at a time; replace those whose ids are there.

        Args:
            texts: N texts.
            metadatas: N dicts, or None.
            timeout: Seconds for each write.
            batch_size: Most rows of a write.
            ids: N ids, or None for numbers that Milvus gives.
            **kwargs: What `MilvusClient.insert` takes.
        Returns:
            N ids.
        Raises:
            TypeError: A text or an id is not a str.
            ValueError: Ids that repeat or do not fit the collection, metadata named like a field, or a text that
                Milvus cannot store. Nothing has been written then.
        """
        rows = check_texts(texts)
        if not rows:
            return []
        check_storable(rows)
        fields = [self._text_field, *self.vector_fields]
        metadatas = check_metadatas(metadatas, len(rows), fields=fields, primary_field=self._primary_field)
        ids = check_ids(ids, len(rows)) if ids else None
        keys: list[str] = []
        for start in range(0, len(rows), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            keys += self._add_chunk(
                rows[chunk], metadatas[chunk], ids and ids[chunk], timeout=timeout, batch_size=batch_size, **kwargs
            )
            # milvus-lite indexes unflushed rows anew for each query, and holds them in twice the memory.
            if self._is_lite and (len(keys) % _FLUSH == 0 or len(keys) == len(rows)):
                with self._writing:
                    self.client.flush(self.collection_name)
        return keys

    def _add_chunk(
        self, texts: list[str], metadatas: list[dict[str, Any]], ids: list[str] | None, **options: Any
    ) -> list[str]:
        exists = self.client.has_collection(self.collection_name)
        if exists and self.auto_id != (ids is None):
            rule = "numbers its documents itself" if self.auto_id else "has ids of the user's"
            advice = "Add without ids" if self.auto_id else "Give ids=[…], or each Document an id"
            raise ValueError(
                f"ids must fit collection {self.collection_name!r}, which {rule}, got {'some' if ids else 'none'}. "
                f"{advice}, or take another collection_name."
            )
        if exists and ids and not self._insert_replaces:
            documents = [Document(text, metadata=metadata) for text, metadata in zip(texts, metadatas, strict=True)]
            super().upsert(ids, documents, **options)
            return ids
        sides = [side.embed_documents(texts) for side in self.embeddings]
        embeddings = [list(pair) for pair in zip(*sides, strict=True)]
        # Of threads that add first, one creates the collection. milvus-lite numbers rows without a lock of its own.
        with self._writing if self._is_lite or not exists else nullcontext():
            if not self.client.has_collection(self.collection_name):
                self.auto_id = ids is None
            keys = super().add_embeddings(texts, embeddings, metadatas, ids=ids, **options)
        return cast(list[str], keys)

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        param: Any = None,
        expr: str | None = None,
        timeout: float | None = None,
        *,
        mode: Mode = "hybrid",
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Search; `similarity_search` and retrievers come here and take the same keywords.

        Args:
            query: The query.
            k: Most documents to return.
            param: Search parameters of Milvus: a list for both sides, or a dict for the one searched.
            expr: A filter of Milvus, such as `year > 2000`.
            timeout: Seconds.
            mode: "hybrid", or one side alone: "dense" or "sparse".
            **kwargs: For "hybrid": `fetch_k`, `reranker`, `ranker_type`; and what `MilvusClient.hybrid_search` takes.
        Returns:
            Documents with their scores, best first: of fusion, or of the one side.
        Raises:
            ValueError: An unknown mode.
        """
        if mode == "hybrid":
            options = _with_fusion(k, kwargs)
            return self._with_ids(super().similarity_search_with_score(query, k, param, expr, timeout, **options))
        embedding, request = self._request_of_side(mode, k, param, expr, timeout, kwargs)
        if self.col is None:
            return []
        found = self.client.search(data=[embedding.embed_query(query)], **request)
        return self._with_ids(self._parse_documents_from_search_results(found))

    async def asimilarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        param: Any = None,
        expr: str | None = None,
        timeout: float | None = None,
        *,
        mode: Mode = "hybrid",
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Search as `similarity_search_with_score` does."""
        if mode == "hybrid":
            options = _with_fusion(k, kwargs)
            hits = await super().asimilarity_search_with_score(query, k, param, expr, timeout, **options)
            return self._with_ids(hits)
        embedding, request = self._request_of_side(mode, k, param, expr, timeout, kwargs)
        if self.col is None:
            return []
        found = await self.aclient.search(data=[await embedding.aembed_query(query)], **request)
        return self._with_ids(self._parse_documents_from_search_results(found))

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """A retriever over this store.

        Args:
            **kwargs: What `VectorStore.as_retriever` takes; `search_kwargs` may hold `k`, `expr`, `mode`, `fetch_k`, …
        Raises:
            ValueError: Another `search_type` than "similarity".
        """
        search_type = kwargs.get("search_type", "similarity")
        if search_type != "similarity":
            raise ValueError(
                f"search_type must be 'similarity', got {search_type!r}: fused ranks have no relevance scale, and no "
                "one vector to compare. Drop search_type, and limit results by search_kwargs={'k': …}."
            )
        return super().as_retriever(**kwargs)  # type: ignore[no-any-return]

    def _request_of_side(
        self, mode: str, k: int, param: Any, expr: str | None, timeout: float | None, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """The embedding of one side, and what `MilvusClient.search` takes beside its vector."""
        if mode not in ("dense", "sparse"):
            raise ValueError(f"mode must be 'hybrid', 'dense' or 'sparse', got {mode!r}.")
        side = ("dense", "sparse").index(mode)
        param = param or self.search_params
        fusion = {"fetch_k", "reranker", "ranker_type", "ranker_params"}
        return self.embeddings[side], {
            "collection_name": self.collection_name,
            "anns_field": self.vector_fields[side],
            "search_params": param[side] if isinstance(param, list) else param,
            "limit": k,
            "filter": expr or "",
            "output_fields": ["*"],
            "timeout": self.timeout or timeout,
            **{key: value for key, value in kwargs.items() if key not in fusion},
        }

    def _with_ids(self, hits: list[tuple[Document, float]]) -> list[tuple[Document, float]]:
        for document, _ in hits:
            if self._primary_field in document.metadata:
                document.id = str(document.metadata[self._primary_field])
        return hits


def _with_fusion(k: int, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The search's own keywords, with our candidates and fusion where it has none. The framework's fetch_k is 4."""
    options = {key: value for key, value in kwargs.items() if value is not None}
    options.setdefault("fetch_k", candidates(k))
    if "ranker_type" not in options:
        options.setdefault("reranker", rrf_reranker())
    return options


@contextmanager
def _silent_about_async_client() -> Iterator[None]:
    """Drop the framework's warning that it has no async client outside an event loop: `aclient` makes them."""
    logger = logging.getLogger(Milvus.__module__)

    def keep(record: logging.LogRecord) -> bool:
        return "AsyncMilvusClient" not in record.getMessage()

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
