"""Find the fields for the texts and the SPLADE vectors of a collection, and add these vectors to rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from splade_integrations.adapter import document_terms
from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.copying.definition import Definition
from splade_integrations.milvus.copying.passes import Row
from splade_integrations.milvus.copying.table import Table
from splade_integrations.milvus.defaults import check_varchar
from splade_integrations.milvus.fingerprint import recorded
from splade_integrations.milvus.values import sparse_row
from splade_integrations.sparse import SparseTextEncoder, to_dicts

with require_extra("milvus", module=__name__):
    from pymilvus import DataType

__all__ = ["check_text", "field_to_fill", "filler", "new_field", "text_in"]

_NAMES = ("sparse", "splade", "splade_sparse", "splade_vector")


def filler(
    encoder: SparseTextEncoder,
    primary: str,
    text_field: str,
    text_of: Callable[[Mapping[str, Any]], str] | None,
) -> Callable[[Sequence[Row], str], list[Row]]:
    """Return a function that adds SPLADE vectors to rows. Its arguments are the rows, and the field for the vectors.

    Args:
        encoder: The encoder of the texts.
        primary: The name of the primary field.
        text_field: The field that holds the texts.
        text_of: Returns the text to encode for a row. None means the text of `text_field`.
    """

    def fill(rows: Sequence[Row], field: str) -> list[Row]:
        for row in rows:
            if field in row:
                raise ValueError(
                    f"the row {row[primary]!r} must have no dynamic key with the name of the new field, got {field!r}. "
                    "Give the new field another name, and begin another copy."
                )
        texts = [text_of(row) if text_of is not None else text_in(row, text_field, primary) for row in rows]
        made = to_dicts(encoder.encode_documents(texts))
        return [
            {**row, field: sparse_row(document_terms(terms, text), position)}
            for position, (row, terms, text) in enumerate(zip(rows, made, texts, strict=True))
        ]

    return fill


def check_text(definition: Definition, text_field: str) -> bool:
    """Return whether the original keeps the texts in a dynamic key, so that the copy needs a new field for them.

    Raises:
        ValueError: The texts are neither in a VARCHAR field nor in a dynamic key.
    """
    if text_field not in definition.fields and definition.dynamic:
        return True
    kind = definition.fields.get(text_field, {}).get("type")
    if kind != DataType.VARCHAR:
        found = ", ".join(f"{name} ({DataType(field['type']).name})" for name, field in definition.fields.items())
        raise ValueError(
            f"the texts of collection {definition.name!r} must be in a field of type VARCHAR, got {text_field!r}. "
            f"The collection has the fields {found}. Name the field that holds the texts."
        )
    return False


def text_in(row: Mapping[str, Any], text_field: str, primary: str) -> str:
    """Return the text of a row, or "" if the row has none."""
    text = row.get(text_field)
    if text is not None and not isinstance(text, str):
        raise TypeError(
            f"the text of each row must be a str, got {type(text).__name__} in {text_field!r} of the row "
            f"{row[primary]!r}. Correct the row, or name the field that holds the texts."
        )
    check_varchar(text or "", f"the text of the row {row[primary]!r}", "Shorten it.")
    return text or ""


def field_to_fill(definition: Definition, connection: Connection, wanted: str | None) -> str:
    """Return the name of the field to fill: a field of the original that gets new vectors, or a new field."""
    own = [
        name
        for name, field in definition.fields.items()
        if field["type"] == DataType.SPARSE_FLOAT_VECTOR and name not in definition.computed
    ]
    if wanted in own:
        return str(wanted)
    if wanted is None and len(own) == 1 and recorded(dict(definition.description)) is not None:
        return own[0]
    return new_field(definition, connection, wanted)


def new_field(definition: Definition, connection: Connection, wanted: str | None) -> str:
    """Return a name for a new field: a name that no field and no dynamic key of the collection has.

    Args:
        definition: The collection.
        connection: The server or file.
        wanted: The name that the user wants, or None for any free name.
    Raises:
        ValueError: The wanted name is taken.
    """
    taken = {*definition.fields, *_dynamic_keys(definition, connection)}
    if wanted in taken:
        raise ValueError(
            f"the new field must have a name that is not taken in collection {definition.name!r}, got {wanted!r}. Give "
            "it another name."
        )
    return wanted or next(name for name in _names() if name not in taken)


def _names() -> Iterator[str]:
    yield from _NAMES
    number = 2
    while True:
        yield f"{_NAMES[0]}_{number}"
        number += 1


def _dynamic_keys(definition: Definition, connection: Connection) -> set[str]:
    if not definition.dynamic:
        return set()
    table = Table.of(connection, definition.name, definition)
    fields = [definition.primary, "$meta"]
    return {
        key
        for partition in table.partitions()
        for page in table.pages(partition, fields=fields)
        for row in page
        for key in row
    }
