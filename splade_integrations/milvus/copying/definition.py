"""The fields, indexes, partitions and properties of a collection. From these, an equal collection can be made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.calls import Call
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.defaults import READ_TIMEOUT, WRITE_TIMEOUT
from splade_integrations.milvus.filters import Engine
from splade_integrations.milvus.retries import perform
from splade_integrations.milvus.schema import VECTOR_KINDS, index_of

with require_extra("milvus", module=__name__):
    from pymilvus import CollectionSchema, DataType, MilvusClient

__all__ = ["GIVEN_KEYS", "Definition", "call"]

# The keys that `describe_index` adds to an index's own parameters.
_NO_PARAMETERS = (
    "field_name", "index_name", "index_type", "metric_type", "total_rows", "indexed_rows", "pending_index_rows",
    "state", "index_state_fail_reason", "min_index_version", "max_index_version",
)  # fmt: skip
_LONGEST_ELEMENT = 65_535
# With this property, a server accepts keys from the caller even if it numbers the collection's rows. (Milvus's source:
# `checkPrimaryFieldData`.)
GIVEN_KEYS = "allow_insert_auto_id"


def call(connection: Connection, method: str, **arguments: Any) -> Any:
    """Call a method of the connection's client. Raise a TimeoutError if the server does not answer."""
    reads = method.startswith(("describe", "has", "list", "query", "get"))
    how = {"timeout": READ_TIMEOUT if reads else WRITE_TIMEOUT, **arguments}
    with connection.turn if reads else connection.lock:
        return perform(connection.client, Call(method, how), connection.uri)


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Everything that defines a collection, except its rows.

    Args:
        engine: The engine that holds the collection.
        description: What `MilvusClient.describe_collection` returns.
        indexes: What `MilvusClient.describe_index` returns for each index.
        partitions: The names of the partitions. () if a partition key selects each row's partition.
        aliases: The collection's aliases.
    """

    engine: Engine
    description: Mapping[str, Any]
    indexes: tuple[Mapping[str, Any], ...]
    partitions: tuple[str, ...]
    aliases: tuple[str, ...]

    @staticmethod
    def read(connection: Connection, name: str) -> "Definition":
        """Read the definition of a collection.

        Args:
            connection: The server or file.
            name: The collection's name, or an alias.
        Raises:
            ValueError: There is no such collection, or it cannot be copied.
        """
        if connection.engine is Engine.LITE2:
            raise ValueError(
                "a collection to copy must be on milvus-lite 3 or a server, got milvus-lite 2, which has neither "
                "partitions nor aliases. Install milvus-lite 3.2.2, or use a server."
            )
        if not call(connection, "has_collection", collection_name=name):
            raise ValueError(f"the collection {name!r} must be in {connection.uri}, but it is not. Correct its name.")
        description = call(connection, "describe_collection", collection_name=name)
        name = description["collection_name"]
        if description.get("struct_array_fields"):
            raise ValueError(
                "a collection to copy must have no arrays of structs, got the field "
                f"{description['struct_array_fields'][0]['name']!r} in collection {name!r}. Copy it with Milvus's own "
                "backup tool."
            )
        names = call(connection, "list_indexes", collection_name=name)
        keyed = any(field.get("is_partition_key") for field in description["fields"])
        return Definition(
            engine=connection.engine,
            description=description,
            indexes=tuple(
                call(connection, "describe_index", collection_name=name, index_name=index) or {} for index in names
            ),
            partitions=() if keyed else tuple(call(connection, "list_partitions", collection_name=name)),
            aliases=tuple(call(connection, "list_aliases", collection_name=name)["aliases"]),
        )

    @property
    def name(self) -> str:
        """The collection's name, even if an alias was given."""
        return str(self.description["collection_name"])

    @property
    def fields(self) -> dict[str, Mapping[str, Any]]:
        """{name: field} for all fields except the dynamic field."""
        return {field["name"]: field for field in self.description["fields"]}

    @property
    def primary(self) -> str:
        """The name of the primary field."""
        return next(name for name, field in self.fields.items() if field.get("is_primary"))

    @property
    def auto_id(self) -> bool:
        """Whether Milvus numbers the rows."""
        return bool(self.fields[self.primary].get("auto_id"))

    @property
    def dynamic(self) -> bool:
        """Whether rows may have keys that are not fields."""
        return bool(self.description["enable_dynamic_field"])

    @property
    def computed(self) -> set[str]:
        """The fields that Milvus's functions fill, such as BM25's vectors."""
        return {name for function in self.description.get("functions", ()) for name in function["output_field_names"]}

    @property
    def properties(self) -> dict[str, str]:
        """The collection's properties."""
        return dict(self.description.get("properties") or {})

    def make(
        self,
        connection: Connection,
        name: str,
        *,
        added: Mapping[str, Mapping[str, Any]],
        left_out: Sequence[str],
        properties: Mapping[str, str],
        text: str,
    ) -> None:
        """Create an empty collection with this definition, or finish one that an earlier run began to create.

        Args:
            connection: The server or file that gets the collection.
            name: The name of the new collection.
            added: {field: its arguments for `CollectionSchema.add_field`} for further fields.
            left_out: The fields to leave out.
            properties: The properties of the new collection.
            text: The description of the new collection.
        """
        if not call(connection, "has_collection", collection_name=name):
            how: dict[str, Any] = {"properties": dict(properties)}
            if self.auto_id and connection.engine is Engine.SERVER:
                how["properties"][GIVEN_KEYS] = "true"
            if self.engine is Engine.SERVER and connection.engine is Engine.SERVER:
                how |= {key: self.description[key] for key in ("consistency_level", "num_shards")}
                if not self.partitions:
                    how["num_partitions"] = self.description["num_partitions"]
            schema = self._schema(added, left_out, text)
            call(connection, "create_collection", collection_name=name, schema=schema, **how)
        indexed = set(call(connection, "list_indexes", collection_name=name))
        for index in self._indexes(connection.engine, added, left_out):
            if not indexed & {index["field_name"], index.get("index_name")}:
                params = MilvusClient.prepare_index_params()
                params.add_index(**index)
                # With sync=True, pymilvus would wait for the index with a call that milvus-lite does not have.
                call(connection, "create_index", collection_name=name, index_params=params, sync=False)
        call(connection, "load_collection", collection_name=name, timeout=None)

    def _schema(self, added: Mapping[str, Mapping[str, Any]], left_out: Sequence[str], text: str) -> CollectionSchema:
        fields = [_whole(field) for name, field in self.fields.items() if name not in left_out]
        schema = CollectionSchema.construct_from_dict({**self.description, "fields": fields, "description": text})
        for name, options in added.items():
            schema.add_field(name, **options)
        return schema

    def _indexes(
        self, engine: Engine, added: Mapping[str, Mapping[str, Any]], left_out: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Return a copy's indexes: those of this collection, and a default index for each vector field without one."""
        found: list[dict[str, Any]] = []
        kinds = {name: field["type"] for name, field in self.fields.items() if name not in left_out}
        kinds |= {name: options["datatype"] for name, options in added.items()}
        for index in self.indexes:
            name = index.get("field_name")
            if name in kinds and (engine is self.engine or kinds[name] not in VECTOR_KINDS):
                own = {key: value for key, value in index.items() if key not in _NO_PARAMETERS}
                metric = {"metric_type": index["metric_type"]} if kinds[name] in VECTOR_KINDS else {}
                found.append({"field_name": name, "index_type": index["index_type"], "params": own, **metric})
                if index.get("index_name") and engine is Engine.SERVER:
                    found[-1]["index_name"] = index["index_name"]
        metrics = {index.get("field_name"): index.get("metric_type") for index in self.indexes}
        for name in kinds.keys() - {index["field_name"] for index in found}:
            if kinds[name] == DataType.SPARSE_FLOAT_VECTOR:
                found.append({"field_name": name, **index_of("bm25" if name in self.computed else "sparse", engine)})
            elif kinds[name] in VECTOR_KINDS:
                found.append({"field_name": name, **index_of("dense", engine, metrics.get(name) or "COSINE")})
        return found


def _whole(field: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a field. For an array of strings, add the largest size of a string, which milvus-lite does not report."""
    if field["type"] == DataType.ARRAY and field.get("element_type") == DataType.VARCHAR:
        return {**field, "params": {"max_length": _LONGEST_ELEMENT, **field["params"]}}
    return field
