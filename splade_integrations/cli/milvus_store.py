"""A Milvus collection that `splade index` fills and `splade search` asks. Knows Milvus, no encoder and no terminal.

Fields: pk, text, sparse and, if wanted, dense, as in LangChain's store, and the encoder's fingerprint as every adapter
records it: that store opens what was indexed here with both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.clients import open_client
from splade_integrations.milvus.fingerprint import description_with, record, recorded
from splade_integrations.milvus.settings import (
    MAX_TEXT_BYTES,
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
    """A document found."""

    id: str
    score: float
    text: str


class Store:
    """A collection.

    Args:
        uri: A milvus-lite file or a server.
        name: Name of the collection.
        token: Of a server.
    Raises:
        OSError: The milvus-lite file cannot be opened.
    """

    def __init__(self, uri: str, name: str, token: str = "") -> None:
        self.uri, self.name = uri, name
        self._client = open_client(uri=uri, token=token)
        if self.exists():
            self._client.load_collection(name)  # milvus-lite opens a file with its collections released

    def exists(self) -> bool:
        """Whether the collection is there."""
        return bool(self._client.has_collection(self.name))

    def fingerprint(self) -> Fingerprint | None:
        """Of the encoder that made its sparse vectors, if it says so."""
        return recorded(self._client.describe_collection(self.name))

    def dense_model(self) -> str | None:
        """Name of the model that made its dense vectors, if it says so."""
        return (self._client.describe_collection(self.name).get("properties") or {}).get(_DENSE) or None

    def fields(self) -> set[str]:
        """Names of its fields."""
        return {field["name"] for field in self._client.describe_collection(self.name)["fields"]}

    def create(self, fingerprint: Fingerprint, dense_model: str | None, dense_dim: int | None) -> None:
        """Make the collection, replacing one of its name.

        Args:
            fingerprint: Of the encoder that will fill its sparse side.
            dense_model: Name of the model that will fill its dense side, or None for no such side.
            dense_dim: That model's width.
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
        client.create_index(self.name, indexes, sync=False)  # waiting asks milvus-lite for a call that it has not
        client.load_collection(self.name)

    def known(self, ids: Sequence[str]) -> set[str]:
        """Which of these ids it has."""
        rows = self._client.get(self.name, ids=list(ids), output_fields=["pk"]) if ids else []
        return {row["pk"] for row in rows}

    def add(
        self, ids: list[str], texts: list[str], sparse: list[dict[int, float]], dense: Sequence[Any] | None
    ) -> None:
        """Store documents; those whose id is there are replaced.

        Raises:
            ValueError: An id is too long.
        """
        for identifier in ids:
            if len(identifier.encode("utf-8", "replace")) > _ID_BYTES:
                raise ValueError(f"an id must be of at most {_ID_BYTES} bytes, got {identifier[:40]!r}… Shorten it.")
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
        """Make what was added quick to search, on milvus-lite; a server does so by itself."""
        if is_lite(self.uri):
            self._client.flush(self.name)

    def search(self, mode: str, sparse: dict[int, float] | None, dense: Any, k: int, expr: str) -> list[Hit]:
        """The best `k` documents.

        Args:
            mode: "sparse", "dense", or "hybrid": both fused by reciprocal rank.
            sparse: Terms of the query.
            dense: Its dense embedding.
            k: How many.
            expr: Milvus's filter expression, or "".
        """
        sides: dict[str, Any] = {}
        if mode != "dense":
            sides["sparse"] = searchable(sparse or {})
        if mode != "sparse":
            sides["dense"] = dense
        metrics = {"sparse": sparse_index(self.uri)["metric_type"], "dense": dense_index(self.uri)["metric_type"]}
        if mode == "hybrid":
            both = [(side, query, {"metric_type": metrics[side], "params": {}}) for side, query in sides.items()]
            found = self._client.hybrid_search(
                self.name, **hybrid_request(both, k=k, expr=expr), output_fields=["text"]
            )
        else:
            [(side, query)] = sides.items()
            found = self._client.search(
                self.name,
                [query],
                anns_field=side,
                search_params={"metric_type": metrics[side], "params": {}},
                limit=k,
                filter=expr,
                output_fields=["text"],
            )
        return [Hit(str(hit["pk"]), float(hit["distance"]), hit["entity"].get("text", "")) for hit in found[0]]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
