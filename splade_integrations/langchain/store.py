"""LangChain's `Milvus` store, set up for hybrid retrieval: its defaults and a few of its methods put right.

Everything else is the framework's own. Knows no encoder: any dense and any sparse embedding of LangChain's will do.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from langchain_milvus import Milvus
from langchain_milvus.utils.sparse import BaseSparseEmbedding
from pymilvus import AsyncMilvusClient

from splade_integrations.encoding.tokenizer import check_texts
from splade_integrations.langchain.adding import write
from splade_integrations.langchain.checks import (
    check_ids,
    check_metadatas,
    check_search_type,
    check_sides,
    existing_settings,
)
from splade_integrations.langchain.searching import Search
from splade_integrations.milvus.clients import AsyncClients, open_client, write_lock
from splade_integrations.milvus.fingerprint import check_encoder, description_with, record
from splade_integrations.milvus.ingest import ROWS_PER_WRITE, ingest
from splade_integrations.milvus.settings import check_varchar, dense_index, insert_replaces, is_lite, sparse_index

__all__ = ["HybridMilvus", "hybrid_milvus"]

_DEFAULT_URI = "http://localhost:19530"  # pymilvus's own


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
        uri: A milvus-lite file, `./name.db`, or a server, `http://host:19530`.
        token: Of a server: `user:password`, or an API key.
        collection_name: The collection; the first documents added create it.
        connection_args: What else `MilvusClient` takes, such as `db_name`; may hold `uri` and `token` instead.
        **milvus_options: What else `HybridMilvus` takes, and any keyword of `langchain_milvus.Milvus`, such as
            `drop_old`, `index_params`, `partition_key_field` or `consistency_level`; it takes the place of our default.
    Returns:
        The store. It searches as `HybridMilvus` says.
    Raises:
        TypeError: `dense` and `sparse` are no such embeddings or in the wrong order, or an option is unknown.
        ValueError: The collection exists and has other fields, or was made with another encoder.
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
    - Both sides embed the same text: `page_content`, after the metadata that `embed_metadata` names.
    - Async methods work in any number of event loops. Adding runs in a thread, by the embeddings' sync methods.
    - Metadata goes into the collection's dynamic field: documents may differ in their keys, all can be filtered on.
    - A collection remembers its encoder, and no other is taken.
    - `consistency_level` is the framework's, "Session": a search sees what this client wrote. "Strong" sees what anyone
      did; milvus-lite always does.
    - Exact dense index, and a flush after adding, on milvus-lite only.

    Args:
        embedding_function: [dense, sparse].
        collection_name: The collection.
        embed_metadata: Keys of metadata whose values are to be found by: "key: value" goes before the text embedded.
        allow_other_encoder: Open a collection that was made with another encoder.
        **milvus_options: Any keyword of `langchain_milvus.Milvus`; it takes the place of our default.

    Raises:
        TypeError, ValueError, OSError: As `hybrid_milvus`.
    """

    auto_id: bool  # whether Milvus numbers the documents; the framework's

    def __init__(
        self,
        embedding_function: list[Any],
        collection_name: str = "LangChainCollection",
        *,
        embed_metadata: Sequence[str] = (),
        allow_other_encoder: bool = False,
        **milvus_options: Any,
    ) -> None:
        check_sides(embedding_function)
        options = _with_defaults(milvus_options)
        self.uri: str = options["connection_args"]["uri"]
        self.embed_metadata, self.insert_replaces = embed_metadata, insert_replaces(self.uri)
        self._fingerprint = getattr(embedding_function[1], "fingerprint", None)
        self._allow_other_encoder = allow_other_encoder
        client = open_client(**options["connection_args"])
        self._knows_collection = not options.get("drop_old") and client.has_collection(collection_name)
        if self._knows_collection:
            options |= self._settings_of(client.describe_collection(collection_name), options)
        options["collection_description"] = description_with(
            self._fingerprint, options.get("collection_description", "")
        )
        self._async_clients = AsyncClients(client, **options["connection_args"])
        # The framework's own client, by which `drop_old` drops, does not take turns.
        with write_lock(self.uri), _silent_about_async_client():
            super().__init__(embedding_function, collection_name, **options)
        self._milvus_client = client

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
        batch_size: int = ROWS_PER_WRITE,
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
        texts = check_texts(texts)
        for position, text in enumerate(texts):
            check_varchar(text, f"texts[{position}]")
        fields = [self._text_field, *self.vector_fields]
        metadatas = check_metadatas(metadatas, len(texts), fields=fields, primary_field=self._primary_field)
        keys = [None] * len(texts) if ids is None else check_ids(ids, len(texts))
        options = {"timeout": timeout, "batch_size": batch_size, **kwargs}
        return ingest(
            list(zip(texts, metadatas, keys, strict=True)),
            lambda rows: write(self, rows, **options),
            (lambda: self.client.flush(self.collection_name)) if is_lite(self.uri) else None,
        )

    def upsert(self, ids: list[str] | None = None, documents: list[Document] | None = None, **kwargs: Any) -> None:
        """Add documents in place of those of the same ids: `add_documents` by the framework's other name."""
        if documents:
            self.add_documents(documents, **({"ids": ids} if ids else {}), **kwargs)

    async def aupsert(
        self, ids: list[str] | None = None, documents: list[Document] | None = None, **kwargs: Any
    ) -> None:
        """As `upsert`, in a thread."""
        await run_in_executor(None, self.upsert, ids, documents, **kwargs)

    # `similarity_search`, its async twin and retrievers come to these two, with the keywords of `Search`.

    def similarity_search_with_score(
        self, query: str, k: int = 4, *args: Any, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The `k` best documents for `query`, with scores: of fusion, or of the one side that `mode` names."""
        search = Search(self, k, *args, **kwargs)
        if not self._has_collection():
            return []
        vectors = [side.embed_query(query) for side in search.embeddings]
        return search.documents(search.run(self.client, vectors))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, *args: Any, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score`; both sides embed the query at the same time."""
        search = Search(self, k, *args, **kwargs)
        if not self._has_collection():
            return []
        vectors = await asyncio.gather(*(side.aembed_query(query) for side in search.embeddings))
        return search.documents(await search.run(self.aclient, vectors))

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """A retriever; `search_kwargs` may hold the keywords of `Search`: `k`, `expr`, `mode`, `fetch_k`, …

        Raises:
            ValueError: Another `search_type` than "similarity".
        """
        check_search_type(kwargs.get("search_type", "similarity"))
        return super().as_retriever(**kwargs)  # type: ignore[no-any-return]

    def _select_relevance_score_fn(self) -> Any:  # the framework asks it for every threshold
        check_search_type("similarity_score_threshold")

    def _create_collection(self, *args: Any, **kwargs: Any) -> None:
        super()._create_collection(*args, **kwargs)
        record(self.client, self.collection_name, self._fingerprint)
        self._knows_collection = True

    def create_collection(self, sides: list[list[Any]], metadatas: list[dict[str, Any]], *, auto_id: bool) -> None:
        """Create the collection, with the fields that these rows need.

        Args:
            sides: Embeddings of each side, dense and sparse.
            metadatas: A dict for each row.
            auto_id: Whether Milvus numbers the documents.
        """
        self.auto_id = auto_id
        how = {"partition_names": self.partition_names, "replica_number": self.replica_number, "timeout": self.timeout}
        self._init(sides, metadatas, **{name: value for name, value in how.items() if value})

    def _has_collection(self) -> bool:
        there = self.col is not None
        if there:
            self.take_collection_as_it_is()
        return there

    def take_collection_as_it_is(self) -> None:
        """Learn what another store has decided that created the collection after this one was opened.

        Raises:
            ValueError: It has other fields, or was made with another encoder.
        """
        if not self._knows_collection:
            names = {"primary_field": self._primary_field, "text_field": self._text_field}
            options = {**names, "vector_field": self.vector_fields}
            settings = self._settings_of(self.client.describe_collection(self.collection_name), options)
            self.auto_id, self.enable_dynamic_field = settings["auto_id"], settings["enable_dynamic_field"]
            self._knows_collection = True

    def _settings_of(self, description: dict[str, Any], options: dict[str, Any]) -> dict[str, bool]:
        check_encoder(description, self.uri, self._fingerprint, allow_other_encoder=self._allow_other_encoder)
        return existing_settings(description, options)


def _with_defaults(milvus_options: dict[str, Any]) -> dict[str, Any]:
    """The framework's keywords, with ours where they say nothing."""
    options = {key: value for key, value in milvus_options.items() if value is not None}
    given = options.get("connection_args", {})
    uri = given.get("uri") or _DEFAULT_URI  # "" is pymilvus's default, too, and no file
    options["connection_args"] = {**given, "uri": uri}
    return {
        "index_params": [dense_index(uri), sparse_index(uri)],
        # The framework's own would drop sparse terms. No metric_type: Milvus takes the index's.
        "search_params": [{"params": {}}, {"params": {}}],
        "vector_field": ["dense", "sparse"],
        # The framework ignores these two beside a dynamic field.
        "enable_dynamic_field": not {"metadata_field", "metadata_schema"} & options.keys(),
        **options,
    }


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
