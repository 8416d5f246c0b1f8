"""Write Arrow tables to Parquet files for Milvus's bulk import, with a manifest that lists the files.

pymilvus's `LocalBulkWriter` accepts one row at a time, but this module writes whole columns. The files of this module
have the same types and values as those of `LocalBulkWriter`, except in the column of sparse vectors. By default, each
vector in that column is a struct of two lists. Milvus 2.5.8 and later versions can read such structs.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.bulk_columns import arrow_types, checked_column, dynamic_column

with require_extra("bulk", module=__name__):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pymilvus import CollectionSchema

__all__ = ["MANIFEST", "BulkFile", "BulkFolder", "SparseForm", "fields_of", "sparse_form"]

MANIFEST = "manifest.json"
# How a file holds each sparse vector: as a struct of indices and values, or as a JSON text such as {"3": 0.5}.
SparseForm = Literal["struct", "json"]

_FIRST_WITH_STRUCTS = (2, 5, 8)
_ROW_GROUP_BYTES = 32 * 1024 * 1024  # as in pymilvus's writer. Milvus reads a whole row group into memory.
_DYNAMIC = "$meta"


def sparse_form(server_version: str) -> SparseForm:
    """Return how a file for a server of this version must hold sparse vectors.

    Args:
        server_version: The version, as `MilvusClient.get_server_version` returns it.
    Source:
        Milvus's release notes for 2.5.8: "Support parsing sparse vectors from Parquet structs in bulk inserts"
        (milvus-io/milvus#40874).

    Example:
        >>> sparse_form("v2.5.7"), sparse_form("2.5.8"), sparse_form("v2.6.0-rc1")
        ('json', 'struct', 'struct')
    """
    numbers = []
    for part in server_version.removeprefix("v").split("-")[0].split("."):
        numbers.append(int(part) if part.isdecimal() else 0)
    return "struct" if tuple(numbers) >= _FIRST_WITH_STRUCTS else "json"


def fields_of(table: pa.Table, schema: CollectionSchema, sparse: SparseForm = "struct") -> pa.Table:
    """Return a table in the form of a file for the bulk import: one column for each field of the collection.

    Args:
        table: The rows. The columns have the names of the collection's fields. A column for a JSON field holds JSON
            texts, or values that this function converts to JSON. If the collection has a dynamic field, further
            columns become keys of that field.
        schema: The collection's fields.
        sparse: The form of the sparse vectors in the file.
    Returns:
        A table with the same number of rows. Fields that Milvus fills itself are left out.
    Raises:
        ValueError, TypeError: A column is missing or unknown, has the wrong type or dimension, or holds a value that
            the field cannot hold. The message names the column and the first wrong row.

    Example:
        >>> from pymilvus import DataType, MilvusClient
        >>> schema = MilvusClient.create_schema()
        >>> _ = schema.add_field("id", DataType.INT64, is_primary=True)
        >>> _ = schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
        >>> table = pa.table({"id": [7], "sparse": [{"indices": [3], "values": [0.5]}]})
        >>> fields_of(table, schema).to_pylist()
        [{'id': 7, 'sparse': {'indices': [3], 'values': [0.5]}}]
        >>> fields_of(table, schema, "json").to_pylist()
        [{'id': 7, 'sparse': '{"3": 0.5}'}]
    """
    types = arrow_types(schema, sparse_as_text=sparse == "json")
    fields = {field.name: field for field in schema.fields}
    columns = {
        name: checked_column(table, fields[name], kind, sparse_as_text=sparse == "json")
        for name, kind in types.items()
        if name != _DYNAMIC
    }
    further = [name for name in table.column_names if name not in columns]
    if _DYNAMIC in types:
        columns[_DYNAMIC] = dynamic_column(table, further)
    elif further:
        raise ValueError(
            f"the columns must be fields of the collection ({', '.join(columns)}), got {further[0]!r}. The "
            "collection has no dynamic field for other columns. Drop the column."
        )
    return pa.table(columns, schema=pa.schema(list(types.items())))


@dataclass(frozen=True)
class BulkFile:
    """A file that is ready for the bulk import.

    Args:
        file: The file's name in the folder.
        rows: The number of rows.
        bytes: The file's size in bytes.
    """

    file: str
    rows: int
    bytes: int


class BulkFolder:
    """A folder of files for the bulk import into one collection.

    A file appears under its own name only when it is complete. A file that is written again under the same name
    replaces the earlier file. So a run that was interrupted can be started again.

    Args:
        folder: The folder. It is created if it does not exist.
        schema: The collection's fields.
        sparse: The form of the sparse vectors in the files. `sparse_form` returns the form for a server's version.
    Raises:
        ValueError: The folder holds files for another collection.

    Example:
        >>> import tempfile
        >>> from pymilvus import DataType, MilvusClient
        >>> schema = MilvusClient.create_schema()
        >>> _ = schema.add_field("id", DataType.INT64, is_primary=True)
        >>> _ = schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
        >>> folder = BulkFolder(tempfile.mkdtemp(), schema)
        >>> folder.write(pa.table({"id": [7], "sparse": [{"indices": [3], "values": [0.5]}]}), "first").rows
        1
        >>> folder.finish()["rows"], [one.file for one in folder.files()]
        (1, ['first.parquet'])
    """

    def __init__(self, folder: str | os.PathLike[str], schema: CollectionSchema, sparse: SparseForm = "struct") -> None:
        self.path, self.schema, self.sparse = Path(folder), schema, sparse
        self.path.mkdir(parents=True, exist_ok=True)
        wanted = self._description()
        found = self.manifest()
        if found is not None and any(found.get(key) != value for key, value in wanted.items()):
            raise ValueError(
                f"{self.path} must be a folder for files of this collection, got a folder whose {MANIFEST} describes "
                "other fields or another form of sparse vectors. Name an empty folder."
            )
        if found is None:
            self._write_manifest({**wanted, "complete": False})

    def manifest(self) -> dict[str, Any] | None:
        """Return the content of the manifest, or None if there is none."""
        path = self.path / MANIFEST
        return dict(json.loads(path.read_text())) if path.exists() else None

    def write(self, table: pa.Table, name: str) -> BulkFile:
        """Write a file.

        Args:
            table: The rows. `fields_of` says which columns they need.
            name: The file's name without the ending ".parquet".
        Raises:
            ValueError, TypeError: The rows do not fit the collection. See `fields_of`.
            OSError: The file cannot be written.
        """
        rows = fields_of(table, self.schema, self.sparse)
        size = max(1, rows.nbytes // max(1, len(rows)))
        target, partial = self.path / f"{name}.parquet", self.path / f".{name}.{os.getpid()}.partial"
        try:
            # Parquet's dictionary encoding saves space only if values are often repeated. Among these columns, only
            # token ids repeat often, so only they are encoded in this way.
            repeated = [f"{field.name}.indices.list.element" for field in rows.schema if pa.types.is_struct(field.type)]
            pq.write_table(
                rows,
                partial,
                row_group_size=min(max(_ROW_GROUP_BYTES // size, 1000), 1_000_000),
                use_dictionary=repeated or False,
            )
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return BulkFile(target.name, len(rows), target.stat().st_size)

    def files(self) -> list[BulkFile]:
        """Return the files, in the order of their names."""
        return [
            BulkFile(path.name, pq.read_metadata(path).num_rows, path.stat().st_size)
            for path in sorted(self.path.glob("*.parquet"))
        ]

    def finish(self) -> dict[str, Any]:
        """Write the manifest, and return its content: the fields, and the files with their row counts and sizes."""
        files = self.files()
        content = {
            **self._description(),
            "complete": True,
            "rows": sum(one.rows for one in files),
            "bytes": sum(one.bytes for one in files),
            "files": [asdict(one) for one in files],
        }
        self._write_manifest(content)
        return content

    def _description(self) -> dict[str, Any]:
        fields = json.loads(json.dumps(self.schema.to_dict(), default=str))
        return {"fields": fields, "sparse": self.sparse}

    def _write_manifest(self, content: Mapping[str, Any]) -> None:
        partial = self.path / f".{MANIFEST}.{os.getpid()}.partial"
        partial.write_text(json.dumps(content, indent=2) + "\n")
        partial.replace(self.path / MANIFEST)
