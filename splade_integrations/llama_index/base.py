"""The base class of the two parts of the LlamaIndex store: the part that searches and the part that writes."""

from abc import ABC
from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.vector_stores.types import BasePydanticVectorStore
from pymilvus import AsyncMilvusClient, MilvusClient

from splade_integrations.fusion import Fusion
from splade_integrations.llama_index.nodes import SOURCE_KEYS
from splade_integrations.llama_index.sparse_function import BaseSparseEmbeddingFunction
from splade_integrations.milvus.collection import Collection

__all__ = ["CollectionStore"]


class CollectionStore(BasePydanticVectorStore, ABC):
    """The store's pydantic fields, its collection and its clients."""

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
    # Whether the collection is known to exist. As long as this is False, `_collection.fields` calls Milvus and
    # blocks the event loop.
    _is_there: bool = PrivateAttr()

    @property
    def client(self) -> MilvusClient:
        """The sync client."""
        return self._collection.client

    @property
    def aclient(self) -> AsyncMilvusClient:
        """The async client of the running event loop."""
        return self._collection.aclient

    @property
    def fusion(self) -> Fusion:
        """The sides of mode `hybrid`, and how their hits are fused.

        A side is one kind of vector: dense, sparse or BM25. If the option `fusion` is given, it is returned. Otherwise,
        the result is the fusion that `splade evaluate --fit --write` stored in the collection. If the collection stores
        no fusion, the result is reciprocal rank fusion of all sides.
        """
        return self._collection.fusion

    def __deepcopy__(self, memo: Any = None) -> "CollectionStore":
        return self.model_copy()  # a copy shares the clients and the locks

    @property
    def _in_json(self) -> bool:
        fields = self._collection.fields
        return fields is None or fields.metadata is not None

    @property
    def _hidden(self) -> tuple[str, ...]:
        """The metadata keys that filters cannot use, because the collection keeps a source document's id under them."""
        return () if self._in_json else SOURCE_KEYS

    def _check_doc_id_field(self) -> None:
        fields = self._collection.fields
        if fields is not None and self.doc_id_field not in fields.columns:
            raise ValueError(
                f"collection {self.collection_name!r} must have a field for the source document's id, got no field "
                f"{self.doc_id_field!r}. Name it with doc_id_field if it has another name. Without such a field, this "
                "store can search and read the collection, and delete nodes by id or filters, but cannot add nodes. "
                "Add nodes through the package that made the collection, or use another collection_name."
            )
