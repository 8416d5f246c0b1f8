"""`HybridMilvusVectorStore`, a LlamaIndex vector store over a Milvus collection: its options and constructor.

The store works with any sparse embedding function.
"""

import inspect
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any

from pymilvus import AsyncMilvusClient, MilvusClient

from splade_integrations.fusion import Fusion
from splade_integrations.llama_index.existing import OPTION_NAMES, matching
from splade_integrations.llama_index.options import (
    check_connection,
    index_of,
    metric_of,
    ranker_of,
    search_params_of,
    typed_columns,
)
from splade_integrations.llama_index.searching import Searching
from splade_integrations.llama_index.sparse_function import BaseSparseEmbeddingFunction
from splade_integrations.llama_index.writing import Writing
from splade_integrations.milvus.bm25 import analyzer_of
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.defaults import CONTENT_COLUMN, DOCUMENT_COLUMN, ROWS_PER_WRITE
from splade_integrations.milvus.schema import Column, Schema
from splade_integrations.models.fingerprint import fingerprint_of

__all__ = ["HybridMilvusVectorStore"]


class HybridMilvusVectorStore(Writing, Searching):
    """A LlamaIndex vector store over a Milvus collection with one to three sides: dense, sparse (SPLADE) and BM25.

    A side is one kind of vector. A search of several sides fuses their hits into one ranking.

    **Modes** of a query (`index.as_retriever(vector_store_query_mode=…)`):

    - `default` searches **only the dense side**, as in LlamaIndex's other stores. In a store with
      `enable_dense=False`, it searches the sparse side or, if there is none, the BM25 side. For hybrid retrieval, use
      `hybrid`.
    - `hybrid` searches the sides that `store.fusion` names, and fuses their hits. `store.fusion` is the option
      `fusion`, if you give it. If not, it is the fusion that the collection stores. If the collection stores none, it
      is reciprocal rank fusion of all sides, with the constant 60. By default, a search for k nodes fetches
      max(100, 10 * k) candidates from each side. A query's `sparse_top_k` replaces this number of candidates. A query's
      `hybrid_top_k` sets the number of results.
    - `semantic_hybrid` fuses the dense and the sparse side. In a store without `bm25`, it is the same as `hybrid`.
    - `sparse` searches only the sparse side. It uses all terms of the query. LlamaIndex's own Milvus store drops the
      terms with small weights.
    - `text_search` searches the BM25 side or, in a store without `bm25`, the sparse side.
    - `mmr` (maximal marginal relevance) selects diverse nodes among the hits of mode `hybrid`. It compares the nodes by
      their dense vectors. The scores are MMR's scores.
    - Other modes (`svm`, …) are refused.

    **Scores.** In mode `default`, a score is a value of `similarity_metric`. In mode `sparse`, it is an inner product.
    In mode `hybrid`, it is a sum of reciprocal ranks. With two sides, such a sum is at most 2/61 = .033. So a
    `SimilarityPostprocessor(similarity_cutoff=0.5)` would drop every node. Use `similarity_top_k` to limit the nodes.

    **Adding** replaces stored nodes that have the same ids. The store encodes and writes a few hundred nodes at a time.
    If an error occurs, the nodes that were already written stay stored. The dense and the sparse side embed the same
    text, which includes metadata. BM25 uses the text without metadata. Nodes are read back whole, and metadata that
    JSON cannot hold is refused.

    **Async** methods leave the event loop free. They work in any number of event loops, even if the store was made
    outside of these loops.

    Args:
        uri: A milvus-lite file, `./name.db`, or a server, `http://host:19530`.
        token: A server's token: `user:password`, or an API key.
        collection_name: The collection's name. A missing collection is created.
        sparse_embedding_function: A `SpladeSparseEmbedding`. A store with a sparse side needs it, even if the
            collection already exists.
        dim: The dimension of the dense vectors. If it is not given, a missing collection with a dense side is created
            only by the first `add`, which takes the dimension from the nodes' embeddings.
        enable_dense, enable_sparse: Whether the store has a dense side and a sparse side. A store needs at least one
            side.
        bm25: Whether Milvus also keeps a BM25 index of the texts. True means English: stop words are dropped and words
            are stemmed. For another language, give its name, such as "german". For another analyzer, give its
            parameters.
        fusion: A `Fusion`, or its dict, that states the sides of mode `hybrid` and how their hits are fused. None means
            the fusion that the collection stores or, if it stores none, reciprocal rank fusion of all sides.
        similarity_metric: "COSINE", "IP" or "L2". With "L2", a score is a distance, and nodes with small distances come
            first. None means the metric of an existing collection, and COSINE for a new collection.
        text_key, embedding_field, sparse_embedding_field, bm25_field, doc_id_field, primary_field, metadata_field: The
            names of the collection's fields. In an existing collection, the text field, the dense field and the sparse
            field are also found by their types, if only one field has the right type.
        metadata_fields: {key: type} for each metadata key that also gets a typed column, a field for fast filters:
            {"year": int, "tenant": str}.
        scalar_field_names, scalar_field_types: The same as `metadata_fields`, in LlamaIndex's form.
        partition_key_field: The metadata key by which Milvus partitions the nodes, such as the tenant.
        index_config, sparse_index_config: The settings of the dense and of the sparse index, such as
            {"index_type": "HNSW", "M": 8}. By default, the dense index is exact on milvus-lite. A server chooses the
            kind of its dense index by itself.
        search_config: Search parameters of the dense side, such as {"ef": 64}.
        hybrid_ranker, hybrid_ranker_params: "RRFRanker" and {"k": 60}, or "WeightedRanker" and
            {"weights": [dense, sparse]}. With `bm25`, there is a third weight. If a query has an `alpha`, the weights
            [alpha, 1 - alpha] are used instead.
        overwrite: Whether to delete an existing collection first.
        allow_other_encoder: Whether to open a collection that was made with another encoder.
        consistency_level: With "Session", a search sees everything that this client wrote. With "Strong", and always on
            milvus-lite, a search sees everything that any client wrote.
        collection_properties, num_shards, num_partitions, replica_number: The settings of a new collection.
        batch_size: The number of rows in one write.
        timeout: The time limit for each call of Milvus, in seconds.
        upsert_mode: Must be True, because adding always replaces stored nodes that have the same ids.
        use_async_client: Whether the async methods for reading use an async client (made when it is first needed). If
            not, they run the sync methods in threads. The async methods for writing always use threads.
        client, aclient: A `MilvusClient` and an `AsyncMilvusClient` to use. Without them, the store opens new clients.
            If `client` is given, `uri` and `token` have no effect.
        **connection: Further arguments of `MilvusClient`: `user`, `password`, `db_name`, `secure`, `server_pem_path`, …

    Raises:
        TypeError: `sparse_embedding_function` is missing or has the wrong type, or an option is unknown.
        ValueError: An existing collection lacks a field that the store needs or was made with another encoder, or the
            value of an option is not supported.
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
        bm25: bool | str | Mapping[str, Any] = False,
        fusion: Fusion | Mapping[str, Any] | None = None,
        similarity_metric: str | None = None,
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
        _check_sides(enable_dense, enable_sparse, bm25 is not False, sparse_embedding_function)
        if not upsert_mode:
            raise ValueError(
                "upsert_mode must be True, got False. Leave it out: adding always replaces nodes with the same ids."
            )
        metric = metric_of(similarity_metric or "COSINE")
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
            bm25_field=None if bm25 is False else bm25_field,
            bm25_analyzer=analyzer_of(bm25),
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
        if ranker_of(hybrid_ranker, params, tuple(schema.sides)) is not None and fusion is not None:
            raise TypeError("fusion must be given without hybrid_ranker, got both. Drop one of them.")
        place = Connection(fspath(uri), {"token": token, **connection}, client=client, aclient=aclient)
        if not overwrite:
            schema = matching(schema, place, collection_name, dim)
            if DOCUMENT_COLUMN in schema.columns:
                self.doc_id_field = DOCUMENT_COLUMN
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
            fingerprint=fingerprint_of(sparse_embedding_function),
            allow_other_encoder=allow_other_encoder,
            drop_old=overwrite,
            timeout=timeout,
            create_options={name: value for name, value in creation.items() if value is not None},
            replica_number=replica_number,
            fusion=Fusion.of(fusion),
        )
        if self._collection.fields is None and (dim is not None or not enable_dense):
            self._collection.create(dim)
        self._is_there = self._collection.fields is not None
        if self._is_there and enable_dense:
            self.similarity_metric = self._collection.dense_metric()
            if similarity_metric is not None and metric != self.similarity_metric:
                raise ValueError(
                    f"similarity_metric must be {self.similarity_metric!r}, the metric of collection "
                    f"{collection_name!r}, got {similarity_metric!r}. Leave it out, or use another collection_name."
                )

    @classmethod
    def class_name(cls) -> str:
        """Return the name that this class has in serialised objects."""
        return "HybridMilvusVectorStore"


def _check_sides(enable_dense: bool, enable_sparse: bool, bm25: bool, function: Any) -> None:
    """Raise an error if there is no side, or if the sparse embedding function is missing, wrong or not needed."""
    if not (enable_dense or enable_sparse or bm25):
        raise ValueError(
            "enable_dense, enable_sparse or bm25 must be True, got False for all. Set one of them to True."
        )
    if enable_sparse and not isinstance(function, BaseSparseEmbeddingFunction):
        raise TypeError(
            "sparse_embedding_function must be a SpladeSparseEmbedding, or another BaseSparseEmbeddingFunction, got "
            f"{type(function).__name__}. Give SpladeSparseEmbedding(encoder=…) or "
            "SpladeSparseEmbedding(model_name='…'), or open a store without a sparse side: enable_sparse=False."
        )
    if not enable_sparse and function is not None:
        raise TypeError(
            f"sparse_embedding_function must be None with enable_sparse=False, got {type(function).__name__}. Leave "
            "one of the two options out."
        )


_OPTIONS = [
    name
    for name, parameter in inspect.signature(HybridMilvusVectorStore.__init__).parameters.items()
    if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
]
