"""Turn documents into Milvus rows and back, and check ids and texts before anything is sent. It needs no client."""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.defaults import check_varchar
from splade_integrations.milvus.schema import Fields
from splade_integrations.milvus.values import INT64, check_metadata, sparse_row

with require_extra("milvus", module=__name__):
    from pymilvus import DataType

__all__ = ["Hit", "Row", "check_ids", "check_rows", "entity_of", "hit_of", "key_of"]

_INTEGERS = (DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A document to write.

    Args:
        text: The document's text.
        id: The document's id. None means that this package makes one, or Milvus if it numbers the rows.
        metadata: Any values that JSON can hold.
        dense, sparse: The document's vectors: floats, and {token id: weight}.
        columns: The values of the columns that the caller has added to the schema.
    """

    text: str
    id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    dense: Sequence[float] | None = None
    sparse: Mapping[int, float] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A document that Milvus returned.

    Args:
        id: The document's id. It holds a number's digits if the collection's ids are numbers.
        score: The score in the search; 0.0 if the document was read without a search.
        text: The document's text.
        metadata: The metadata as it was given.
        columns: The values of the columns that the caller has added to the schema.
        dense: The dense vector, if it was asked for.
    """

    id: str
    score: float
    text: str
    metadata: dict[str, Any]
    columns: dict[str, Any]
    dense: list[float] | None = None


def check_ids(ids: Sequence[str | None]) -> None:
    """Raise if these ids cannot be written in one call.

    Raises:
        TypeError: An id is neither a str nor None.
        ValueError: An id is empty, is not valid Unicode, is too long, or occurs twice.
    """
    for position, value in enumerate(ids):
        if value is None:
            continue
        if not isinstance(value, str):
            raise TypeError(
                f"ids[{position}] must be a str, got {type(value).__name__}. Give each document a str, or None."
            )
        check_varchar(value, f"ids[{position}]", "Shorten it.")
        if not value:
            raise ValueError(f"ids[{position}] must not be empty, got ''. Give the document another id, or None.")
    given = Counter(value for value in ids if value is not None)
    value, times = max(given.items(), key=lambda item: item[1], default=("", 0))
    if times > 1:
        raise ValueError(f"ids must differ within a call, got {value!r} {times} times. Drop or rename the others.")


def check_rows(rows: Sequence[Row], *, metadata: bool = True) -> None:
    """Raise if rows cannot be written to any collection. `entity_of` checks the rules of the particular collection.

    Args:
        rows: The rows.
        metadata: Whether to check the metadata. `entity_of` checks it anyway.
    Raises:
        TypeError, ValueError: An id, a text or a metadata value is wrong. The message names its position.
    """
    check_ids([row.id for row in rows])
    for position, row in enumerate(rows):
        check_varchar(row.text, f"texts[{position}]")
        if metadata:
            check_metadata(row.metadata, f"metadatas[{position}]")


def key_of(value: str, fields: Fields) -> Any:
    """Return an id in the collection's type, or None if the collection cannot hold such an id.

    Raises:
        TypeError: The id is not a str.
    """
    if not isinstance(value, str):
        raise TypeError(f"an id must be a str, got {type(value).__name__} {value!r}. Give the id that was returned.")
    if not fields.primary_is_number:
        return value
    return int(value) if value.removeprefix("-").isdecimal() and value.isascii() and int(value) in INT64 else None


def entity_of(row: Row, position: int, fields: Fields) -> dict[str, Any]:
    """Return a row in the form that `MilvusClient.insert` takes.

    Args:
        row: The row. A row without an id gets one, unless Milvus numbers the rows.
        position: The row's position in the call, for messages.
        fields: The collection's fields.
    Raises:
        TypeError, ValueError: The metadata or the id does not fit the collection.
    """
    metadata = check_metadata(row.metadata, f"metadatas[{position}]")
    entity: dict[str, Any] = {fields.text: row.text}
    if fields.other_vectors:
        raise ValueError(
            f"collection {fields.collection_name!r} must get a vector for each vector field, got none for "
            f"{fields.other_vectors[0]!r}. Open it with that side as well, or use another collection_name."
        )
    if "dense" in fields.sides and row.dense is not None:
        entity[fields.sides["dense"]] = row.dense
    if "sparse" in fields.sides and row.sparse is not None:
        entity[fields.sides["sparse"]] = sparse_row(row.sparse, position)
    if not fields.auto_id:
        entity[fields.primary] = _primary(row.id, position, fields)
    elif row.id is not None:
        raise ValueError(
            f"ids[{position}] must be None, because Milvus numbers the rows of collection {fields.collection_name!r}, "
            f"got {row.id!r}. Add without ids, or use another collection_name."
        )
    for name, (_, nullable) in fields.columns.items():
        entity[name] = row.columns.get(name, None if nullable else "")
    for name, value in row.columns.items():
        if name in fields.columns or value is None:
            continue
        if not fields.dynamic:
            raise ValueError(
                f"collection {fields.collection_name!r} must have the field {name!r} or a dynamic field, which the "
                "store needs for documents, got neither. Use another collection_name."
            )
        entity[name] = value
    for name, (kind, nullable) in fields.typed.items():
        entity[name] = _typed(metadata, name, kind, nullable, position, fields)
    if fields.metadata is not None:
        entity[fields.metadata] = metadata
        if fields.dynamic:  # copies, so that a Milvus expression can use a key's bare name: year > 2000
            entity |= {key: value for key, value in metadata.items() if key not in fields.names and key[:1] != "$"}
        return entity
    for key, value in metadata.items():
        if key in fields.typed:
            continue
        if not fields.dynamic:
            known = ", ".join(fields.typed) or "none"
            raise ValueError(
                f"metadatas[{position}] must use the keys that collection {fields.collection_name!r} has fields for "
                f"({known}), got {key!r}. Drop it, or use another collection_name."
            )
        if key in fields.names or key in row.columns or key.startswith("$"):
            raise ValueError(
                f"metadatas[{position}] must not use a field name or a key that starts with $, got {key!r}. Collection "
                f"{fields.collection_name!r} keeps metadata keys next to its fields. Rename the key, or use another "
                "collection_name: a new collection takes any key."
            )
        entity[key] = value
    return entity


def hit_of(key: Any, score: float, entity: Mapping[str, Any], fields: Fields, columns: Sequence[str]) -> Hit:
    """Return a row that Milvus returned as a document.

    Args:
        key: The primary key.
        score: The score.
        entity: {field or dynamic key: value}.
        fields: The collection's fields.
        columns: The names of the caller's additional columns. In this collection they may be dynamic keys.
    """
    if fields.metadata is not None:  # the other fields are copies of its keys, or belong to the other framework
        metadata = dict(entity.get(fields.metadata) or {})
    else:
        others = {fields.primary, fields.text, *fields.sides.values(), *columns}
        metadata = {
            name: value
            for name, value in entity.items()
            if name not in others and (value is not None or name not in fields.typed)
        }
    dense = entity.get(fields.sides["dense"]) if "dense" in fields.sides else None
    return Hit(
        id=str(key),
        score=score,
        text=entity.get(fields.text) or "",
        metadata=metadata,
        columns={name: entity[name] for name in columns if name in entity},
        dense=None if dense is None else [float(number) for number in dense],
    )


def _primary(value: str | None, position: int, fields: Fields) -> Any:
    if value is None:
        if fields.primary_is_number:
            raise ValueError(
                f"ids[{position}] must be given, because the ids of collection {fields.collection_name!r} are numbers "
                "that the user chooses, got None. Give each document an id."
            )
        return str(uuid.uuid4())
    key = key_of(value, fields)
    if key is None:
        raise ValueError(
            f"ids[{position}] must be the digits of a number, because collection {fields.collection_name!r} has INT64 "
            f"ids, got {value!r}. Rename it, or use another collection_name."
        )
    if not fields.primary_is_number:
        check_varchar(value, f"ids[{position}]", "Shorten it.", fields.max_lengths.get(fields.primary, 65_535))
    return key


def _typed(
    metadata: Mapping[str, Any], name: str, kind: DataType, nullable: bool, position: int, fields: Fields
) -> Any:
    value = metadata.get(name)
    if value is None:
        if not nullable:
            raise ValueError(
                f"metadatas[{position}] must have a value under {name!r}, because that field of collection "
                f"{fields.collection_name!r} takes no null, got none. Add a value."
            )
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    right = {
        DataType.BOOL: isinstance(value, bool),
        DataType.FLOAT: number,
        DataType.DOUBLE: number,
        DataType.VARCHAR: isinstance(value, str),
        DataType.ARRAY: isinstance(value, list),
        **dict.fromkeys(_INTEGERS, isinstance(value, int) and not isinstance(value, bool)),
    }.get(kind, True)
    if not right:
        raise TypeError(
            f"metadatas[{position}][{name!r}] must fit the collection's field of type {kind.name}, got "
            f"{type(value).__name__} {value!r}. Convert it."
        )
    if kind == DataType.VARCHAR:
        limit = fields.max_lengths.get(name, 65_535)
        check_varchar(value, f"metadatas[{position}][{name!r}]", "Shorten it.", limit)
    return value
