"""A hybrid Milvus collection as LlamaIndex's vector store. Only translates: nodes, filters, queries and options.

The collection itself is `milvus.collection.Collection`. Knows no encoder: any sparse embedding function will do.
"""

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from pymilvus import AsyncMilvusClient, MilvusClient

from splade_integrations.llama_index.existing import OPTION_NAMES, matching
from splade_integrations.llama_index.filters import check_complete, from_metadata_filters
from splade_integrations.llama_index.nodes import (
    CONTENT_COLUMN,
    SOURCE_KEYS,
    node_of,
    row_of,
    source_of,
)
from splade_integrations.llama_index.options import (
    check_connection,
    index_of,
    metric_of,
    ranker_of,
    search_params_of,
    typed_columns,
)
from splade_integrations.llama_index.queries import Plan, plan_of
from splade_integrations.llama_index.sparse_function import BaseSparseEmbeddingFunction
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.defaults import ROWS_PER_WRITE, document_terms
from splade_integrations.milvus.filters import Compare, Filter
from splade_integrations.milvus.rows import Hit, Row
from splade_integrations.milvus.schema import Column, Schema

__all__ = ["HybridMilvusVectorStore"]


class HybridMilvusVectorStore(BasePydanticVectorStore):
    """A Milvus collection with a dense and a sparse side, or one of them, or BM25 beside.

    **Modes** of a query (`index.as_retriever(vector_store_query_mode=…)`):

    - `default` searches the **dense side alone**, as in LlamaIndex's other stores; in a store with
      `enable_dense=False` the sparse side. For hybrid retrieval say `hybrid`.
    - `hybrid` fuses all sides by reciprocal rank (k = 60) from max(100, 10 k) candidates a side. A query's
      `sparse_top_k` sets the candidates of each side, `hybrid_top_k` the results. `semantic_hybrid` fuses the dense and
      the sparse side, which is the same in a store without `bm25`.
    - `sparse` searches the sparse side alone, with every term; `text_search` does, too, unless there is `bm25`.
    - `mmr` makes the hits of `hybrid` diverse by their dense vectors; its scores are those of MMR.
    - Others (`svm`, …) are refused.

    **Scores.** `default` gives the metric's value, `sparse` the inner product. Sums of reciprocal ranks are at most
    2/61 = .033, so a `SimilarityPostprocessor(similarity_cutoff=0.5)` behind mode `hybrid` drops every node. Limit the
    nodes by `similarity_top_k` there.

    **Adding** replaces nodes whose ids are there. It encodes some hundreds of nodes at a time, by the text that the
    dense side embeds, which includes metadata. An error part-way leaves earlier chunks stored. Nodes come back whole;
    metadata that JSON cannot hold is refused.

    **Async** methods leave the event loop free, work in any number of loops, and in a store made outside them.

    Args:
        uri: A milvus-lite file, `./name.db`, or a server, `http://host:19530`.
        token: Of a server: `user:password`, or an API key.
        collection_name: The collection. It is made if there is none.
        sparse_embedding_function: A `SpladeSparseEmbedding`, for an existing collection as well.
        dim: Length of the dense vectors. If it is not given, a new collection is made by the first `add`.
        enable_dense, enable_sparse: Which sides there are; at least one side.
        bm25: Whether Milvus also keeps a BM25 index of the texts, a side of its own. milvus-lite's neither stems nor
            keeps one IDF.
        similarity_metric: "COSINE", "IP" or "L2" (whose scores are distances: the smallest comes first).
        text_key, embedding_field, sparse_embedding_field, doc_id_field, primary_field, metadata_field: Names of the
            collection's fields. In an existing collection the only field of its kind is taken, whatever its name.
        metadata_fields: Keys of the metadata that get a typed column as well, for quick filters:
            {"year": int, "tenant": str}.
        scalar_field_names, scalar_field_types: The same in LlamaIndex's form.
        partition_key_field: The key of the metadata by which Milvus partitions, such as the tenant's.
        index_config, sparse_index_config: Indexes, such as {"index_type": "HNSW", "M": 8}. The default is exact on
            milvus-lite and the server's choice on a server.
        search_config: Search parameters of the dense side, such as {"ef": 64}.
        hybrid_ranker, hybrid_ranker_params: "RRFRanker" and {"k": 60}, or "WeightedRanker" and
            {"weights": [dense, sparse]}, which a query's `alpha` replaces; with `bm25` a third one follows.
        overwrite: Whether to delete the collection first.
        allow_other_encoder: Open a collection that was made with another encoder.
        consistency_level: "Session" sees what this client wrote, "Strong" what anyone did. milvus-lite is strong.
        collection_properties, num_shards, num_partitions, replica_number: Of a new collection.
        batch_size: Rows of one write.
        timeout: Seconds for a call of Milvus.
        upsert_mode: True; adding always replaces.
        use_async_client: Whether async methods use clients of their own, which are made when first wanted. If not,
            they run the others in threads.
        client, aclient: Clients to use instead of ones of our own; `uri` and `token` are of no account then.
        **connection: What `MilvusClient` takes: `user`, `password`, `db_name`, `secure`, `server_pem_path`, …

    Raises:
        TypeError: `sparse_embedding_function` is missing or is none, or an option is unknown.
        ValueError: The collection exists and lacks a field or was made with another encoder, or an option's value is
            not supported.
        OSError: The milvus-lite file cannot be opened.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> from splade_integrations.llama_index import HybridMilvusVectorStore, SpladeSparseEmbedding
        >>> sparse = SpladeSparseEmbedding(model_name=model_folder)
        >>> uri = tempfile.mkdtemp() + "/example.db"
        >>> store = HybridMilvusVectorStore(uri, dim=8, sparse_embedding_function=sparse)
        >>> index = VectorStoreIndex(
        ...     [TextNode(id_="dog", text="Dogs bark."), TextNode(id_="cat", text="Cats purr.")],
        ...     storage_context=StorageContext.from_defaults(vector_store=store),
        ...     embed_model=MockEmbedding(8),
        ... )
        >>> retriever = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=1)
        >>> [hit.node.node_id for hit in retriever.retrieve("a barking dog")]
        ['dog']
    """

    stores_text: bool = True
    stores_node: bool = True
    is_embedding_query: bool = True

    uri: str
    collection_name: str
    sparse_embedding_function: BaseSparseEmbeddingFunction | None = Field(exclude=True)
    enable_dense: bool
    enable_sparse: bool
    similarity_metric: str
    doc_id_field: str
    hybrid_ranker: str
    hybrid_ranker_params: dict[str, Any]
    batch_size: int
    use_async_client: bool

    _collection: Collection = PrivateAttr()

    def __init__(
        self,
        uri: str | PathLike[str] = "./milvus_llamaindex.db",
        token: str = "",
        collection_name: str = "llamacollection",
        *,
        sparse_embedding_function: BaseSparseEmbeddingFunction | None = None,
        dim: int | None = None,
        enable_dense: bool = True,
        enable_sparse: bool = True,
        bm25: bool = False,
        similarity_metric: str = "COSINE",
        text_key: str = "text",
        embedding_field: str = "embedding",
        sparse_embedding_field: str = "sparse_embedding",
        bm25_field: str = "bm25",
        doc_id_field: str = "doc_id",
        primary_field: str = "id",
        metadata_field: str = "metadata",
        metadata_fields: Mapping[str, Any] | None = None,
        scalar_field_names: Sequence[str] | None = None,
        scalar_field_types: Sequence[Any] | None = None,
        partition_key_field: str | None = None,
        index_config: Mapping[str, Any] | None = None,
        sparse_index_config: Mapping[str, Any] | None = None,
        search_config: Mapping[str, Any] | None = None,
        hybrid_ranker: str = "RRFRanker",
        hybrid_ranker_params: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        allow_other_encoder: bool = False,
        consistency_level: str = "Session",
        collection_properties: Mapping[str, Any] | None = None,
        num_shards: int | None = None,
        num_partitions: int | None = None,
        replica_number: int = 1,
        batch_size: int = ROWS_PER_WRITE,
        timeout: float | None = None,
        upsert_mode: bool = True,
        use_async_client: bool = True,
        client: MilvusClient | None = None,
        aclient: AsyncMilvusClient | None = None,
        **connection: Any,
    ) -> None:
        check_connection(connection, _OPTIONS)
        _check_sides(enable_dense, enable_sparse, bm25, sparse_embedding_function)
        if not upsert_mode:
            raise ValueError("upsert_mode must be True, as adding always replaces, got False. Leave it out.")
        metric = metric_of(similarity_metric)
        params = dict(hybrid_ranker_params or {})
        fields: dict[str, Any] = {
            "is_embedding_query": enable_dense,
            "uri": fspath(uri),
            "collection_name": collection_name,
            "sparse_embedding_function": sparse_embedding_function,
            "enable_dense": enable_dense,
            "enable_sparse": enable_sparse,
            "similarity_metric": metric,
            "doc_id_field": doc_id_field,
            "hybrid_ranker": hybrid_ranker,
            "hybrid_ranker_params": params,
            "batch_size": batch_size,
            "use_async_client": use_async_client,
        }
        super().__init__(**fields)
        schema = Schema(
            primary_field=primary_field,
            text_field=text_key,
            dense_field=embedding_field if enable_dense else None,
            sparse_field=sparse_embedding_field if enable_sparse else None,
            bm25_field=bm25_field if bm25 else None,
            metadata_field=metadata_field,
            metadata_fields=typed_columns(metadata_fields, scalar_field_names, scalar_field_types),
            dynamic=True,
            columns={doc_id_field: Column(index=True), CONTENT_COLUMN: Column()},
            partition_key_field=partition_key_field,
            metric_type=metric,
            index_params={
                "dense": index_of("index_config", index_config, metric),
                "sparse": index_of("sparse_index_config", sparse_index_config, "IP"),
            },
            search_params={"dense": search_params_of("search_config", search_config, metric)},
            option_names=OPTION_NAMES,
        )
        ranker_of(hybrid_ranker, params, tuple(schema.sides))
        place = Connection(fspath(uri), {"token": token, **connection}, client=client, aclient=aclient)
        if not overwrite:
            schema = matching(schema, place.client, collection_name, dim)
        creation = {
            "consistency_level": consistency_level,
            "properties": dict(collection_properties or {}) or None,
            "num_shards": num_shards,
            "num_partitions": num_partitions,
        }
        self._collection = Collection(
            collection_name,
            schema,
            place,
            fingerprint=getattr(sparse_embedding_function, "fingerprint", None),
            allow_other_encoder=allow_other_encoder,
            drop_old=overwrite,
            timeout=timeout,
            create_options={name: value for name, value in creation.items() if value is not None},
            replica_number=replica_number,
        )
        if self._collection.fields is None and (dim is not None or not enable_dense):
            self._collection.create(dim)

    @classmethod
    def class_name(cls) -> str:
        """Return the name in serialised form."""
        return "HybridMilvusVectorStore"

    @property
    def client(self) -> MilvusClient:
        """The client."""
        return self._collection.client

    @property
    def aclient(self) -> AsyncMilvusClient:
        """The async client of the running event loop."""
        return self._collection.aclient

    def __deepcopy__(self, memo: Any = None) -> "HybridMilvusVectorStore":
        return self.model_copy()  # clients and locks are made to be shared

    # Adding

    def add(  # type: ignore[override]  # here and below: unknown keywords are refused
        self,
        nodes: Sequence[BaseNode],
        *,
        milvus_partition_name: str | None = None,
        force_flush: bool = False,
        timeout: float | None = None,
    ) -> list[str]:
        """Encode nodes and write them, some hundreds at a time; replace those whose ids are there.

        Args:
            nodes: N nodes with their dense embeddings.
            milvus_partition_name: The partition to write to.
            force_flush: Whether to flush on a server as well; milvus-lite always does.
            timeout: Seconds for each message.
        Returns:
            N ids.
        Raises:
            ValueError, TypeError: A node has no embedding, or holds what Milvus cannot store. The node and the key are
                named, and nothing has been written.
        """
        nodes = list(nodes)
        self._check_doc_id_field()
        how = {"needs_embedding": self.enable_dense, "in_json": self._in_json}
        rows = [row_of(node, self.doc_id_field, name=f"nodes[{place}]", **how) for place, node in enumerate(nodes)]
        self._collection.check(rows)
        ids = self._collection.ingest(
            list(zip(nodes, rows, strict=True)),
            self._encoded,
            partition_name=milvus_partition_name,
            batch_size=self.batch_size,
            timeout=timeout,
        )
        if force_flush and nodes:
            self._collection.flush()
        return ids

    async def async_add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Add as `add` does, in a thread."""
        return await asyncio.to_thread(self.add, nodes, **add_kwargs)

    def _encoded(self, chunk: Sequence[tuple[BaseNode, Row]]) -> list[Row]:
        if self.sparse_embedding_function is None:
            return [row for _, row in chunk]
        texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node, _ in chunk]
        terms = self.sparse_embedding_function.encode_documents(texts)
        return [
            replace(row, sparse=document_terms(found, text))
            for (_, row), found, text in zip(chunk, terms, texts, strict=True)
        ]

    @property
    def _in_json(self) -> bool:
        fields = self._collection.fields
        return fields is None or fields.metadata is not None

    @property
    def _hidden(self) -> tuple[str, ...]:
        """Keys of the metadata that LlamaIndex's own stores write the source document's id to."""
        return () if self._in_json else SOURCE_KEYS

    def _check_doc_id_field(self) -> None:
        fields = self._collection.fields
        if fields is not None and self.doc_id_field not in fields.columns:
            raise ValueError(
                f"collection {self.collection_name!r} must have a field for the source document's id, got none of the "
                f"name {self.doc_id_field!r}. Name it by doc_id_field. If another package made the collection, it can "
                "be searched and read here, and nodes can be deleted by id or filters; add through that package, or to "
                "another collection_name."
            )

    # Deleting and reading

    def delete(  # type: ignore[override]
        self, ref_doc_id: str, *, milvus_partition_name: str | None = None
    ) -> None:
        """Delete the nodes of a document.

        Args:
            ref_doc_id: The document's id. Of one that has no nodes is no error.
            milvus_partition_name: The partition to look in.
        """
        if not isinstance(ref_doc_id, str):
            raise TypeError(
                f"ref_doc_id must be a str, got {type(ref_doc_id).__name__} {ref_doc_id!r}. Delete one document a call."
            )
        self._check_doc_id_field()
        of_document = Compare(self.doc_id_field, "eq", ref_doc_id, column=True)
        found = self._collection.iterate(of_document, partition_names=_names(milvus_partition_name))
        self._collection.delete(ids=[hit.id for hit in found if source_of(hit, self.doc_id_field) == ref_doc_id])

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete as `delete` does, in a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(  # type: ignore[override]
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        *,
        milvus_partition_name: str | None = None,
    ) -> None:
        """Delete nodes: those of these ids, those that match the filters, or of these ids those that match.

        Args:
            node_ids: Their ids; [] deletes nothing, and ids that are not there are no error.
            filters: Which nodes. Each is read and judged once more here before it is deleted by its id.
            milvus_partition_name: The partition to look in.
        Raises:
            ValueError: Neither is given, or a group of filters is empty. To delete all nodes call `clear`.
        """
        if filters is not None:
            check_complete(filters)
        _check_ids(node_ids)
        self._collection.delete(
            ids=node_ids,
            filter=None if filters is None else from_metadata_filters(filters, self._hidden),
            partition_names=_names(milvus_partition_name),
        )

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete as `delete_nodes` does, in a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def get_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        *,
        milvus_partition_names: list[str] | None = None,
    ) -> list[BaseNode]:
        """Return nodes with their embeddings: in the order of the ids, or by rising id.

        Args:
            node_ids: Their ids; those that are not there are left out.
            filters: Which nodes. With ids: of these those that match.
            milvus_partition_names: The partitions to look in.
        Raises:
            ValueError: Neither is given.
        """
        condition = _condition(node_ids, filters, self._hidden)
        how: dict[str, Any] = {"with_dense": self.enable_dense, "partition_names": milvus_partition_names}
        if node_ids is None:
            return [node_of(hit) for hit in self._collection.iterate(condition, **how)]
        return [node_of(hit) for hit in self._collection.get(node_ids, **how) if _meets(hit, condition)]

    async def aget_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        *,
        milvus_partition_names: list[str] | None = None,
    ) -> list[BaseNode]:
        """Read as `get_nodes` does."""
        if not self.use_async_client:
            return await asyncio.to_thread(
                self.get_nodes, node_ids, filters, milvus_partition_names=milvus_partition_names
            )
        condition = _condition(node_ids, filters, self._hidden)
        how: dict[str, Any] = {"with_dense": self.enable_dense, "partition_names": milvus_partition_names}
        if node_ids is None:
            return [node_of(hit) async for hit in self._collection.aiterate(condition, **how)]
        return [node_of(hit) for hit in await self._collection.aget(node_ids, **how) if _meets(hit, condition)]

    def clear(self) -> None:
        """Delete all nodes. The collection stays, with its fields, alias and properties."""
        self._collection.clear()

    async def aclear(self) -> None:
        """Delete all nodes, in a thread."""
        await self._collection.aclear()

    # Searching

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the best nodes, best first. What each mode does stands at the class.

        Args:
            query: The question, its embedding, mode, filters, and how many nodes. A blank question is answered by the
                sides that can answer. `doc_ids` restricts the search to nodes of these documents ([] finds nothing),
                `node_ids` to these nodes ([] is no restriction, as LlamaIndex's retrievers say it for that).
            **kwargs: A retriever's `vector_store_kwargs`:
                `string_expr`, a filter in Milvus's language, instead of filters;
                `milvus_partition_names`;
                `group_by`, a key of the metadata, or "doc_id" for the best node of each document;
                `milvus_search_config`, parameters of the dense side, such as {"ef": 64};
                `mmr_threshold` (1: relevance alone, 0: novelty alone, default 0.5), `mmr_prefetch_k` or
                `mmr_prefetch_factor` (default 4 times as many candidates as results);
                `timeout` in seconds.
        Raises:
            TypeError: A keyword is unknown.
            ValueError: The mode is not supported, or the query lacks what its mode needs, or has what it cannot use.
            TimeoutError: The server does not answer.
        """
        plan, ranker = self._plan(query, kwargs)
        terms = None
        if plan.needs_terms and self.sparse_embedding_function is not None:
            [terms] = self.sparse_embedding_function.encode_queries([plan.text])
        return plan.result(self._collection.search(plan.queries(terms), ranker=ranker, **plan.search()))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Search as `query` does."""
        if not self.use_async_client:
            return await asyncio.to_thread(self.query, query, **kwargs)
        plan, ranker = self._plan(query, kwargs)
        terms = None
        if plan.needs_terms and self.sparse_embedding_function is not None:
            [terms] = await self.sparse_embedding_function.async_encode_queries([plan.text])
        return plan.result(await self._collection.asearch(plan.queries(terms), ranker=ranker, **plan.search()))

    def _plan(self, query: VectorStoreQuery, keywords: dict[str, Any]) -> tuple[Plan, Any]:
        schema, fields = self._collection.schema, self._collection.fields
        plan = plan_of(
            query,
            keywords,
            sides=tuple(schema.sides),
            primary_field=schema.primary_field if fields is None else fields.primary,
            doc_id_field=self.doc_id_field,
            metric=self.similarity_metric,
            hidden=self._hidden,
        )
        if query.doc_ids is not None:
            self._check_doc_id_field()
        if len(plan.sides) == 1:
            return plan, None
        return plan, ranker_of(self.hybrid_ranker, self.hybrid_ranker_params, plan.sides, query.alpha)


def _condition(node_ids: Sequence[str] | None, filters: MetadataFilters | None, hidden: Sequence[str]) -> Filter | None:
    if node_ids is None and filters is None:
        raise ValueError(
            "node_ids or filters must be given, got neither. To read all nodes pass MetadataFilters(filters=[]); to "
            "delete them call clear()."
        )
    _check_ids(node_ids)
    return None if filters is None else from_metadata_filters(filters, hidden)


def _check_ids(node_ids: Any) -> None:
    if isinstance(node_ids, str):
        raise TypeError(f"node_ids must be a list of str, got the str {node_ids!r}. Put it into a list.")


def _meets(hit: Hit, condition: Filter | None) -> bool:
    return condition is None or condition.matches(hit.metadata, hit.columns)


def _names(partition_name: str | None) -> list[str] | None:
    return None if partition_name is None else [partition_name]


def _check_sides(enable_dense: bool, enable_sparse: bool, bm25: bool, function: Any) -> None:
    """Raise if there is no side, or what encodes for the sparse one is missing or of no use."""
    if not (enable_dense or enable_sparse or bm25):
        raise ValueError("enable_dense, enable_sparse or bm25 must be True, got False for all. Leave one out.")
    if enable_sparse and not isinstance(function, BaseSparseEmbeddingFunction):
        raise TypeError(
            "sparse_embedding_function must be a SpladeSparseEmbedding, or another BaseSparseEmbeddingFunction, got "
            f"{type(function).__name__}. Give the one that the collection is made with: "
            "SpladeSparseEmbedding(encoder=…) or SpladeSparseEmbedding(model_name='…')."
        )
    if not enable_sparse and function is not None:
        raise TypeError(
            f"sparse_embedding_function must be None with enable_sparse=False, got {type(function).__name__}. Leave "
            "one of the two out."
        )


_OPTIONS = [
    name
    for name, parameter in inspect.signature(HybridMilvusVectorStore.__init__).parameters.items()
    if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
]
