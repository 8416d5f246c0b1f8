"""`HybridMilvus`, a LangChain vector store over a Milvus collection: its options and constructors.

The store works with any LangChain `Embeddings`, and with any `BaseSparseEmbedding`.
"""

import asyncio
import copy
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from pymilvus import AsyncMilvusClient, MilvusClient

from splade_integrations.fusion import Fusion
from splade_integrations.langchain.options import connection_arguments, make_schema, refuse, sides_of
from splade_integrations.langchain.searching import Searching
from splade_integrations.langchain.writing import Writing
from splade_integrations.milvus.bm25 import analyzer_of
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.schema import Side

__all__ = ["HybridMilvus", "hybrid_milvus"]


def hybrid_milvus(
    dense: Embeddings | None,
    sparse: Any = None,
    *,
    bm25: bool | str | Mapping[str, Any] = False,
    uri: str | PathLike[str] | None = None,
    token: str | None = None,
    collection_name: str = "LangChainCollection",
    connection_args: Mapping[str, Any] | None = None,
    **options: Any,
) -> "HybridMilvus":
    """Open a store for hybrid retrieval over a new or an existing Milvus collection.

    Args:
        dense: A LangChain `Embeddings`, or None for a store without dense vectors.
        sparse: A `SpladeSparseEmbedding`, or None for a store without SPLADE vectors.
        bm25: Whether Milvus also keeps a BM25 index of the texts. A hybrid search then uses this index as well. True
            means English. For another language, give its name, such as "german".
        uri: A milvus-lite file, `./name.db`, or a server, `http://host:19530`.
        token: A server's token: `user:password`, or an API key.
        collection_name: The collection's name. If there is no such collection, adding the first documents creates it.
        connection_args: Further arguments of `MilvusClient`, such as `db_name`. It may also hold `uri` and `token`.
        **options: Further options of `HybridMilvus`, such as `drop_old`, `metadata_fields` or `partition_key_field`.
    Returns:
        The store. The docstring of `HybridMilvus` describes its searches.
    Raises:
        TypeError: `dense` or `sparse` has the wrong type, the two are in the wrong order, or an option is unknown.
        ValueError: An existing collection lacks a field that the store needs, or was made with another encoder.
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
    """A LangChain vector store over a Milvus collection with dense, SPLADE or BM25 vectors, or with several of them.

    - A side is one kind of vector: dense, sparse (SPLADE) or, with `bm25=True`, BM25. By default, a search for k
      documents fetches max(100, 10 * k) candidates from each side, and fuses the candidates by `store.fusion`.
      `store.fusion` is the option `fusion`, if you give it. If not, it is the fusion that the collection stores. If the
      collection stores none, it is reciprocal rank fusion of all sides, with the constant 60. The keywords `fetch_k`,
      `fusion`, `reranker` and `ranker_type` of a search override these defaults.
    - A search has further keywords. `filter`, also called `expr`, is a dict in LangChain's usual form or a Milvus
      expression, and applies to every side. `mode="dense"`, `"sparse"` or `"bm25"` searches only that side. If `mode`
      is a list of sides, only the hits of these sides are fused. `group_by="source"` returns only the best chunk of
      each source. An unknown keyword raises a TypeError.
    - A search returns documents with their ids, and with exactly the metadata that was added. Metadata that JSON cannot
      hold is refused.
    - Added documents get their ids from `ids=`, or else from `Document.id`. They replace stored documents that have the
      same ids. A document without an id gets a new id. If an error occurs while documents are added, the documents that
      were already written stay stored.
    - The dense and the sparse side embed the same text: the metadata that `embed_metadata` names, and then
      `page_content`. BM25 uses only `page_content`. A text without words is stored, but a sparse search never finds it.
      Only the dense side returns documents for an empty query.
    - Async methods work in any number of event loops. The async methods that add documents run in a thread, and call
      the sync methods of the embeddings.
    - A collection stores which encoder filled it, and refuses other encoders. The store can also open a collection that
      `langchain_milvus.Milvus` made. Such a collection keeps its fields.
    - If a server does not answer within `timeout`, a TimeoutError is raised. If another client has released the
      collection from memory, the store loads the collection again.
    - The default `consistency_level` is "Session": a search sees everything that this client wrote. With "Strong", and
      always on milvus-lite, a search sees everything that any client wrote.
    - On milvus-lite, the dense index is exact, and the store flushes the collection after it adds documents. A server
      chooses by itself which dense index it makes, and when it flushes.

    Args:
        embedding_function: A list of a dense embedding and a sparse embedding, in this order, or a single embedding.
        collection_name: The collection's name, or an alias of an existing collection.
        uri, token, user, password, db_name, host, port: The server or file, and the credentials. The default is
            http://localhost:19530.
        connection_args: Further arguments of `MilvusClient`, such as those for TLS. It may also hold `uri`, `token`, …
        client, aclient: A `MilvusClient` and an `AsyncMilvusClient` to use. Without them, the store opens new clients.
        bm25: Whether Milvus also keeps a BM25 index of the texts. True means English: stop words are dropped and words
            are stemmed. For another language, give its name, such as "german". For another analyzer, give its
            parameters.
        fusion: A `Fusion`, or its dict, that states the sides of a hybrid search and how their hits are fused. None
            means the fusion that the collection stores or, if it stores none, reciprocal rank fusion of all sides.
        embed_metadata: The keys of the metadata to embed with the text. Each key and its value are put in front of the
            text as "key: value".
        allow_other_encoder: Whether to open a collection that was made with another encoder.
        drop_old: Whether to delete an existing collection of this name, with its documents.
        auto_id: Whether Milvus gives each document of a new collection a number as its id. The store returns such an id
            as a str of digits.
        primary_field, text_field, vector_field, bm25_field: The names of the collection's fields. If the store has
            dense and sparse vectors, vector_field is a list of two names.
        metadata_field: The JSON field that holds the metadata. None keeps the metadata in Milvus's dynamic field, as
            langchain-milvus does.
        enable_dynamic_field: Whether a Milvus expression can use a metadata key's bare name, as in `year > 2000`. If
            not, the expression must be `metadata["year"] > 2000`. A filter that is a dict works in both cases.
        metadata_fields: {key: type} for each metadata key that gets a typed column, that is, a separate field. If the
            type is a dict, it can ask for an index:
            {"year": int, "tenant": {"dtype": DataType.VARCHAR, "index": True}}. `metadata_schema` is another name for
            this option.
        partition_key_field: The metadata key by which Milvus partitions the documents. Each document needs a value for
            this key.
        index_params, search_params: Lists with one dict for each side. They override the store's defaults.
        partition_names: The partitions to search.
        collection_description, collection_properties, consistency_level, num_partitions, num_shards, replica_number:
            The settings of a new collection.
        timeout: The time limit for each call of Milvus, in seconds. None means 30 seconds for a call that reads, and
            120 seconds for a call that writes.

    Raises:
        TypeError, ValueError, OSError: See `hybrid_milvus`.
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
        bm25: bool | str | Mapping[str, Any] = False,
        fusion: Fusion | Mapping[str, Any] | None = None,
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
            bm25_field=None if bm25 is False else bm25_field,
            bm25_analyzer=analyzer_of(bm25),
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
        self._embeddings: dict[Side, Any] = {**sides, **({} if bm25 is False else {"bm25": None})}
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
            fusion=Fusion.of(fusion),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "HybridMilvus":
        return copy.copy(self)  # the copy shares the collection, its client and the models

    @property
    def collection_name(self) -> str:
        """The collection's name."""
        return self.collection.name

    @property
    def client(self) -> MilvusClient:
        """The sync client."""
        return self.collection.client

    @property
    def aclient(self) -> AsyncMilvusClient | None:
        """The async client of the running event loop, or None if the caller gave only a sync client."""
        return self.collection.aclient

    @property
    def embeddings(self) -> Embeddings | None:
        """The dense embedding, or None."""
        return self._embeddings.get("dense")

    @property
    def sparse_embeddings(self) -> Any:
        """The sparse embedding, or None."""
        return self._embeddings.get("sparse")

    @property
    def fusion(self) -> Fusion:
        """The sides of a hybrid search, and how their hits are fused.

        A side is one kind of vector: dense, sparse or BM25. If the option `fusion` is given, it is returned. Otherwise,
        the result is the fusion that `splade evaluate --fit --write` stored in the collection. If the collection stores
        no fusion, the result is reciprocal rank fusion of all sides.
        """
        return self.collection.fusion

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
            embedding: A list of a dense embedding and a sparse embedding, in this order, or a single embedding.
            metadatas: N dicts, or None.
            collection_name: The collection's name.
            ids: N ids, or None.
            **options: Further options of `HybridMilvus`: uri, db_name, host, port, drop_old, …
        """
        store = cls(embedding, collection_name, **options)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls, texts: list[str], embedding: Any, metadatas: list[dict[str, Any]] | None = None, *args: Any, **kwargs: Any
    ) -> "HybridMilvus":
        """Open a store like `from_texts`, in a thread."""
        return await asyncio.to_thread(cls.from_texts, texts, embedding, metadatas, *args, **kwargs)

    @classmethod
    def from_documents(cls, documents: list[Document], embedding: Any, **kwargs: Any) -> "HybridMilvus":
        """Open a store and add documents. Ids come from `ids=`, or else from `Document.id`. See `from_texts`."""
        kwargs.setdefault("ids", [document.id for document in documents])
        texts = [document.page_content for document in documents]
        return cls.from_texts(texts, embedding, [document.metadata for document in documents], **kwargs)

    @classmethod
    async def afrom_documents(cls, documents: list[Document], embedding: Any, **kwargs: Any) -> "HybridMilvus":
        """Open a store like `from_documents`, in a thread."""
        return await asyncio.to_thread(cls.from_documents, documents, embedding, **kwargs)
