"""LlamaIndex's `MilvusVectorStore`, set up for hybrid retrieval: its defaults and a few of its methods put right.

Everything else is the framework's own. Knows no encoder: any sparse embedding function of the framework's will do.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from os import PathLike, fspath
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore
from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction
from pymilvus import AsyncMilvusClient, CollectionSchema

from splade_integrations.llama_index.checks import check_existing, check_function, check_nodes
from splade_integrations.llama_index.requests import Hits, hybrid_search, sparse_search, text_of
from splade_integrations.llama_index.settings import Encoded, connection_args_of, with_defaults
from splade_integrations.milvus.clients import AsyncClients, open_client, write_lock
from splade_integrations.milvus.fingerprint import description_with, record
from splade_integrations.milvus.ingest import ingest
from splade_integrations.milvus.settings import insert_replaces, is_lite
from splade_integrations.models.fingerprint import Fingerprint

__all__ = ["HybridMilvusVectorStore"]


class HybridMilvusVectorStore(MilvusVectorStore):
    """`MilvusVectorStore` over a dense and a sparse field, right by default.

    - Mode `hybrid` fuses both sides by reciprocal rank (k = 60) from max(100, 10 k) candidates a side; a query's
      `sparse_top_k` sets the candidates of both sides, `hybrid_top_k` the results, `filters` bind both sides. Ranks
      have no weights, so `alpha` is ignored. `sparse` and `text_search` keep every term; `default` is dense.
    - Adding encodes nodes some hundreds at a time, by the text that the dense side embeds, which includes metadata.
      It replaces nodes whose ids are there. An error part-way leaves earlier chunks stored.
    - Async methods leave the event loop free, work in any number of loops, and in a store made outside them.
    - `clear` leaves an empty collection, ready to be added to.
    - A collection remembers its encoder, and no other is taken.
    - `consistency_level` is the framework's, "Session": a search sees what this client wrote. "Strong" sees what anyone
      did; milvus-lite always does.
    - Exact dense index, and a flush after adding, on milvus-lite only.

    Args:
        uri: A milvus-lite file, `./name.db`, or a server, `http://host:19530`.
        token: Of a server: `user:password`, or an API key.
        collection_name: The collection; it is made where there is none.
        sparse_embedding_function: A `SpladeSparseEmbedding`, also where the collection exists.
        similarity_metric: "COSINE", "IP" or "L2". The framework's own default, IP, is the same for unit vectors alone.
        upsert_mode: Whether adding replaces. milvus-lite 3 replaces in any case.
        use_async_client: Whether async methods may be used. Their clients are made when first wanted.
        allow_other_encoder: Open a collection that was made with another encoder.
        **milvus_options: Any further keyword of `MilvusVectorStore`, such as `dim` (needed for a new collection),
            `overwrite` or `index_config`, and of `MilvusClient`, such as `db_name`.

    Raises:
        TypeError: `sparse_embedding_function` is missing, or is none.
        ValueError: The collection exists and has other fields or was made with another encoder, or `enable_sparse` is
            False.
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
        allow_other_encoder: bool = False,
        **milvus_options: Any,
    ) -> None:
        check_function(sparse_embedding_function)
        options = with_defaults(milvus_options, fspath(uri), similarity_metric) | {
            "token": token,
            "collection_name": collection_name,
            "sparse_embedding_function": sparse_embedding_function,
            "upsert_mode": upsert_mode,
        }
        connection_args = connection_args_of(options)
        client = open_client(**connection_args)
        exists = check_existing(client, options, allow_other_encoder=allow_other_encoder)
        if exists:  # the framework looks among collections alone, and would make one of an alias's name
            options["collection_name"] = client.describe_collection(collection_name)["collection_name"]
        # The framework's own client, which creates the collection, does not take turns.
        with write_lock(options["uri"]):
            super().__init__(**options, use_async_client=False)
            if not exists:
                record(client, collection_name, _fingerprint(sparse_embedding_function))
        if exists:  # milvus-lite 3 finds its collections released when a file is opened anew
            client.load_collection(collection_name)
        self._milvusclient, self.collection_name = client, collection_name
        self._options = options | {"use_async_client": use_async_client}
        self.use_async_client = use_async_client
        self._async_clients = AsyncClients(client, **connection_args)
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
        lite, forced = is_lite(self._options["uri"]), add_kwargs.pop("force_flush", False)
        flush = partial(self.client.flush, self.collection_name) if lite or forced else None
        return ingest(nodes, partial(self._write, **add_kwargs), flush, once=not lite)

    def _write(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        encoded = Encoded(self.sparse_embedding_function.encode_documents(texts))
        # The framework encodes node by node: a copy of the store, with the same client, hands it our rows. Its own
        # async add builds all rows on the event loop, so ours is this one in a thread.
        upsert_mode = self.upsert_mode and not insert_replaces(self._options["uri"])
        copy = self.model_copy(update={"sparse_embedding_function": encoded, "upsert_mode": upsert_mode})
        return MilvusVectorStore.add(copy, list(nodes), **add_kwargs)

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

    def _sparse_search(self, query: VectorStoreQuery, *args: Any, **kwargs: Any) -> Hits:
        rows = self.sparse_embedding_function.encode_queries([text_of(query)])
        return self._parse_from_milvus_results(self.client.search(**sparse_search(self, rows, query, *args, **kwargs)))

    async def _async_sparse_search(self, query: VectorStoreQuery, *args: Any, **kwargs: Any) -> Hits:
        rows = await self.sparse_embedding_function.async_encode_queries([text_of(query)])
        found = await self.aclient.search(**sparse_search(self, rows, query, *args, **kwargs))
        return self._parse_from_milvus_results(found)

    def _hybrid_search(self, query: VectorStoreQuery, *args: Any, **kwargs: Any) -> Hits:
        rows = self.sparse_embedding_function.encode_queries([text_of(query)])
        found = self.client.hybrid_search(**hybrid_search(self, rows, query, *args, **kwargs))
        return self._parse_from_milvus_results(found)

    async def _async_hybrid_search(self, query: VectorStoreQuery, *args: Any, **kwargs: Any) -> Hits:
        rows = await self.sparse_embedding_function.async_encode_queries([text_of(query)])
        found = await self.aclient.hybrid_search(**hybrid_search(self, rows, query, *args, **kwargs))
        return self._parse_from_milvus_results(found)

    def _add_fields_to_schema(self, schema: CollectionSchema) -> CollectionSchema:
        """The framework's, on a schema as it made it but with a description."""
        description = description_with(_fingerprint(self.sparse_embedding_function))
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=True, description=description)
        return super()._add_fields_to_schema(schema)


def _fingerprint(function: Any) -> Fingerprint | None:
    return getattr(function, "fingerprint", None)
