"""The Milvus collection that `splade index` fills and `splade search` queries.

As in LangChain's store, its fields are pk, text, sparse and, if wanted, dense. It records the encoder's fingerprint as
every adapter does. So LangChain's store can open a collection that was indexed here. This module depends on Milvus, but
not on an encoder or a terminal.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.clients import open_client
from splade_integrations.milvus.defaults import MAX_TEXT_BYTES
from splade_integrations.milvus.fingerprint import description_with, record, recorded
from splade_integrations.milvus.settings import (
    cut_text,
    dense_index,
    hybrid_request,
    insert_replaces,
    is_lite,
    searchable,
    sparse_index,
    storable,
)
from splade_integrations.models.fingerprint import Fingerprint

with require_extra("milvus", module="splade index and search"):
    from pymilvus import DataType
    from pymilvus.exceptions import MilvusException as StoreError

__all__ = ["Hit", "Store", "StoreError"]

_ID_BYTES = 512
_DENSE = "splade.dense_model"


@dataclass(frozen=True)
class Hit:
    """A document that a search found."""

    id: str
    score: float
    text: str


class Store:
    """A collection of documents.

    Args:
        uri: A milvus-lite file or a server.
        name: Name of the collection.
        token: Token of a server.
    Raises:
        OSError: The milvus-lite file cannot be opened.
    """

    def __init__(self, uri: str, name: str, token: str = "") -> None:
        self.uri, self.name = uri, name
        self._client = open_client(uri=uri, token=token)
        if self.exists():
            self._client.load_collection(name)  # after opening a file, milvus-lite has not loaded its collections

    def exists(self) -> bool:
        """Return whether the collection exists."""
        return bool(self._client.has_collection(self.name))

    def fingerprint(self) -> Fingerprint | None:
        """Return the fingerprint of the encoder that made the sparse vectors, or None if none is recorded."""
        return recorded(self._client.describe_collection(self.name))

    def dense_model(self) -> str | None:
        """Return the name of the model that made the dense vectors, or None if none is recorded."""
        return (self._client.describe_collection(self.name).get("properties") or {}).get(_DENSE) or None

    def fields(self) -> set[str]:
        """Return the names of the collection's fields."""
        return {field["name"] for field in self._client.describe_collection(self.name)["fields"]}

    def create(self, fingerprint: Fingerprint, dense_model: str | None, dense_dim: int | None) -> None:
        """Create the collection. An existing collection of the same name is replaced.

        Args:
            fingerprint: The fingerprint of the encoder that makes the sparse vectors.
            dense_model: The name of the model that makes the dense vectors, or None for no dense vectors.
            dense_dim: The width of the dense vectors, or None for no dense vectors.
        """
        client = self._client
        if self.exists():
            client.drop_collection(self.name)
        schema = client.create_schema(
            auto_id=False, enable_dynamic_field=True, description=description_with(fingerprint)
        )
        schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=_ID_BYTES)
        schema.add_field("text", DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
        schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
        indexes = client.prepare_index_params()
        indexes.add_index("sparse", **sparse_index(self.uri))
        if dense_dim is not None:
            schema.add_field("dense", DataType.FLOAT_VECTOR, dim=dense_dim)
            indexes.add_index("dense", **dense_index(self.uri))
        properties = {_DENSE: dense_model or ""}
        client.create_collection(self.name, schema=schema, consistency_level="Strong", properties=properties)
        record(client, self.name, fingerprint)
        client.create_index(self.name, indexes, sync=False)  # sync=True needs an RPC that milvus-lite lacks
        client.load_collection(self.name)

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return the ids among `ids` that the collection already has."""
        rows = self._client.get(self.name, ids=list(ids), output_fields=["pk"]) if ids else []
        return {row["pk"] for row in rows}

    def add(
        self, ids: list[str], texts: list[str], sparse: list[dict[int, float]], dense: Iterable[Any] | None
    ) -> None:
        """Store documents. A stored document with the same id is replaced.

        Raises:
            ValueError: An id is too long.
        """
        for identifier in ids:
            if len(identifier.encode("utf-8", "replace")) > _ID_BYTES:
                raise ValueError(f"an id must have at most {_ID_BYTES} bytes, got {identifier[:40]!r}… Shorten it.")
        rows: list[dict[str, Any]] = [
            {"pk": identifier, "text": cut_text(text), "sparse": storable(terms)}
            for identifier, text, terms in zip(ids, texts, sparse, strict=True)
        ]
        if dense is not None:
            for row, vector in zip(rows, dense, strict=True):
                row["dense"] = vector
        write = self._client.insert if insert_replaces(self.uri) else self._client.upsert
        write(self.name, rows)

    def finish(self) -> None:
        """Make new documents fast to search on milvus-lite. A server does this without being asked."""
        if is_lite(self.uri):
            self._client.flush(self.name)

    def search(self, mode: str, sparse: dict[int, float] | None, dense: Any, k: int, expr: str) -> list[Hit]:
        """Return the best `k` documents.

        Args:
            mode: "sparse", "dense", or "hybrid", which fuses both by reciprocal rank.
            sparse: Sparse embedding of the query, {token id: weight}, or None.
            dense: Dense embedding of the query, or None.
            k: The largest number of documents to return.
            expr: A Milvus filter expression, or "" for no filter.
        """
        queries: dict[str, Any] = {}
        if mode != "dense":
            queries["sparse"] = searchable(sparse or {})
        if mode != "sparse":
            queries["dense"] = dense
        metrics = {"sparse": sparse_index(self.uri)["metric_type"], "dense": dense_index(self.uri)["metric_type"]}
        if mode == "hybrid":
            both = [(field, query, {"metric_type": metrics[field], "params": {}}) for field, query in queries.items()]
            found = self._client.hybrid_search(
                self.name, **hybrid_request(both, k=k, expr=expr), output_fields=["text"]
            )
        else:
            [(field, query)] = queries.items()
            found = self._client.search(
                self.name,
                [query],
                anns_field=field,
                search_params={"metric_type": metrics[field], "params": {}},
                limit=k,
                filter=expr,
                output_fields=["text"],
            )
        return [Hit(str(hit["pk"]), float(hit["distance"]), hit["entity"].get("text", "")) for hit in found[0]]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
