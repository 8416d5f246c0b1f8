"""A document as Milvus's row and back: ids, text, metadata, vectors, checked before anything is sent.

Metadata comes back as it was given, or is refused with the document and the key named. Knows no client.
"""

import math
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.defaults import check_varchar
from splade_integrations.milvus.schema import Fields

with require_extra("milvus", module=__name__):
    from pymilvus import DataType

__all__ = ["Hit", "Row", "check_ids", "check_metadata", "check_rows", "entity_of", "hit_of", "key_of"]

_INT64 = range(-(2**63), 2**63)
_INTEGERS = (DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A document to write.

    Args:
        text: Its text.
        id: Its id, or None for one that is made, or numbered by Milvus.
        metadata: What JSON can hold.
        dense, sparse: Its vectors: floats, and {token id: weight}.
        columns: Values of the caller's own columns.
    """

    text: str
    id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    dense: Sequence[float] | None = None
    sparse: Mapping[int, float] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A document found.

    Args:
        id: Its id; a number's digits where Milvus numbers the rows.
        score: Of the search; 0.0 if it was not found by one.
        text: Its text.
        metadata: As given.
        columns: Values of the caller's own columns.
        dense: Its dense vector, if asked for.
    """

    id: str
    score: float
    text: str
    metadata: dict[str, Any]
    columns: dict[str, Any]
    dense: list[float] | None = None


def check_ids(ids: Sequence[str | None]) -> None:
    """Raise if these cannot be the ids of one call.

    Raises:
        TypeError: One is neither a str nor None.
        ValueError: One is empty, no valid Unicode, or there twice.
    """
    for position, value in enumerate(ids):
        if value is None:
            continue
        if not isinstance(value, str):
            raise TypeError(
                f"ids[{position}] must be a str, got {type(value).__name__}. Give each document a str, or none."
            )
        check_varchar(value, f"ids[{position}]", "Shorten it.")
        if not value:
            raise ValueError(f"ids[{position}] must not be empty, got ''. Give the document another id, or none.")
    given = Counter(value for value in ids if value is not None)
    value, times = max(given.items(), key=lambda item: item[1], default=("", 0))
    if times > 1:
        raise ValueError(f"ids must differ within a call, got {value!r} {times} times. Drop or rename the others.")


def check_rows(rows: Sequence[Row], *, metadata: bool = True) -> None:
    """Raise if rows cannot be written to any collection. `entity_of` checks what depends on the collection.

    Args:
        rows: The rows.
        metadata: Whether to check their metadata; `entity_of` does as well.
    Raises:
        TypeError, ValueError: An id, a text or a value of the metadata; its position is named.
    """
    check_ids([row.id for row in rows])
    for position, row in enumerate(rows):
        check_varchar(row.text, f"texts[{position}]")
        if metadata:
            check_metadata(row.metadata, f"metadatas[{position}]")


def check_metadata(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a copy of metadata as JSON holds it, or raise for what it cannot hold.

    Numbers of numpy become Python's. A tuple or a datetime is refused, as it would come back as something else.

    Args:
        metadata: The metadata.
        name: What the message calls it, such as `metadatas[3]`.
    Raises:
        TypeError, ValueError: A value is none of JSON's; its keys are named.

    Example:
        >>> check_metadata({"year": 1936, "tags": ["logic"]}, "metadatas[0]")
        {'year': 1936, 'tags': ['logic']}
        >>> check_metadata({"path": {1, 2}}, "metadatas[0]")
        Traceback (most recent call last):
        TypeError: metadatas[0]['path'] must be what JSON can hold (…), got set {1, 2}. …
    """
    if not isinstance(metadata, Mapping):
        raise TypeError(f"{name} must be a dict, got {type(metadata).__name__}. Give {{}} for none.")
    plain: dict[str, Any] = _plain(metadata, (name,))
    return plain


def key_of(value: str, fields: Fields) -> Any:
    """Return an id as the collection has it, or None if it can have no such id.

    Raises:
        TypeError: It is not a str.
    """
    if not isinstance(value, str):
        raise TypeError(f"an id must be a str, got {type(value).__name__} {value!r}. Give the id that was returned.")
    if not fields.primary_is_number:
        return value
    return int(value) if value.removeprefix("-").isdecimal() and value.isascii() and int(value) in _INT64 else None


def entity_of(row: Row, position: int, fields: Fields) -> dict[str, Any]:
    """Return a row as `MilvusClient.insert` takes it.

    Args:
        row: The row. Without an id it gets one, unless Milvus numbers the rows.
        position: Its place in the call, for messages.
        fields: Of the collection.
    Raises:
        TypeError, ValueError: Its metadata or its id do not fit the collection.
    """
    metadata = check_metadata(row.metadata, f"metadatas[{position}]")
    entity: dict[str, Any] = {fields.text: row.text}
    if fields.other_vectors:
        raise ValueError(
            f"collection {fields.collection_name!r} must be written with all its vectors, got none for "
            f"{fields.other_vectors[0]!r}. Open it with that side as well, or take another collection_name."
        )
    if "dense" in fields.sides and row.dense is not None:
        entity[fields.sides["dense"]] = row.dense
    if "sparse" in fields.sides and row.sparse is not None:
        entity[fields.sides["sparse"]] = row.sparse
    if not fields.auto_id:
        entity[fields.primary] = _primary(row.id, position, fields)
    elif row.id is not None:
        raise ValueError(
            f"ids[{position}] must be None, as collection {fields.collection_name!r} numbers its rows itself, "
            f"got {row.id!r}. Add without ids, or take another collection_name."
        )
    for name, (_, nullable) in fields.columns.items():
        entity[name] = row.columns.get(name, None if nullable else "")
    for name, value in row.columns.items():
        if name in fields.columns or value is None:
            continue
        if not fields.dynamic:
            raise ValueError(
                f"collection {fields.collection_name!r} must have the field {name!r}, which documents are kept in, got "
                "neither it nor a dynamic field. Take another collection_name."
            )
        entity[name] = value
    for name, (kind, nullable) in fields.typed.items():
        entity[name] = _typed(metadata, name, kind, nullable, position, fields)
    if fields.metadata is not None:
        entity[fields.metadata] = metadata
        if fields.dynamic:  # copies, so that an expression of Milvus's may name a key as it is: year > 2000
            entity |= {key: value for key, value in metadata.items() if key not in fields.names and key[:1] != "$"}
        return entity
    for key, value in metadata.items():
        if key in fields.typed:
            continue
        if not fields.dynamic:
            known = ", ".join(fields.typed) or "none"
            raise ValueError(
                f"metadatas[{position}] must use the keys that collection {fields.collection_name!r} has fields for "
                f"({known}), got {key!r}. Drop it, or take another collection_name."
            )
        if key in fields.names or key in row.columns or key.startswith("$"):
            raise ValueError(
                f"metadatas[{position}] must not use the collection's field names, got {key!r}, as collection "
                f"{fields.collection_name!r} keeps metadata beside them. Rename the key, or take another "
                "collection_name: a new collection takes any key."
            )
        entity[key] = value
    return entity


def hit_of(key: Any, score: float, entity: Mapping[str, Any], fields: Fields, columns: Sequence[str]) -> Hit:
    """Return what was found as a document.

    Args:
        key: Its primary key.
        score: Its score.
        entity: {field or dynamic key: value}.
        fields: Of the collection.
        columns: Names of the caller's own columns, which may be dynamic keys here.
    """
    if fields.metadata is not None:  # fields beside it are copies of its keys, or another face's own
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
                f"ids[{position}] must be given, as collection {fields.collection_name!r} has numbers of the user's "
                "for ids, got None. Give each document an id."
            )
        return str(uuid.uuid4())
    key = key_of(value, fields)
    if key is None:
        raise ValueError(
            f"ids[{position}] must be the digits of a number, as collection {fields.collection_name!r} has INT64 ids, "
            f"got {value!r}. Rename it, or take another collection_name."
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
                f"metadatas[{position}] must have a value under {name!r}, which collection {fields.collection_name!r} "
                "has a field for that takes no null, got none. Give it one."
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


def _plain(value: Any, path: tuple[Any, ...]) -> Any:
    """Return a copy of what JSON can hold, numbers of numpy as Python's; raise for what it cannot."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item(), path)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as err:
            raise ValueError(
                f"{_place(path)} must be valid Unicode, got a lone surrogate. Replace it: "
                "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')."
            ) from err
        return str.__str__(value)
    if isinstance(value, int):
        if value not in _INT64:
            raise ValueError(f"{_place(path)} must fit 64 bits, got {value}. Make it a str.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{_place(path)} must be a number of JSON, got {value}. Drop it, or use None.")
        return float(value)
    if isinstance(value, list):
        return [_plain(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(
                    f"the keys of {_place(path)} must be str, got {type(key).__name__} {key!r}. Convert it."
                )
            _plain(key, (*path, key))
        return {str.__str__(key): _plain(item, (*path, key)) for key, item in value.items()}
    raise TypeError(
        f"{_place(path)} must be what JSON can hold (str, int, float, bool, None, list, dict), got "
        f"{type(value).__name__} {value!r:.80}. Convert it, to a str or a list."
    )


def _place(path: tuple[Any, ...]) -> str:
    name, *keys = path
    return f"{name}" + "".join(f"[{key!r}]" for key in keys)
