"""Read, write and delete the rows of a collection, no matter what their values mean.

Rows are read in ascending order of their keys.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from splade_integrations.milvus.calls import Call
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.copying.definition import Definition, call
from splade_integrations.milvus.defaults import READ_TIMEOUT, ROWS_PER_WRITE
from splade_integrations.milvus.filters import Engine, ids_expr
from splade_integrations.milvus.paging import IN_KEY_ORDER, key_range, next_key, query_call
from splade_integrations.milvus.retries import ask

__all__ = ["Table", "equal"]

_IDS_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of a collection.

    Args:
        connection: The server or file.
        name: The collection's name.
        primary: The name of the primary field.
        fields: The fields to read, including the primary field.
        auto_id: Whether Milvus numbers the rows.
        keyed: Whether a partition key selects each row's partition.
    """

    connection: Connection
    name: str
    primary: str
    fields: tuple[str, ...]
    auto_id: bool
    keyed: bool

    @staticmethod
    def of(connection: Connection, name: str, definition: Definition, without: Sequence[str] = ()) -> "Table":
        """Return the `Table` of a collection. Its fields exclude those that Milvus computes and those in `without`.

        Args:
            connection: The server or file.
            name: The collection's name.
            definition: The definition of this collection, or of its original if the collection is a copy.
            without: The fields to leave out.
        """
        fields = [name for name in definition.fields if name not in definition.computed and name not in without]
        return Table(
            connection=connection,
            name=name,
            primary=definition.primary,
            fields=(*fields, *(["$meta"] if definition.dynamic else [])),
            auto_id=definition.auto_id,
            keyed=not definition.partitions,
        )

    def with_fields(self, names: Sequence[str]) -> "Table":
        """Return a `Table` of the same rows that reads these fields as well."""
        return replace(self, fields=(*names, *self.fields))

    def only(self, names: Sequence[str]) -> "Table":
        """Return a `Table` of the same rows that reads only these fields."""
        return replace(self, fields=tuple(names))

    def partitions(self) -> list[str | None]:
        """Return the partitions to read one by one. None stands for all partitions together."""
        return [None] if self.keyed else list(call(self.connection, "list_partitions", collection_name=self.name))

    def add_partitions(self, names: Sequence[str | None]) -> None:
        """Create the partitions that are missing."""
        there = self.partitions()
        for name in names:
            if name not in there:
                call(self.connection, "create_partition", collection_name=self.name, partition_name=name)

    def page(
        self, partition: str | None, after: Any, last: Any = None, fields: Sequence[str] | None = None
    ) -> tuple[list[dict[str, Any]], Any]:
        """Return up to 1000 rows in ascending order of their keys, and the key after which the next page starts.

        The key is None if there is no further page.

        Args:
            partition: The partition to read. None means all partitions.
            after: The key before the first row. None means that the rows start at the smallest key.
            last: The largest key to read. None means that there is no bound.
            fields: The fields to read. None means all fields.
        """
        rows = self.matching(key_range(self.primary, after, last), partition, fields, **IN_KEY_ORDER)
        return rows, next_key(rows, self.primary)

    def matching(
        self, expr: str, partition: str | None, fields: Sequence[str] | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        """Return up to 1000 rows that match an expression. `partition` and `fields` are as in `page`."""
        how: dict[str, Any] = {"consistency_level": "Strong", "timeout": READ_TIMEOUT, **options}
        if partition is not None:
            how["partition_names"] = [partition]
        asked = query_call(self.name, expr, fields or self.fields, **how)

        def conversation() -> Any:
            return (yield asked)

        with self.connection.turn:
            found = ask(self.connection.client, self.name, conversation(), self.connection.uri)
        return [{key: _plain(value) for key, value in row.items()} for row in found]

    def pages(
        self, partition: str | None, after: Any = None, last: Any = None, fields: Sequence[str] | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield all pages of a range of keys. The arguments are as in `page`."""
        while True:
            rows, after = self.page(partition, after, last, fields)
            yield rows
            if after is None:
                return

    def first_page(self) -> list[dict[str, Any]]:
        """Return the first page of the first partition that has rows."""
        return next((page for part in self.partitions() for page in self.pages(part) if page), [])

    def write(self, rows: Sequence[Mapping[str, Any]], partition: str | None) -> None:
        """Write rows. A row replaces the stored row with the same key."""
        if self.auto_id and self.connection.engine is Engine.SERVER:  # a server's insert would keep the stored rows
            self.delete([row[self.primary] for row in rows], partition)
        how = {} if partition is None else {"partition_name": partition}
        for start in range(0, len(rows), ROWS_PER_WRITE):
            some = [dict(row) for row in rows[start : start + ROWS_PER_WRITE]]
            method = self.connection.write_method(auto_id=self.auto_id)
            call(self.connection, method, collection_name=self.name, data=some, **how)

    def delete(self, keys: Sequence[Any], partition: str | None) -> None:
        """Delete rows by their keys. Unknown keys are not an error."""
        # The partition is named only on a server. On milvus-lite, a delete that names a partition deletes rows with
        # these keys from the other partitions as well, but leaves the rows of those partitions in the sparse index.
        named = partition is not None and self.connection.engine is Engine.SERVER
        how = {"partition_name": partition} if named else {}
        for start in range(0, len(keys), _IDS_AT_ONCE):
            expr = ids_expr(self.primary, keys[start : start + _IDS_AT_ONCE])
            call(self.connection, "delete", collection_name=self.name, filter=expr, **how)

    def flush_lite(self) -> None:
        """Flush on milvus-lite, so that rows are durable and quick to search. A server flushes by itself."""
        if self.connection.lite:
            call(self.connection, "flush", collection_name=self.name)

    def count(self) -> int:
        """Return the number of rows."""
        how = {"filter": "", "output_fields": ["count(*)"], "consistency_level": "Strong", "timeout": READ_TIMEOUT}

        def conversation() -> Any:
            return (yield Call("query", {"collection_name": self.name, **how}))

        rows = ask(self.connection.client, self.name, conversation(), self.connection.uri)
        return int(rows[0]["count(*)"])


def equal(one: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    """Return whether two rows hold the same values. NaN counts as equal to NaN.

    Example:
        >>> equal({"v": [float("nan")]}, {"v": [float("nan")]}), equal({"n": 1}, None)
        (True, False)
    """
    return one == other or (other is not None and _written(one) == _written(other))


def _written(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, default=repr)


def _plain(value: Any) -> Any:
    """Convert a value that Milvus returned to the form that `insert` accepts."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], bytes):  # a float16 or binary vector
        return value[0]
    if isinstance(value, str | bytes | int | float | Mapping | list) or value is None:
        return value
    return list(value)  # pymilvus returns an array as protobuf's own kind of list
