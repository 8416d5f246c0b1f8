"""Filters: trees of comparisons, which can be evaluated in Python and can be written as dicts.

A filter has the same meaning on every engine:

- If a key is absent or null, the operators `ne`, `nin` and `is_empty` are true. All other operators are false.
- Values of different JSON kinds are never equal, and have no order: true does not equal 1. All numbers are of one kind,
  so 1 equals 1.0. Bools have an order: false comes before true.
- Every filter is either true or false, so `Not` is true exactly if the filter inside it is false.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any, TypeGuard

from splade_integrations.milvus.filters.text import FilterError

ORDERS = {"gt": gt, "gte": ge, "lt": lt, "lte": le}
TAKES_A_LIST = frozenset({"in", "nin", "any", "all"})
TAKES_A_TEXT = frozenset({"text_match", "text_match_insensitive"})
TAKES_YES_OR_NO = frozenset({"exists", "is_empty"})
OPERATORS = frozenset({"eq", "ne", "contains", *ORDERS, *TAKES_A_LIST, *TAKES_A_TEXT, *TAKES_YES_OR_NO})

# The range of Milvus's integers, in expressions and in JSON.
SMALLEST_INT, LARGEST_INT = -(2**63), 2**63 - 1


class Filter(ABC):
    """A condition on documents: one comparison, or several that are joined by `&`, `|` and `~`.

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
    - `any`: the operand is a list. The list under the key contains at least one of its members.
    - `all`: the operand is a list. The list under the key contains all of its members.
    - `text_match`, `text_match_insensitive`: the string under the key contains the operand. Only `text_match` is
      case-sensitive.

    Args:
        key: A metadata key, or the name of a field of the collection if `column` is true.
        operator: One of `OPERATORS`.
        operand: The JSON value to compare with.
        column: Whether `key` names a field of the collection rather than a metadata key.

    Raises:
        FilterError: The operator is unknown, or the operand does not fit it.

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
        _check_text(self.key, f"The key {self.key!r} of a filter")
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
                f"{what} must not be None or contain None, because no value equals None and so nothing would be left "
                f"out. To find the documents that have the key, use Compare({self.key!r}, 'exists')."
            )
        return _frozen(operand, what)

    def matches(self, metadata: Mapping[str, Any], columns: Mapping[str, Any] | None = None) -> bool:
        """Return whether the value under the key satisfies the comparison."""
        value = (columns or {}).get(self.key) if self.column else metadata.get(self.key)
        return holds(value, self.operator, self.operand)


def holds(value: Any, operator: str, operand: Any) -> bool:
    """Return whether a metadata value (None for an absent key) satisfies the operator and the operand.

    Example:
        >>> holds(True, "eq", 1), holds(1, "eq", 1.0), holds(None, "ne", 1), holds([], "is_empty", True)
        (False, True, True, True)
    """
    if operator == "ne":
        return not holds(value, "eq", operand)
    if operator == "nin":
        return not holds(value, "in", operand)
    if operator == "exists":
        return (value is not None) is operand
    if operator == "is_empty":
        return (value is None or ((is_list(value) or isinstance(value, str)) and len(value) == 0)) is operand
    if value is None:
        return False
    if operator == "eq":
        return same(value, operand)
    if operator == "in":
        return any(same(value, member) for member in operand)
    if operator in ORDERS:
        return kind(value) == kind(operand) in ("string", "number", "bool") and ORDERS[operator](value, operand)
    if operator in TAKES_A_TEXT:
        if not isinstance(value, str):
            return False
        return operand in value if operator == "text_match" else operand.lower() in value.lower()
    if not is_list(value):
        return False
    members = [operand] if operator == "contains" else operand
    held = (any(same(item, member) for item in value) for member in members)
    return any(held) if operator == "any" else all(held)


def is_list(value: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Return whether the value stands for a JSON list."""
    return isinstance(value, (list, tuple))


def kind(value: Any) -> str:
    """Return the JSON kind of a value: null, bool, number, string, list or object."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "list" if is_list(value) else "object"


def same(left: Any, right: Any) -> bool:
    """Return whether two JSON values have the same kind and are equal: true does not equal 1, but 1 equals 1.0.

    Example:
        >>> same([1, {"a": True}], [1.0, {"a": True}]), same([1], [True])
        (True, False)
    """
    if kind(left) != kind(right):
        return False
    if is_list(left):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def _checked(filters: tuple[Any, ...], what: str) -> tuple[Filter, ...]:
    for position, each in enumerate(filters):
        if not isinstance(each, Filter):
            raise FilterError(
                f"The operands of {what} must be filters, got {type(each).__name__} at position {position}. Turn a "
                "dict into a filter with from_dict."
            )
    return filters


class _Object(dict[str, Any]):
    """A JSON object as an operand. It is hashable, because filters with such an operand must be hashable."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))


def _frozen(operand: Any, what: str) -> Any:
    """Return a hashable copy of the operand. Raise a FilterError if Milvus cannot hold it as JSON."""
    if operand is None or isinstance(operand, bool):
        return operand
    if isinstance(operand, str):
        _check_text(operand, what)
        return operand
    if isinstance(operand, int):
        if not SMALLEST_INT <= operand <= LARGEST_INT:
            raise FilterError(f"{what} must fit into 64 bits, got {operand}. Store and compare a float or a str.")
        return int(operand)
    if isinstance(operand, float):
        if not math.isfinite(operand):
            raise FilterError(
                f"{what} must be finite, got {operand}. JSON has no such number, so no document holds it. Leave the "
                "condition out."
            )
        return float(operand)
    if is_list(operand):
        return tuple(_frozen(member, what) for member in operand)
    if isinstance(operand, Mapping) and all(isinstance(key, str) for key in operand):
        return _Object((key, _frozen(value, what)) for key, value in operand.items())
    raise FilterError(
        f"{what} must be JSON (a str, number, bool or list, or a dict with str keys), got {type(operand).__name__}. "
        "Convert it to the form in which you stored it."
    )


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise FilterError(
            f"{what} must be valid Unicode, got a lone surrogate at position {err.start}. Replace it: "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')."
        ) from err


JOINS = {"$and": And, "$or": Or}


def from_dict(conditions: Mapping[str, Any]) -> Filter:
    """Return the filter for a dict in LangChain's usual form.

    A key maps to a value (`{"tenant": "a"}`) or to operators (`{"year": {"$gte": 2000, "$lt": 2010}}`). `$and` and
    `$or` take a list of dicts. `$not` takes one dict of conditions or, under a key, one dict of operators. All entries
    of a dict must hold. The operators are those of `Compare` with a `$` in front: $eq, $ne, $gt, $gte, $lt, $lte, $in,
    $nin, $exists and so on.

    Raises:
        FilterError: A key or operator does not have this form. The message names it.

    Example:
        >>> from_dict({"tenant": "a", "year": {"$gte": 2000}}).matches({"tenant": "a", "year": 1999})
        False
        >>> from_dict({"$not": {"tenant": {"$in": ["a", "b"]}}})
        Not(filter=Compare(key='tenant', operator='in', operand=('a', 'b'), column=False))
    """
    if not isinstance(conditions, Mapping):
        raise FilterError(
            f"A dict filter must have only dicts as its conditions, got {type(conditions).__name__}. A Milvus "
            "expression cannot be a part of a dict: give it as the whole filter, as a str."
        )
    return _all_of([_condition(key, value) for key, value in conditions.items()])


def _condition(key: Any, value: Any) -> Filter:
    if key in JOINS:
        if not is_list(value) or not value:
            raise FilterError(f"{key} must be given a list of one or more dicts, got {value!r}.")
        return JOINS[key](*(from_dict(each) for each in value))
    if key == "$not":
        return Not(from_dict(value))
    if isinstance(key, str) and key.startswith("$"):
        raise FilterError(
            f"An operator without a key must be $and, $or or $not, got {key!r}. Write {{'a key': {{{key!r}: …}}}}."
        )
    if not isinstance(value, Mapping):
        return Compare(key, "eq", value)
    if not value:
        raise FilterError(f"The operators of {key!r} must not be empty, got {{}}. Write {{{key!r}: {{'$eq': value}}}}.")
    return _all_of([_operation(key, name, operand) for name, operand in value.items()])


def _operation(key: Any, name: Any, operand: Any) -> Filter:
    if name == "$not":
        if not isinstance(operand, Mapping):
            raise FilterError(
                f"$not on {key!r} must be given a dict of operators, got {operand!r}. To exclude one value, use $ne."
            )
        return Not(_condition(key, operand))
    operator = name.removeprefix("$") if isinstance(name, str) and name.startswith("$") else None
    if operator not in OPERATORS:
        known = ", ".join(f"${each}" for each in sorted(OPERATORS))
        raise FilterError(f"The operator on {key!r} must be one of $not, {known}, got {name!r}.")
    return Compare(key, operator, operand)


def _all_of(filters: list[Filter]) -> Filter:
    return filters[0] if len(filters) == 1 else And(*filters)
