"""LlamaIndex's `MilvusVectorStore`, set up for hybrid retrieval: its defaults and a few of its methods put right.

Everything else is the framework's own. Knows no encoder: any sparse embedding function of the framework's will do.
"""

import asyncio
import inspect
import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from os import PathLike, fspath
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.utils import iter_batch
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore
from llama_index.vector_stores.milvus.base import similarity_metrics_map
from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction
from pymilvus import AnnSearchRequest, AsyncMilvusClient, RRFRanker, WeightedRanker

from splade_integrations.llama_index.checks import check_collection, check_function, check_nodes
from splade_integrations.milvus_settings import (
    RRF_K,
    AsyncClients,
    candidates,
    dense_index,
    insert_replaces,
    is_lite,
    open_client,
    sparse_index,
)

__all__ = ["HybridMilvusVectorStore"]

# Nodes encoded and written together: enough for full batches, and a sparse row takes some 20 KB as a dict.
_CHUNK = 512

Hits = tuple[list[BaseNode], list[float], list[str]]


class HybridMilvusVectorStore(MilvusVectorStore):
    """`MilvusVectorStore` over a dense and a sparse field, right by default.

    - Mode `hybrid` fuses both sides by reciprocal rank (k = 60) from max(100, 10 k) candidates a side; a query's
      `sparse_top_k` sets the candidates of both sides, `hybrid_top_k` the results, `filters` bind both sides. Ranks
      have no weights, so `alpha` is ignored. `sparse` and `text_search` keep every term; `default` is dense.
    - Adding encodes nodes some hundreds at a time, by the text that the dense side embeds, which includes metadata.
      It replaces nodes whose ids are there. An error part-way leaves earlier chunks stored.
    - Async methods leave the event loop free, work in any number of loops, and in a store made outside them.
    - `clear` leaves an empty collection, ready to be added to.
    - Exact dense index, and a flush after adding, on milvus-lite only.

    Args:
        uri: A milvus-lite file, `./name.db`, or a server, `http://host:19530`.
        token: Of a server: `user:password`, or an API key.
        collection_name: The collection; it is made where there is none.
        sparse_embedding_function: A `SpladeSparseEmbedding`, also where the collection exists.
        similarity_metric: "COSINE", "IP" or "L2". The framework's own default, IP, is the same for unit vectors alone.
        upsert_mode: Whether adding replaces. milvus-lite 3 replaces in any case.
        use_async_client: Whether async methods may be used. Their clients are made when first wanted.
        **milvus_options: Any further keyword of `MilvusVectorStore`, such as `dim` (needed for a new collection),
            `overwrite` or `index_config`, and of `MilvusClient`, such as `db_name`.

    Raises:
        TypeError: `sparse_embedding_function` is missing, or is none.
        ValueError: The collection exists and has other fields, or `enable_sparse` is False.
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

    sparse_embedding_function: BaseSparseEmbeddingFunction  # always there

    _options: dict[str, Any] = PrivateAttr()
    _async_clients: AsyncClients = PrivateAttr()
    _is_lite: bool = PrivateAttr()
    _insert_replaces: bool = PrivateAttr()
    _writing: Any = PrivateAttr(default_factory=threading.Lock)

    def __init__(
        self,
        uri: str | PathLike[str] = "./milvus_llamaindex.db",
        token: str = "",
        collection_name: str = "llamacollection",
        *,
        sparse_embedding_function: BaseSparseEmbeddingFunction | None = None,
        similarity_metric: str = "COSINE",
        upsert_mode: bool = True,
        use_async_client: bool = True,
        **milvus_options: Any,
    ) -> None:
        check_function(sparse_embedding_function)
        uri = fspath(uri)
        options: dict[str, Any] = {
            "enable_sparse": True,
            "index_config": _flat(dense_index(uri, similarity_metrics_map.get(similarity_metric.lower(), "L2"))),
            "sparse_index_config": _flat(sparse_index(uri)),
            **{key: value for key, value in milvus_options.items() if value is not None},
            "uri": uri,
            "token": token,
            "collection_name": collection_name,
            "sparse_embedding_function": sparse_embedding_function,
            "similarity_metric": similarity_metric,
            "upsert_mode": upsert_mode,
        }
        if not options["enable_sparse"]:
            raise ValueError("enable_sparse must be True, got False. For dense vectors alone use MilvusVectorStore.")
        own = inspect.signature(MilvusVectorStore.__init__).parameters
        connection_args = {"uri": uri, "token": token} | {k: v for k, v in options.items() if k not in own}
        client = open_client(**connection_args)
        exists = not options.get("overwrite") and client.has_collection(collection_name)
        if exists:
            settings = {name: options.get(name, parameter.default) for name, parameter in own.items()}
            check_collection(client.describe_collection(collection_name), settings)
        super().__init__(**options, use_async_client=False)
        if exists:  # milvus-lite 3 finds its collections released when a file is opened anew
            self.client.load_collection(collection_name)
        self._options = options | {"use_async_client": use_async_client}
        self._is_lite = is_lite(uri)
        self._insert_replaces = insert_replaces(uri)
        self.use_async_client = use_async_client
        self._async_clients = AsyncClients(**connection_args)
        # The framework asks it only whether it is there, and works by `aclient`.
        self._async_milvusclient = self._async_clients if use_async_client else None

    @property
    def aclient(self) -> AsyncMilvusClient:
        """The async client of the running event loop. The framework's is lost with the first loop."""
        return self._async_clients.current()

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Encode nodes and write them, some hundreds at a time; replace those whose ids are there.

        Args:
            nodes: N nodes with their dense embeddings.
            **add_kwargs: The framework's: `milvus_partition_name`; `force_flush`, which milvus-lite always does.
        Returns:
            N ids.
        Raises:
            ValueError: A node has no embedding, or a text that Milvus cannot store. Nothing has been written then.
        """
        check_nodes(nodes, needs_embedding=self.enable_dense)
        flushes = add_kwargs.pop("force_flush", False) or self._is_lite
        ids: list[str] = []
        for chunk in iter_batch(nodes, _CHUNK):
            texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in chunk]
            encoded = _Encoded(self.sparse_embedding_function.encode_documents(texts))
            # The framework encodes node by node: a copy of the store, with the same client, hands it our rows. Its own
            # async add builds all rows on the event loop, so ours is this one in a thread.
            upsert_mode = self.upsert_mode and not self._insert_replaces
            copy = self.model_copy(update={"sparse_embedding_function": encoded, "upsert_mode": upsert_mode})
            with self._writing if self._is_lite else nullcontext():  # its flush fails beside another write
                ids += MilvusVectorStore.add(copy, chunk, **add_kwargs)
        if ids and flushes:  # milvus-lite indexes unflushed rows anew for each query
            with self._writing:
                self.client.flush(self.collection_name)
        return ids

    async def async_add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Add as `add` does, in a thread."""
        return await asyncio.to_thread(self.add, nodes, **add_kwargs)

    def clear(self) -> None:
        """Delete all nodes. The framework drops the collection, and the next add fails."""
        type(self)(**(self._options | {"overwrite": True}))

    async def aclear(self) -> None:
        """Delete all nodes."""
        await asyncio.to_thread(self.clear)

    # The framework's `query` and `aquery` call the next four, by mode and with the filter that they made.

    def _sparse_search(
        self, query: VectorStoreQuery, string_expr: str, output_fields: list[str], **kwargs: Any
    ) -> Hits:
        rows = self.sparse_embedding_function.encode_queries([_text(query)])
        request = self._sparse_request(rows, query, string_expr) | _options_of(output_fields, kwargs)
        return self._parse_from_milvus_results(self.client.search(**request))

    async def _async_sparse_search(
        self, query: VectorStoreQuery, string_expr: str, output_fields: list[str], **kwargs: Any
    ) -> Hits:
        rows = await self.sparse_embedding_function.async_encode_queries([_text(query)])
        request = self._sparse_request(rows, query, string_expr) | _options_of(output_fields, kwargs)
        return self._parse_from_milvus_results(await self.aclient.search(**request))

    def _hybrid_search(
        self, query: VectorStoreQuery, string_expr: str, output_fields: list[str], **kwargs: Any
    ) -> Hits:
        rows = self.sparse_embedding_function.encode_queries([_text(query)])
        request = self._hybrid_request(rows, query, string_expr) | _options_of(output_fields, kwargs)
        return self._parse_from_milvus_results(self.client.hybrid_search(**request))

    async def _async_hybrid_search(
        self, query: VectorStoreQuery, string_expr: str, output_fields: list[str], **kwargs: Any
    ) -> Hits:
        rows = await self.sparse_embedding_function.async_encode_queries([_text(query)])
        request = self._hybrid_request(rows, query, string_expr) | _options_of(output_fields, kwargs)
        return self._parse_from_milvus_results(await self.aclient.hybrid_search(**request))

    def _sparse_request(self, rows: list[dict[int, float]], query: VectorStoreQuery, expr: str) -> dict[str, Any]:
        return {
            "collection_name": self.collection_name,
            "data": rows,
            "anns_field": self.sparse_embedding_field,
            "limit": query.similarity_top_k,
            "filter": expr,
            # The framework's would drop terms on a server, and is refused by milvus-lite 3.
            "search_params": {"params": {}},
        }

    def _hybrid_request(self, rows: list[dict[int, float]], query: VectorStoreQuery, expr: str) -> dict[str, Any]:
        k = query.hybrid_top_k or query.similarity_top_k
        depth = query.sparse_top_k or candidates(k)
        # No metric_type: Milvus takes the index's, whatever an existing collection was made with.
        return {
            "collection_name": self.collection_name,
            "reqs": [
                AnnSearchRequest(
                    [query.query_embedding], self.embedding_field, {"params": self.search_config}, depth, expr
                ),
                AnnSearchRequest(rows, self.sparse_embedding_field, {"params": {}}, depth, expr),
            ],
            "ranker": self._ranker(),
            "limit": k,
        }

    def _ranker(self) -> RRFRanker | WeightedRanker:
        if self.hybrid_ranker == "RRFRanker":
            return RRFRanker(self.hybrid_ranker_params.get("k", RRF_K))
        if self.hybrid_ranker == "WeightedRanker":
            return WeightedRanker(*self.hybrid_ranker_params.get("weights", [1.0, 1.0]))
        raise ValueError(f"hybrid_ranker must be 'RRFRanker' or 'WeightedRanker', got {self.hybrid_ranker!r}.")


def _text(query: VectorStoreQuery) -> str:
    if query.query_str is None:
        raise ValueError(
            f"query_str must be given for mode {query.mode.value!r}, got None. Set it beside the embedding."
        )
    return query.query_str


def _options_of(output_fields: list[str], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"output_fields": output_fields, "partition_names": kwargs.get("milvus_partition_names")}


class _Encoded(BaseSparseEmbeddingFunction):
    """Hands out rows in the order in which they were encoded, one a call, whatever text is asked for."""

    def __init__(self, rows: Iterable[dict[int, float]]) -> None:
        self._rows = iter(rows)

    def encode_documents(self, documents: list[str]) -> list[dict[int, float]]:
        return [next(self._rows) for _ in documents]

    def encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        raise NotImplementedError("These are documents.")


def _flat(index: dict[str, Any]) -> dict[str, Any]:
    """An index as the framework wants it: its parameters beside its type."""
    return {**{key: value for key, value in index.items() if key != "params"}, **index["params"]}
