"""Turn documents into Milvus rows and back, and check ids and texts before they are sent.

This module needs no client.
"""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.bm25 import ENGLISH, split_words
from splade_integrations.milvus.defaults import check_varchar, cut_text
from splade_integrations.milvus.fields import Fields
from splade_integrations.milvus.values import INT64, UncheckedText, check_dense, check_metadata, sparse_row

with require_extra("milvus", module=__name__):
    from pymilvus import DataType

__all__ = ["Hit", "Row", "check_ids", "check_rows", "entity_of", "hit_of", "key_of"]

_INTEGERS = (DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A document to write.

    Args:
        text: The document's text.
        id: The document's id. None means that the document gets a new id. Milvus makes this id if the collection was
            created with `auto_id`. Otherwise, this package makes it.
        metadata: {key: any value that JSON can hold}.
        dense: The document's dense vector.
        sparse: The document's sparse vector: {token id: weight}.
        columns: {name: value} for the columns that the caller has added to the schema.
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
        id: The document's id. If the collection's ids are numbers, this is the number as a str of digits.
        score: The score in the search. It is 0.0 if the document was read without a search.
        text: The document's text.
        metadata: The metadata as it was given.
        columns: {name: value} for the columns that the caller has added to the schema.
        dense: The dense vector, if the caller asked for it.
        sparse: The sparse vector, if the caller asked for it.
    """

    id: str
    score: float
    text: str
    metadata: dict[str, Any]
    columns: dict[str, Any]
    dense: list[float] | None = None
    sparse: dict[int, float] | None = None


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
                f"ids[{position}] must be a str or None, got {type(value).__name__}. Convert it to a str, or give None."
            )
        check_varchar(value, f"ids[{position}]", "Shorten it.")
        if not value:
            raise ValueError(f"ids[{position}] must not be empty, got ''. Give the document another id, or None.")
    given = Counter(value for value in ids if value is not None)
    value, times = max(given.items(), key=lambda item: item[1], default=("", 0))
    if times > 1:
        raise ValueError(f"ids must differ within a call, got {value!r} {times} times. Give each document its own id.")


def check_rows(rows: Sequence[Row], *, metadata: bool = True) -> None:
    """Raise if no collection could hold these rows. `entity_of` checks what one particular collection can hold.

    Args:
        rows: The rows.
        metadata: Whether to check the metadata. This is unnecessary before `entity_of`, which checks it as well.
    Raises:
        TypeError, ValueError: An id, a text or a metadata value is wrong. The message names the row's position.
    """
    check_ids([row.id for row in rows])
    for position, row in enumerate(rows):
        check_varchar(row.text, f"texts[{position}]")
        if metadata:
            check_metadata(row.metadata, f"metadatas[{position}]")


def key_of(value: str, fields: Fields) -> Any:
    """Convert an id to the type of the collection's ids, int or str. Return None if the collection cannot hold it.

    Raises:
        TypeError: The id is not a str.
    """
    if not isinstance(value, str):
        raise TypeError(f"an id must be a str, got {type(value).__name__} {value!r}. Give the id as a str.")
    if not fields.primary_is_number:
        return value
    return int(value) if value.removeprefix("-").isdecimal() and value.isascii() and int(value) in INT64 else None


def entity_of(row: Row, position: int, fields: Fields) -> dict[str, Any]:
    """Return a row in the form that `MilvusClient.insert` accepts.

    Args:
        row: The row. If Milvus does not make the ids, a row without an id gets a new id here.
        position: The row's position in the call, for messages.
        fields: The collection's fields.
    Raises:
        TypeError, ValueError: The metadata or the id does not fit the collection.
    """
    metadata = check_metadata(row.metadata, f"metadatas[{position}]")
    entity: dict[str, Any] = {fields.text: UncheckedText(row.text)}
    if fields.bm25_words is not None:
        entity[fields.bm25_words] = UncheckedText(
            cut_text(" ".join(split_words(row.text, fields.bm25_language or ENGLISH)))
        )
    if fields.other_vectors:
        raise ValueError(
            f"each row of collection {fields.collection_name!r} must get a vector for each vector field, got none for "
            f"{fields.other_vectors[0]!r}. Name that field when you open the collection, or use another "
            "collection_name."
        )
    if "dense" in fields.sides and row.dense is not None:
        entity[fields.sides["dense"]] = check_dense(row.dense, f"texts[{position}]")
    if "sparse" in fields.sides and row.sparse is not None:
        entity[fields.sides["sparse"]] = sparse_row(row.sparse, position)
    if not fields.auto_id:
        entity[fields.primary] = _primary(row.id, position, fields)
    elif row.id is not None:
        raise ValueError(
            f"ids[{position}] must be None, got {row.id!r}. Milvus numbers the rows of collection "
            f"{fields.collection_name!r}. Leave out the ids, or use another collection_name."
        )
    for name, (_, nullable) in fields.columns.items():
        value = row.columns.get(name, None if nullable else "")
        entity[name] = UncheckedText(value) if isinstance(value, str) else value
    for name, value in row.columns.items():
        if name in fields.columns or value is None:
            continue
        if not fields.dynamic:
            raise ValueError(
                f"collection {fields.collection_name!r} must have the field {name!r} or a dynamic field, got neither. "
                "The store keeps a value for each document under this name. Use another collection_name."
            )
        entity[name] = value
    for name, (kind, nullable) in fields.typed.items():
        entity[name] = _typed(metadata, name, kind, nullable, position, fields)
    if fields.metadata is not None:
        entity[fields.metadata] = metadata
        if fields.dynamic:  # also copy each key, so that a Milvus expression can use its bare name: year > 2000
            entity |= {key: value for key, value in metadata.items() if key not in fields.names and key[:1] != "$"}
        return entity
    for key, value in metadata.items():
        if key in fields.typed:
            continue
        if not fields.dynamic:
            known = ", ".join(fields.typed) or "none"
            raise ValueError(
                f"metadatas[{position}] must use the keys for which collection {fields.collection_name!r} has fields "
                f"({known}), got {key!r}. Drop that key, or use another collection_name."
            )
        if key in fields.names or key in row.columns or key.startswith("$"):
            raise ValueError(
                f"metadatas[{position}] must have no key that is a field name or starts with $, got {key!r}. In "
                f"collection {fields.collection_name!r}, a metadata key and a field cannot have the same name. Rename "
                "the key, or use another collection_name: a new collection takes any key."
            )
        entity[key] = value
    return entity


def hit_of(key: Any, score: float, entity: Mapping[str, Any], fields: Fields, columns: Sequence[str]) -> Hit:
    """Turn a row that Milvus returned into a document.

    Args:
        key: The primary key.
        score: The score.
        entity: The row: {field or dynamic key: value}.
        fields: The collection's fields.
        columns: The names of the caller's additional columns. The collection may hold them as dynamic keys.
    """
    # If there is a metadata field, the metadata is read only from this field. The other fields hold copies of its
    # values, or columns that another store has added.
    if fields.metadata is not None:
        metadata = dict(entity.get(fields.metadata) or {})
    else:
        others = {fields.primary, fields.text, *fields.sides.values(), *columns}
        metadata = {
            name: value
            for name, value in entity.items()
            if name not in others and (value is not None or name not in fields.typed)
        }
    dense = entity.get(fields.sides["dense"]) if "dense" in fields.sides else None
    sparse = entity.get(fields.sides["sparse"]) if "sparse" in fields.sides else None
    return Hit(
        id=str(key),
        score=score,
        text=entity.get(fields.text) or "",
        metadata=metadata,
        columns={name: entity[name] for name in columns if name in entity},
        dense=None if dense is None else [float(number) for number in dense],
        sparse=None if sparse is None else {int(term): float(weight) for term, weight in sparse.items()},
    )


def _primary(value: str | None, position: int, fields: Fields) -> Any:
    if value is None:
        if fields.primary_is_number:
            raise ValueError(
                f"ids[{position}] must be given, got None. Collection {fields.collection_name!r} has numbers as ids, "
                "and Milvus does not assign them. Give each document an id."
            )
        return str(uuid.uuid4())
    key = key_of(value, fields)
    if key is None:
        raise ValueError(
            f"ids[{position}] must be the digits of a 64-bit integer, got {value!r}. Collection "
            f"{fields.collection_name!r} has INT64 ids. Change the id, or use another collection_name."
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
                f"metadatas[{position}] must have a value under {name!r}, got none. The field of that name in "
                f"collection {fields.collection_name!r} cannot be null. Add a value."
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
