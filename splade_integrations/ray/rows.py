"""Turns the rows of any Ray dataset into prepared rows.

A prepared row has an id, a text and metadata, and an error if it cannot be indexed.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from splade_integrations.milvus.defaults import MAX_TEXT_BYTES, cut_text
from splade_integrations.records import Record, RecordError
from splade_integrations.records.values import plain

__all__ = [
    "CUT",
    "DENSE",
    "DOCUMENT",
    "ERROR",
    "ID",
    "METADATA",
    "SECONDS",
    "SKIPPED",
    "SPARSE",
    "TEXT",
    "Columns",
    "as_table",
    "good_rows",
    "mark",
    "without_repeated_ids",
]

# The columns of prepared rows. METADATA is a JSON text. If the text is a chunk of a document, DOCUMENT is the id of
# that document. For other texts, it is null. ERROR is the reason why a row is left out, or null. CUT is true if the
# text was too long for Milvus. SKIPPED is true if the row is stored already.
ID, TEXT, METADATA, DOCUMENT = "id", "text", "metadata", "document"
ERROR, CUT, SKIPPED = "error", "cut", "skipped"
# The columns that the encoding stage adds.
SPARSE, DENSE, SECONDS = "sparse", "dense", "seconds"

_SCHEMA = pa.schema(
    [
        (ID, pa.string()),
        (TEXT, pa.string()),
        (METADATA, pa.string()),
        (DOCUMENT, pa.string()),
        (ERROR, pa.string()),
        (CUT, pa.bool_()),
        (SKIPPED, pa.bool_()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a dataset that become the ids, texts and metadata of documents.

    Args:
        id: The column of the ids. An id is a string, or an integer that becomes a string of digits. Each id may occur
            only once.
        text: The column of the texts.
        metadata: The columns that become metadata. None means all other columns.
    """

    id: str = "id"
    text: str = "text"
    metadata: Sequence[str] | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the prepared rows for a batch of the dataset.

        Raises:
            ValueError, TypeError: A column is missing, or the ids are neither strings nor integers.
        """
        named = [self.id, self.text, *(self.metadata or ())]
        if missing := [name for name in named if name not in table.column_names]:
            raise ValueError(
                f"the dataset must have the column {missing[0]!r}, got the columns {', '.join(table.column_names)}. "
                "Name the right columns with id_column, text_column and metadata_columns."
            )
        kind = table[self.id].type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
            raise TypeError(
                f"the column {self.id!r} must hold strings or integers, got {kind}. Ray's default batches turn "
                "integers into floats if there is a null among them. In that case, use batch_format='pyarrow' before "
                "this call."
            )
        names = self.metadata
        if names is None:
            names = [name for name in table.column_names if name not in (self.id, self.text)]
        ids, texts = table[self.id].cast(pa.string()).to_pylist(), table[self.text].to_pylist()
        values = table.select(list(names)).to_pylist() if names else [{}] * len(table)
        return _table((key, text, some, None) for key, text, some in zip(ids, texts, values, strict=True))


def as_table(records: Iterable[Record]) -> pa.Table:
    """Return the prepared rows for some records."""
    return _table((record.id, record.text, record.metadata, record.document) for record in records)


def good_rows(table: pa.Table) -> list[int]:
    """Return the positions of the rows that must be written."""
    left_out = zip(table[ERROR].to_pylist(), table[SKIPPED].to_pylist(), strict=True)
    return [row for row, (reason, skipped) in enumerate(left_out) if reason is None and not skipped]


def mark(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """Return the table with new values in a column."""
    return table.set_column(table.column_names.index(name), name, values)


def without_repeated_ids(table: pa.Table) -> pa.Table:
    """Return the batch, with an error in each row that repeats the id of an earlier row.

    Milvus refuses repeated ids in a batch.
    """
    ids, reasons = table[ID].to_pylist(), table[ERROR].to_pylist()
    seen: set[str] = set()
    for row, identifier in enumerate(ids):
        if reasons[row] is None and identifier in seen:
            reasons[row] = f"the id must differ from the ids of all other rows, got {identifier!r} again"
        seen.add(identifier)
    return mark(table, ERROR, pa.array(reasons, pa.string()))


def _table(rows: Iterable[tuple[Any, Any, Any, str | None]]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    for identifier, text, values, document in rows:
        metadata, reason = "{}", _reason(identifier, text)
        if reason is None and values:
            try:
                kept = {name: plain(value, f"row {identifier!r}", name) for name, value in values.items()}
                metadata = json.dumps({name: value for name, value in kept.items() if value is not None})
            except RecordError as err:
                reason = str(err)
        kept_text = cut_text(text) if isinstance(text, str) else None
        cut = kept_text is not None and len(kept_text) < len(text)
        columns[ID].append(identifier)
        columns[TEXT].append(kept_text)
        columns[METADATA].append(metadata)
        columns[DOCUMENT].append(document)
        columns[ERROR].append(reason)
        columns[CUT].append(cut)
        columns[SKIPPED].append(False)
    return pa.table(columns, schema=_SCHEMA)


def _reason(identifier: Any, text: Any) -> str | None:
    if not identifier:
        return f"the id must not be empty, got {identifier!r}"
    if not isinstance(text, str):
        return f"the text must be a str, got {type(text).__name__}"
    if len(identifier.encode()) > MAX_TEXT_BYTES:
        return f"the id must be at most {MAX_TEXT_BYTES} bytes of UTF-8, got {len(identifier.encode())}"
    return None
