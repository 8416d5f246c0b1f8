"""Filters: trees of comparisons, which can be evaluated in Python.

A filter has the same meaning on every engine:

- If a key is absent or null, the operators `ne`, `nin` and `is_empty` are true, and all other operators are false. (The
  operand False reverses `is_empty` and `exists`.)
- Values of different JSON kinds are never equal and have no order. For example, true does not equal 1. All numbers are
  of one kind, so 1 equals 1.0. Bools have an order: false comes before true.
- Every filter is either true or false, so `Not` is true exactly if the filter inside it is false.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from splade_integrations.milvus.filters.json_values import (
    OPERATORS,
    TAKES_A_LIST,
    TAKES_A_TEXT,
    TAKES_YES_OR_NO,
    check_unicode,
    frozen,
    holds,
)
from splade_integrations.milvus.filters.text import FilterError

__all__ = ["And", "Compare", "Filter", "Not", "Or"]


class Filter(ABC):
    """A condition on documents: one comparison, or several that are combined with `&`, `|` and `~`.

    Filters are immutable, and are compared by value.

    Example:
        >>> recent = Compare("year", "gte", 2020) & ~Compare("tags", "contains", "draft")
        >>> recent.matches({"year": 2024, "tags": ["final"]}), recent.matches({"year": 2024, "tags": ["draft"]})
        (True, False)
    """

    @abstractmethod
    def matches(self, metadata: Mapping[str, Any], columns: Mapping[str, Any] | None = None) -> bool:
        """Return whether a document satisfies the filter.

        Args:
            metadata: The document's metadata: {key: JSON value}.
            columns: {field: its value} for the collection's fields, which `Compare(…, column=True)` asks for.
        """

    def __and__(self, other: Filter) -> And:
        return And(self, other)

    def __or__(self, other: Filter) -> Or:
        return Or(self, other)

    def __invert__(self) -> Not:
        return Not(self)


@dataclass(frozen=True, init=False)
class And(Filter):
    """Holds if all of the filters hold. Every document satisfies `And()`."""

    filters: tuple[Filter, ...]

    def __init__(self, *filters: Filter) -> None:
        object.__setattr__(self, "filters", _checked(filters, "And"))

    def matches(self, metadata: Mapping[str, Any], columns: Mapping[str, Any] | None = None) -> bool:
        """Return whether all of the filters hold."""
        return all(each.matches(metadata, columns) for each in self.filters)


@dataclass(frozen=True, init=False)
class Or(Filter):
    """Holds if at least one of the filters holds. No document satisfies `Or()`."""

    filters: tuple[Filter, ...]

    def __init__(self, *filters: Filter) -> None:
        object.__setattr__(self, "filters", _checked(filters, "Or"))

    def matches(self, metadata: Mapping[str, Any], columns: Mapping[str, Any] | None = None) -> bool:
        """Return whether at least one of the filters holds."""
        return any(each.matches(metadata, columns) for each in self.filters)


@dataclass(frozen=True)
class Not(Filter):
    """Holds if the filter does not hold."""

    filter: Filter

    def __post_init__(self) -> None:
        """Check that the operand is a filter."""
        _checked((self.filter,), "Not")

    def matches(self, metadata: Mapping[str, Any], columns: Mapping[str, Any] | None = None) -> bool:
        """Return whether the filter does not hold."""
        return not self.filter.matches(metadata, columns)


@dataclass(frozen=True)
class Compare(Filter):
    """A comparison of the value under a key with an operand.

    Operators:

    - `eq`, `ne`: the operand is any JSON value, except that `ne` does not accept null.
    - `gt`, `gte`, `lt`, `lte`: the operand is a number, a string or a bool. Only values of the operand's kind match.
    - `in`, `nin`: the operand is a list of values.
    - `exists`, `is_empty`: the operand is True (the default) or False. False asks for the opposite. `is_empty` is true
      for an absent key, null, "" and [].
    - `contains`: the list under the key contains the operand.
    - `any`: the operand is a list. The list under the key contains at least one member of the operand.
    - `all`: the operand is a list. The list under the key contains all members of the operand.
    - `text_match`, `text_match_insensitive`: the string under the key contains the operand. Only `text_match` is
      case-sensitive.

    Args:
        key: A metadata key, or the name of a field of the collection if `column` is true.
        operator: One of `OPERATORS`.
        operand: The JSON value to compare with.
        column: Whether `key` names a field of the collection rather than a metadata key.

    Raises:
        FilterError: The operator is unknown, or the operand does not fit the operator.

    Example:
        >>> Compare("year", "in", [1999, 2001]).matches({"year": 1999.0})
        True
        >>> Compare("year", "gt", float("nan"))
        Traceback (most recent call last):
        splade_integrations.milvus.filters.tree.FilterError: The operand of gt on 'year' must be finite, got nan.
    """

    key: str
    operator: str
    operand: Any = None
    column: bool = False

    def __post_init__(self) -> None:
        """Check the key, the operator and the operand, and keep a hashable copy of the operand."""
        if not isinstance(self.key, str):
            raise FilterError(f"A filter's key must be a str, got {type(self.key).__name__}. Write the key as a str.")
        check_unicode(self.key, f"The key {self.key!r} of a filter")
        if self.operator not in OPERATORS:
            raise FilterError(
                f"The operator on {self.key!r} must be one of {', '.join(sorted(OPERATORS))}, got {self.operator!r}."
            )
        object.__setattr__(self, "operand", self._checked_operand())

    def _checked_operand(self) -> Any:
        what = f"The operand of {self.operator} on {self.key!r}"
        operand = self.operand
        if self.operator in TAKES_YES_OR_NO:
            if operand not in (None, True, False) or (
                isinstance(operand, (int, float)) and not isinstance(operand, bool)
            ):
                raise FilterError(f"{what} must be True or False, got {operand!r}.")
            return operand is not False
        if self.operator in TAKES_A_TEXT and not isinstance(operand, str):
            raise FilterError(f"{what} must be a str, got {type(operand).__name__}. To compare other values, use eq.")
        if self.operator in TAKES_A_LIST:
            if not isinstance(operand, (list, tuple, set, frozenset)):
                raise FilterError(
                    f"{what} must be a list, got {type(operand).__name__}. Wrap one value: [{operand!r}]."
                )
            operand = list(operand)
        if (self.operator == "ne" and operand is None) or (self.operator == "nin" and None in operand):
            raise FilterError(
                f"{what} must not be None or contain None, got {operand!r}. No value equals None, so nothing would be "
                f"left out. To find the documents that have the key, use Compare({self.key!r}, 'exists')."
            )
        return frozen(operand, what)

    def matches(self, metadata: Mapping[str, Any], columns: Mapping[str, Any] | None = None) -> bool:
        """Return whether the value under the key satisfies the comparison."""
        value = (columns or {}).get(self.key) if self.column else metadata.get(self.key)
        return holds(value, self.operator, self.operand)


def _checked(filters: tuple[Any, ...], what: str) -> tuple[Filter, ...]:
    for position, each in enumerate(filters):
        if not isinstance(each, Filter):
            raise FilterError(
                f"The operands of {what} must be filters, got {type(each).__name__} at position {position}. Turn a "
                "dict into a filter with from_dict."
            )
    return filters
