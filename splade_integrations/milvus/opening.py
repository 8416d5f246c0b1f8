"""Open, create or drop a collection, and find out which fields it has. This module does not handle rows.

A side is a kind of vector in a collection: dense, sparse (SPLADE) or BM25. A collection is opened with the sides that
its schema names.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.fusion import Fusion
from splade_integrations.milvus.calls import Call
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.defaults import READ_TIMEOUT, WRITE_TIMEOUT
from splade_integrations.milvus.fields import Fields
from splade_integrations.milvus.filters import Engine, Layout
from splade_integrations.milvus.fingerprint import check_encoder, description_with, record
from splade_integrations.milvus.fusion_property import recorded_fusion, write_fusion
from splade_integrations.milvus.retries import perform
from splade_integrations.milvus.schema import Schema, Side
from splade_integrations.models.fingerprint import Fingerprint

with require_extra("milvus", module=__name__):
    from pymilvus import AsyncMilvusClient, MilvusClient

__all__ = ["Opening", "check_no_alias", "complete_creation", "layout_of"]


class Opening:
    """The part of `Collection` that opens, creates and drops a collection. It has the arguments of `Collection`."""

    def __init__(
        self,
        name: str,
        schema: Schema,
        connection: Connection,
        *,
        fingerprint: Fingerprint | None = None,
        allow_other_encoder: bool = False,
        drop_old: bool = False,
        timeout: float | None = None,
        partition_names: Sequence[str] | None = None,
        create_options: Mapping[str, Any] | None = None,
        description: str = "",
        replica_number: int = 1,
        fusion: Fusion | None = None,
    ) -> None:
        self.name, self.schema, self.connection = name, schema, connection
        schema.typed()  # raises if two fields have the same name
        self._fingerprint, self._allow_other_encoder = fingerprint, allow_other_encoder
        self._timeout, self._partition_names = timeout, partition_names
        self._create_options, self._description = dict(create_options or {}), description
        self._replica_number = replica_number
        self._own_fusion = fusion
        self._recorded_fusion: Fusion | None = None
        self._check_fusion(fusion)
        self._fields: Fields | None = None
        self._partitions: set[str] = set()
        self._checked_keys: set[str] = set()
        if drop_old:
            self.drop()
        elif self.exists():
            self._learn()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Opening":
        return self  # the client and the lock cannot be copied, so a "copy" is this same object

    # Properties of the collection

    @property
    def client(self) -> MilvusClient:
        """The client."""
        return self.connection.client

    @property
    def aclient(self) -> AsyncMilvusClient | None:
        """The async client of the running event loop, or None if the caller gave only a sync client."""
        return self.connection.aclient

    @property
    def engine(self) -> Engine:
        """The engine: milvus-lite 2, milvus-lite 3 or a Milvus server."""
        return self.connection.engine

    @property
    def fields(self) -> Fields | None:
        """The collection's fields, or None if there is no collection yet."""
        if self._fields is None and self.exists():
            self._learn()
        return self._fields

    @property
    def layout(self) -> Layout | None:
        """The fields in the form that filters need, or None if there is no collection yet."""
        fields = self.fields
        return None if fields is None else layout_of(fields)

    @property
    def fusion(self) -> Fusion:
        """The fusion of a hybrid search.

        The caller's fusion takes precedence over the fusion that is stored in the collection. If there is neither, the
        fusion is reciprocal rank fusion of all sides with equal weights.

        Raises:
            ValueError: The fusion that is stored in the collection uses a side that was not opened.
        """
        if (fusion := self._own_fusion or self._recorded_fusion) is not None:
            self._check_fusion(fusion)
            return fusion
        return Fusion(sides=tuple(self.schema.sides))

    def record_fusion(self, fusion: Fusion | None) -> None:
        """Store a fusion in the collection, for all programs that open the collection. None removes the stored fusion.

        Raises:
            ValueError: The fusion uses a side that was not opened, the collection does not exist, or the engine is
                milvus-lite 2.
        """
        self._check_fusion(fusion)
        if self.engine is Engine.LITE2:
            raise ValueError(
                "a collection that stores a fusion must be on milvus-lite 3 or a server, got milvus-lite 2, which "
                "cannot change a collection's properties. Give the fusion to each store that you open."
            )
        if self.fields is None:
            raise ValueError(
                f"a collection must exist before it can store a fusion, got {self.name!r}, which does not exist. Add "
                "documents first, which creates the collection."
            )
        with self.connection.lock:
            write_fusion(self.client, self.name, fusion, timeout=self._write_timeout())
        self._recorded_fusion = fusion

    def _check_fusion(self, fusion: Fusion | None) -> None:
        if fusion is not None and (missing := [side for side in fusion.sides if side not in self.schema.sides]):
            raise ValueError(
                f"a fusion for collection {self.name!r} must use only sides that were opened "
                f"({', '.join(self.schema.sides)}), got a fusion of {', '.join(fusion.sides)}. Open the collection "
                f"with its {missing[0]} side as well, or give another fusion."
            )

    def dense_metric(self) -> str:
        """Return the metric of the dense index, or the schema's metric if there is no collection yet."""
        if (fields := self.fields) is None:
            return self.schema.metric_type
        found = self._do("describe_index", index_name=fields.sides["dense"]) or {}
        return str(found.get("metric_type", self.schema.metric_type))

    def index_facts(self) -> dict[Side, dict[str, Any]]:
        """Return {side: facts about its index}: the type, the metric and, if Milvus reports it, the algorithm."""
        fields = self.fields
        sides = {} if fields is None else fields.sides
        found = {side: self._do("describe_index", index_name=name) or {} for side, name in sides.items()}
        keys = ("index_type", "metric_type", "inverted_index_algo")
        return {side: {key: facts[key] for key in keys if facts.get(key)} for side, facts in found.items()}

    def segments(self) -> int | None:
        """Return the number of segments on disk, or None on milvus-lite, which does not report this number."""
        if self.engine is not Engine.SERVER:
            return None
        return len(self._do("list_persistent_segments"))

    def exists(self, timeout: float | None = None) -> bool:
        """Return whether the collection exists.

        Args:
            timeout: The time limit, in seconds.
        Raises:
            TimeoutError: The server does not answer.
        """
        return bool(self._do("has_collection", timeout=self._read_timeout(timeout)))

    def count(self) -> int:
        """Return the number of documents."""
        if self.fields is None:
            return 0
        how = {"filter": "", "output_fields": ["count(*)"], "consistency_level": "Strong"}
        rows = self._do("query", **how)
        return int(rows[0]["count(*)"])

    # Creating

    def create(self, dense_dim: int | None = None) -> None:
        """Create the collection if it does not exist yet.

        Args:
            dense_dim: The dimension of the dense vectors, if the collection has dense vectors.
        Raises:
            ValueError: The collection exists, but lacks a field of the schema or was made with another encoder.
        """
        with self.connection.lock:  # only one of several threads may create the collection
            if not self.exists():
                self._create(dense_dim)
            self._learn()

    def _create(self, dense_dim: int | None) -> None:
        text = description_with(self._fingerprint, self._description)
        definition = self.schema.definition(self.engine, dense_dim, text)
        how = {"schema": definition, **self._create_options}
        self._do("create_collection", timeout=self._write_timeout(), **how)
        try:
            record(self.client, self.name, self._fingerprint)
            # With sync=True, pymilvus would wait for the index with a call that milvus-lite does not have.
            indexes = self.schema.indexes(self.engine)
            self._do("create_index", timeout=self._write_timeout(), index_params=indexes, sync=False)
            self.load()
        except BaseException:
            with suppress(Exception):  # an error here must not hide the first error
                self._do("drop_collection", timeout=self._write_timeout())
            raise

    def _learn(self) -> None:
        description = self._do("describe_collection")
        where = self.connection.uri or str(id(self.client))
        check_encoder(description, where, self._fingerprint, allow_other_encoder=self._allow_other_encoder)
        fields = Fields.of(description, self.schema)
        self._recorded_fusion = recorded_fusion(description)
        self.load()  # milvus-lite does not load the collections of a file that it opens
        self._fields = fields

    def load(self) -> None:
        """Make the collection ready to search."""
        how: dict[str, Any] = {} if self._replica_number == 1 else {"replica_number": self._replica_number}
        if self._partition_names and self.engine is Engine.SERVER:
            how["partition_names"] = list(self._partition_names)
        # Loading has no default timeout, because a server answers only when the whole collection is in memory. That can
        # take a long time.
        self._do("load_partitions" if "partition_names" in how else "load_collection", timeout=self._timeout, **how)

    def drop(self) -> None:
        """Delete the collection, if it exists.

        Raises:
            ValueError: The name is an alias. Without this error, Milvus would delete the collection behind the alias.
        """
        with self.connection.lock:
            if not self.exists():
                return
            check_no_alias(self.name, self._do("describe_collection"))
            self._do("drop_collection", timeout=self._write_timeout())
            self._fields = self._recorded_fusion = None

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def described(self) -> dict[str, Any]:
        """Return the collection's description, as `MilvusClient.describe_collection` returns it."""
        description: dict[str, Any] = self._do("describe_collection")
        return description

    def _do(self, method: str, **arguments: Any) -> Any:
        how = {"collection_name": self.name, "timeout": self._read_timeout(), **arguments}
        with self.connection.turn:
            return perform(self.client, Call(method, how), self.connection.uri)

    def _read_timeout(self, timeout: float | None = None) -> float:
        return timeout or self._timeout or READ_TIMEOUT

    def _write_timeout(self, timeout: float | None = None) -> float:
        return timeout or self._timeout or WRITE_TIMEOUT


def complete_creation(connection: Connection, name: str, schema: Schema, fingerprint: Fingerprint | None) -> None:
    """Add the fingerprint and the indexes to a collection that lacks them because its creation was interrupted.

    Args:
        connection: The server or file.
        name: The collection's name.
        schema: The fields and indexes that the collection was created with.
        fingerprint: The fingerprint of the encoder that fills the sparse side.
    """
    if connection.engine is Engine.LITE2:  # milvus-lite 2 can neither list indexes nor alter properties
        return
    record(connection.client, name, fingerprint)
    there = connection.client.list_indexes(name)
    missing = MilvusClient.prepare_index_params()
    missing.extend(index for index in schema.indexes(connection.engine) if index.field_name not in there)
    if missing:
        connection.client.create_index(name, missing, sync=False, timeout=WRITE_TIMEOUT)


def check_no_alias(name: str, description: Mapping[str, Any]) -> None:
    """Raise a ValueError if `name` is an alias, because a collection must not be dropped through its alias.

    Args:
        name: The name that the user gave.
        description: The collection's description, as `MilvusClient.describe_collection` returns it.
    """
    real = description["collection_name"]
    if real != name:
        raise ValueError(
            f"a collection to drop must be named directly, got {name!r}, which is an alias of {real!r}. To delete that "
            f"collection, name {real!r}. To replace it, index into a new collection and move the alias to the new one."
        )


def layout_of(fields: Fields) -> Layout:
    """Return the fields in the form that filters need."""
    return Layout(
        primary=fields.primary,
        primary_is_text=not fields.primary_is_number,
        metadata=fields.metadata,
        columns={name: int(kind) for name, (kind, _) in fields.typed.items()},
        own={name: int(kind) for name, (kind, _) in fields.columns.items()},
    )
