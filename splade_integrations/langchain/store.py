"""`HybridMilvus`, LangChain's face of a Milvus collection: its options, and how it is opened.

Knows no encoder: any dense and any sparse embedding of LangChain's will do.
"""

import asyncio
import copy
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from pymilvus import AsyncMilvusClient, MilvusClient

from splade_integrations.langchain.options import connection_arguments, make_schema, refuse, sides_of
from splade_integrations.langchain.searching import Searching
from splade_integrations.langchain.writing import Writing
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.schema import Side

__all__ = ["HybridMilvus", "hybrid_milvus"]


def hybrid_milvus(
    dense: Embeddings | None,
    sparse: Any = None,
    *,
    bm25: bool = False,
    uri: str | PathLike[str] | None = None,
    token: str | None = None,
    collection_name: str = "LangChainCollection",
    connection_args: Mapping[str, Any] | None = None,
    **options: Any,
) -> "HybridMilvus":
    """Open a Milvus collection, or the place for one, for hybrid retrieval.

    Args:
        dense: Dense embeddings of LangChain's, or None for sparse search alone.
        sparse: Sparse embeddings: a `SpladeSparseEmbedding`, or None for dense search alone.
        bm25: Whether Milvus also keeps a BM25 index of the texts, a side of its own.
        uri: A milvus-lite file, `./name.db`, or a server, `http://host:19530`.
        token: Of a server: `user:password`, or an API key.
        collection_name: The collection; the first documents added create it.
        connection_args: What else `MilvusClient` takes, such as `db_name`; may hold `uri` and `token` instead.
        **options: What else `HybridMilvus` takes, such as `drop_old`, `metadata_fields` or `partition_key_field`.
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
        >>> store.add_texts(["Cats purr.", "Dogs bark."], [{"legs": 4}, {"legs": 4}], ids=["cat", "dog"])
        ['cat', 'dog']
        >>> [document.id for document in store.similarity_search("a barking dog", k=1, mode="sparse")]
        ['dog']
        >>> store.similarity_search("a barking dog", filter={"legs": {"$lt": 4}})
        []
    """
    embeddings = [one for one in (dense, sparse) if one is not None]
    return HybridMilvus(
        embeddings,
        collection_name,
        bm25=bm25,
        uri=uri,
        token=token,
        connection_args=connection_args,
        **options,
    )


class HybridMilvus(Writing, Searching):
    """A vector store of LangChain's over a Milvus collection with dense vectors, SPLADE vectors, or both.

    - Search fuses the sides by reciprocal rank (k = 60) from max(100, 10 k) candidates a side. A search's own
      `fetch_k`, `reranker` or `ranker_type` go first; `filter` (a dict in LangChain's usual form, or an expression of
      Milvus; also called `expr`) binds every side; `mode="dense"` or `mode="sparse"` searches one side alone.
      `group_by="source"` returns the best chunk alone of each source. An unknown keyword is a TypeError.
    - Documents found carry their id, and their metadata as it was given. What JSON cannot hold is refused.
    - Adding takes ids from `ids=` or else from `Document.id`, and replaces what is there under them; a document without
      one gets one. An error part-way leaves earlier chunks stored.
    - All sides embed the same text: `page_content`, after the metadata that `embed_metadata` names. A text without
      a word is stored and never found by sparse search. An empty query is answered by the dense side.
    - Async methods work in any number of event loops. Adding runs in a thread, by the embeddings' sync methods.
    - A collection remembers its encoder, and no other is taken. Collections made by `langchain_milvus.Milvus` are taken
      with their own fields.
    - A server that does not answer within `timeout` is a TimeoutError. A collection that was released is loaded.
    - `consistency_level` is "Session": a search sees what this client wrote. "Strong" sees what anyone did; milvus-lite
      always does.
    - Exact dense index, and a flush after adding, on milvus-lite only.

    Args:
        embedding_function: [dense, sparse], or one of them.
        collection_name: The collection, or an alias of one.
        uri, token, user, password, db_name, host, port: Where it is. Without any: http://localhost:19530.
        connection_args: What else `MilvusClient` takes, TLS for one; may hold the former.
        client, aclient: Clients to use instead of ones of our own.
        bm25: Whether Milvus also keeps a BM25 index of the texts. milvus-lite's neither stems nor keeps one IDF.
        embed_metadata: Keys of metadata whose values are to be found by: "key: value" goes before the text embedded.
        allow_other_encoder: Open a collection that was made with another encoder.
        drop_old: Delete a collection of that name, with its documents.
        auto_id: Whether Milvus numbers the documents of a new collection; ids are the numbers' digits then.
        primary_field, text_field, vector_field, bm25_field: Names of fields; vector_field is a list for two sides.
        metadata_field: The JSON field that holds the metadata. None keeps it in dynamic keys, as langchain-milvus does.
        enable_dynamic_field: Whether keys of the metadata can be named as they are in an expression: `year > 2000`;
            else `metadata["year"] > 2000`. A dict as filter never needs it.
        metadata_fields: {key: type}: keys of the metadata that get a column with a type, and an index if asked for:
            {"year": int, "tenant": {"dtype": DataType.VARCHAR, "index": True}}. Also called metadata_schema.
        partition_key_field: The key of the metadata that Milvus partitions by; each document needs it.
        index_params, search_params: One for each side; they go before our defaults.
        partition_names: Where to search.
        collection_description, collection_properties, consistency_level, num_partitions, num_shards, replica_number: Of
            a new collection.
        timeout: Seconds for each call of Milvus. None is 30 for one that reads, 120 for one that writes.

    Raises:
        TypeError, ValueError, OSError: As `hybrid_milvus`.
    """

    def __init__(
        self,
        embedding_function: Any,
        collection_name: str = "LangChainCollection",
        collection_description: str = "",
        collection_properties: Mapping[str, Any] | None = None,
        connection_args: Mapping[str, Any] | None = None,
        consistency_level: str = "Session",
        index_params: Any = None,
        search_params: Any = None,
        drop_old: bool | None = False,
        auto_id: bool = False,
        *,
        uri: str | PathLike[str] | None = None,
        token: str | None = None,
        user: str | None = None,
        password: str | None = None,
        db_name: str | None = None,
        host: str | None = None,
        port: int | str | None = None,
        client: MilvusClient | None = None,
        aclient: AsyncMilvusClient | None = None,
        bm25: bool = False,
        embed_metadata: Sequence[str] = (),
        allow_other_encoder: bool = False,
        primary_field: str = "pk",
        text_field: str = "text",
        vector_field: str | Sequence[str] | None = None,
        bm25_field: str = "bm25",
        metadata_field: str | None = "metadata",
        enable_dynamic_field: bool = True,
        metadata_fields: Mapping[str, Any] | None = None,
        metadata_schema: Mapping[str, Any] | None = None,
        partition_key_field: str | None = None,
        num_partitions: int | None = None,
        partition_names: Sequence[str] | None = None,
        replica_number: int = 1,
        num_shards: int | None = None,
        timeout: float | None = None,
        **unknown: Any,
    ) -> None:
        refuse(unknown, HybridMilvus)
        sides = sides_of(embedding_function)
        schema = make_schema(
            list(sides),
            vector_field=vector_field,
            bm25_field=bm25_field if bm25 else None,
            index_params=index_params,
            search_params=search_params,
            metadata_fields=metadata_fields,
            metadata_schema=metadata_schema,
            primary_field=primary_field,
            text_field=text_field,
            metadata_field=metadata_field,
            dynamic=enable_dynamic_field,
            partition_key_field=partition_key_field,
            auto_id=auto_id,
        )
        arguments = connection_arguments(
            uri, host, port, connection_args, token=token, user=user, password=password, db_name=db_name
        )
        create_options = {
            "consistency_level": consistency_level,
            "num_partitions": num_partitions,
            "num_shards": num_shards,
            "properties": collection_properties,
        }
        self.embed_metadata = embed_metadata
        self._embeddings: dict[Side, Any] = {**sides, **({"bm25": None} if bm25 else {})}
        self.collection = Collection(
            collection_name,
            schema,
            Connection(arguments.pop("uri"), arguments, client=client, aclient=aclient),
            fingerprint=getattr(sides.get("sparse"), "fingerprint", None),
            allow_other_encoder=allow_other_encoder,
            drop_old=bool(drop_old),
            timeout=timeout,
            partition_names=partition_names,
            create_options={name: value for name, value in create_options.items() if value is not None},
            description=collection_description,
            replica_number=replica_number,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "HybridMilvus":
        return copy.copy(self)  # the collection, its client and the models are made to be shared

    @property
    def collection_name(self) -> str:
        """Name of the collection."""
        return self.collection.name

    @property
    def client(self) -> MilvusClient:
        """The client."""
        return self.collection.client

    @property
    def aclient(self) -> AsyncMilvusClient | None:
        """The async client of the running event loop."""
        return self.collection.aclient

    @property
    def embeddings(self) -> Embeddings | None:
        """The dense embedding, if there is one."""
        return self._embeddings.get("dense")

    @property
    def sparse_embeddings(self) -> Any:
        """The sparse embedding, if there is one."""
        return self._embeddings.get("sparse")

    # Opening with documents

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Any,
        metadatas: list[dict[str, Any]] | None = None,
        collection_name: str = "LangChainCollection",
        *,
        ids: Sequence[str | None] | None = None,
        **options: Any,
    ) -> "HybridMilvus":
        """Open a store and add texts.

        Args:
            texts: N texts.
            embedding: [dense, sparse], or one of them.
            metadatas: N dicts, or None.
            collection_name: The collection.
            ids: N ids, or None.
            **options: What else `HybridMilvus` takes: uri, db_name, host, port, drop_old, ….
        """
        store = cls(embedding, collection_name, **options)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls, texts: list[str], embedding: Any, metadatas: list[dict[str, Any]] | None = None, *args: Any, **kwargs: Any
    ) -> "HybridMilvus":
        """Open as `from_texts`, in a thread."""
        return await asyncio.to_thread(cls.from_texts, texts, embedding, metadatas, *args, **kwargs)

    @classmethod
    def from_documents(cls, documents: list[Document], embedding: Any, **kwargs: Any) -> "HybridMilvus":
        """Open a store and add documents, with their own ids unless `ids` are given. Keywords as `from_texts`."""
        kwargs.setdefault("ids", [document.id for document in documents])
        texts = [document.page_content for document in documents]
        return cls.from_texts(texts, embedding, [document.metadata for document in documents], **kwargs)

    @classmethod
    async def afrom_documents(cls, documents: list[Document], embedding: Any, **kwargs: Any) -> "HybridMilvus":
        """Open as `from_documents`, in a thread."""
        return await asyncio.to_thread(cls.from_documents, documents, embedding, **kwargs)
