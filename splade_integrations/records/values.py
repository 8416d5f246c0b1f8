"""Turns the values of a file's fields into metadata: values of plain JSON types, which every store can hold."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from splade_integrations.records.record import RecordError

__all__ = ["number_columns", "plain", "valid_unicode"]

_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_INT64 = range(-(2**63), 2**63)


def plain(value: Any, place: str, name: str) -> Any:
    """Return a value in plain JSON types.

    Dates and times become texts in ISO 8601, and decimals become floats. NaN becomes None, because it stands for a
    missing number in many Parquet files. Lone surrogates in texts become question marks.

    Args:
        value: The value of a field.
        place: The file and the line, for the message.
        name: The field, for the message.
    Raises:
        RecordError: No JSON type can hold the value, or it is a number that no store can hold.

    Example:
        >>> plain({"born": date(1912, 6, 23), "height": float("nan")}, "people.parquet, row 1", "person")
        {'born': '1912-06-23', 'height': None}
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return valid_unicode(value)
    if isinstance(value, int):
        if value in _INT64:
            return value
        raise _unfit(place, name, "a number of at most 64 bits", str(value))
    if isinstance(value, float | Decimal):
        number = float(value)
        if math.isinf(number):
            raise _unfit(place, name, "a finite number", str(value))
        return None if math.isnan(number) else number
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [plain(item, place, name) for item in value]
    if isinstance(value, Mapping):
        return {valid_unicode(str(key)): plain(item, place, name) for key, item in value.items()}
    raise _unfit(place, name, "a value that JSON can hold", f"{type(value).__name__} {value!r:.40}")


def valid_unicode(text: str) -> str:
    """Return `text` with a question mark in place of each lone surrogate, which no file or store can hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def number_columns(rows: Iterable[Mapping[str, str]]) -> dict[str, type[int] | type[float]]:
    """Return {column: int or float} for the columns of a CSV file that hold only numbers. Empty cells are ignored.

    Numbers must be written as in JSON, which allows no leading zeros. So a column of postcodes, such as 01067, is not a
    column of numbers.

    Args:
        rows: The rows. They are all read.

    Example:
        >>> number_columns([{"year": "1936", "code": "01067", "price": "2"}, {"year": "", "code": "1", "price": "0.5"}])
        {'year': <class 'int'>, 'price': <class 'float'>}
    """
    kinds: dict[str, type | None] = {}
    for row in rows:
        for name, value in row.items():
            if value != "" and kinds.get(name, int) is not None:
                kind = _kind(value)
                kinds[name] = float if {kind, kinds.get(name, int)} == {int, float} else kind
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _kind(value: str) -> type[int] | type[float] | None:
    if len(value) < 20 and _INTEGER.fullmatch(value) and int(value) in _INT64:
        return int
    return float if _NUMBER.fullmatch(value) and not _INTEGER.fullmatch(value) and math.isfinite(float(value)) else None


def _unfit(place: str, name: str, rule: str, found: str) -> RecordError:
    return RecordError(
        f"{place}: {name!r} must be {rule}, got {found[:80]}. Change the value, or list the fields to keep with "
        "--keep, and leave this field out."
    )
