"""Let a copy keep the keys that Milvus gave to the original's rows, and stop Milvus from giving them to new rows.

milvus-lite counts all rows that were ever inserted, and a new row gets this count as its key. An insert replaces the
stored row that has the same key. So after a copy, the count must be at least the largest stored key. If the count were
smaller, new rows could replace stored rows. (milvus-lite 3.2.2: `Collection.insert` in
milvus_lite/engine/collection.py.)

A server takes the numbers from its clock. It accepts keys from the caller if the collection has the property
allow_insert_auto_id.
"""

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.copying.definition import GIVEN_KEYS, Definition, call
from splade_integrations.milvus.copying.table import Table
from splade_integrations.milvus.filters import Engine

with require_extra("milvus", module=__name__):
    from pymilvus import DataType

__all__ = ["check_numbering", "finish_numbering"]

_MOST_EXTRA_INSERTS = 100_000


def check_numbering(definition: Definition, original: Table, target: Connection) -> None:
    """Raise a ValueError if the engine of the copy could give a stored key to a new row.

    Args:
        definition: The original.
        original: The rows of the original.
        target: The server or file of the copy.
    """
    if not definition.auto_id or target.engine is Engine.SERVER:
        return
    if definition.fields[definition.primary]["type"] != DataType.INT64:
        raise ValueError(
            f"the keys of collection {definition.name!r}, whose rows Milvus numbers, must be of type INT64 to be "
            "kept on milvus-lite, got strings. Copy the collection to a Milvus server."
        )
    rows, largest = _rows_and_largest(original)
    if largest - rows > max(_MOST_EXTRA_INSERTS, rows):
        raise ValueError(
            f"the keys of collection {definition.name!r}, whose rows Milvus numbers, must not be far above the number "
            f"of its rows ({rows}) to be kept on milvus-lite, got the key {largest}. milvus-lite would give stored "
            "keys to new rows. Copy the collection to a Milvus server."
        )


def finish_numbering(definition: Definition, copy: Table, rows: int) -> None:
    """Make sure that the engine gives no stored key to a new row.

    Args:
        definition: The original.
        copy: The rows of the copy, with all fields that a write needs.
        rows: The number of rows in the copy. At least this many rows have been inserted into the copy.
    """
    if not definition.auto_id:
        return
    if copy.connection.engine is Engine.SERVER:
        allowed = definition.properties.get(GIVEN_KEYS, "false")
        call(
            copy.connection,
            "alter_collection_properties",
            collection_name=copy.name,
            properties={GIVEN_KEYS: allowed},
        )
        return
    _, largest = _rows_and_largest(copy)
    missing = largest - rows
    for partition in copy.partitions():
        page, _ = copy.page(partition, None)
        while page and missing > 0:
            copy.write(page[:missing], partition)  # only increases the count: the same rows are stored already
            missing -= len(page)
    copy.flush_lite()


def _rows_and_largest(table: Table) -> tuple[int, int]:
    rows = largest = 0
    for partition in table.partitions():
        for page in table.pages(partition, fields=[table.primary]):
            rows += len(page)
            largest = max([largest, *(row[table.primary] for row in page)])
    return rows, largest
