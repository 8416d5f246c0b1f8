"""The syntax of Milvus's expressions: names, literals and lists of ids.

Texts are escaped, so that a quotation mark in a text cannot end the literal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

# milvus-lite 2 understands only the first two of these escapes: see readable_by_lite2. Tabs need no escape.
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class FilterError(ValueError):
    """The filter is malformed, or the engine cannot answer it exactly. The message names the key and the operator."""


class Engine(StrEnum):
    """The kind of Milvus. The engines accept different expressions, and give some expressions different meanings."""

    LITE3 = "milvus-lite 3"
    LITE2 = "milvus-lite 2"
    SERVER = "server"

    @classmethod
    def of(cls, server_version: str | None) -> Engine:
        """Return the engine that `get_server_version()` names. None means milvus-lite 2, which does not have that call.

        Example:
            >>> Engine.of("milvus_lite-3.2.2").value, Engine.of("2.6.4").value, Engine.of(None).value
            ('milvus-lite 3', 'server', 'milvus-lite 2')
        """
        if server_version is None:
            return cls.LITE2
        lite = re.match(r"milvus[_-]lite\D*(\d+)", server_version, re.IGNORECASE)
        if lite is None:
            return cls.SERVER
        return cls.LITE2 if int(lite[1]) < 3 else cls.LITE3


@dataclass(frozen=True)
class Layout:
    """The fields in which a collection holds the values that a filter asks for.

    Args:
        primary: The primary field's name.
        primary_is_text: Whether primary keys are strings. Otherwise, they are int64.
        metadata: The JSON field that holds each document's metadata. It must not be nullable. None means that the
            metadata is in Milvus's dynamic field.
        columns: {metadata key: the `DataType` of its field, as an int} for the keys that have their own typed field.
        own: {field: its `DataType`, as an int} for the fields that hold no metadata. Only `Compare(…, column=True)`
            asks for these fields.
    """

    primary: str = "pk"
    primary_is_text: bool = True
    metadata: str | None = "metadata"
    columns: Mapping[str, int] = field(default_factory=dict)
    own: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Replace `columns` and `own` by read-only copies."""
        for fields in ("columns", "own"):
            kinds = {name: int(kind) for name, kind in getattr(self, fields).items()}
            object.__setattr__(self, fields, MappingProxyType(kinds))

    @property
    def document(self) -> str:
        """The JSON field that holds the metadata keys."""
        return "$meta" if self.metadata is None else self.metadata


def quote(text: str) -> str:
    r"""Return the string literal that stands for exactly this text in a Milvus expression.

    Example:
        >>> print(quote('C:\\new "draft"'))
        "C:\\new \"draft\""
    """
    return f'"{text.translate(_ESCAPES)}"'


def ids_expr(
    field: str, ids: Iterable[str | int], engine: Engine | None = None, *, negated: bool = False, is_text: bool = True
) -> str:
    """Return the expression for the rows with one of these primary keys, or for all other rows if negated.

    Args:
        field: The primary field's name.
        ids: Primary keys. An empty list matches no row, or all rows if negated.
        engine: The engine. A key that the engine cannot read in an expression is refused. None accepts every key.
        negated: Whether to match the rows with other keys instead.
        is_text: Whether the field holds strings rather than int64. The expression for an empty list depends on this.

    Raises:
        TypeError: An id is neither a str nor an int.
        FilterError: The engine cannot read a key in an expression.

    Example:
        >>> print(ids_expr("pk", ["it's", "b"]))
        pk in ["it's", "b"]
        >>> print(ids_expr("pk", []))
        (pk == "a" and pk == "b")
    """
    keys = list(ids)
    for position, key in enumerate(keys):
        if not isinstance(key, (str, int)) or isinstance(key, bool):
            raise TypeError(f"ids[{position}] must be a str or an int, got {type(key).__name__}.")
        if engine is Engine.LITE2 and isinstance(key, str) and not readable_by_lite2(key):
            raise FilterError(
                f"ids[{position}] must not hold a line break or a null character on milvus-lite 2, got {key!r}. Use "
                "milvus-lite 3."
            )
    if keys:
        return f"{field} {'not in' if negated else 'in'} [{', '.join(literal(key, engine) for key in keys)}]"
    if negated:
        return ""
    # milvus-lite 2 accepts neither an empty list in an expression nor a bare constant as an expression. So return a
    # contradiction, which matches no row.
    one, other = ('"a"', '"b"') if is_text else ("0", "1")
    return f"({field} == {one} and {field} == {other})"


def literal(value: Any, engine: Engine | None = None) -> str:
    """Return the literal for a string, number or bool in a Milvus expression.

    Example:
        >>> literal(True), literal(-2), literal(1e300), literal("a")
        ('true', '-2', '1e+300', '"a"')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    quoted = quote(value)
    if engine is Engine.SERVER and not quoted.isascii():
        # A server's parser rewrites Chinese characters as \uXXXX, which truncates a code point of more than 16 bits. So
        # write a character with such a code point as \UXXXXXXXX.
        quoted = "".join(each if ord(each) < 0x10000 else f"\\U{ord(each):08x}" for each in quoted)
    return quoted


def readable_by_lite2(text: str) -> bool:
    """Return whether milvus-lite 2 can read a literal of this text. It cannot read line breaks or null characters."""
    return "\n" not in text and "\r" not in text and "\0" not in text


def is_name(text: str) -> bool:
    """Return whether an expression can use the text as a name, without quotes."""
    return _NAME.fullmatch(text) is not None
