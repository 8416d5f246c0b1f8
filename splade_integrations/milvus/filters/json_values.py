"""Compare JSON values by the rules of the filter operators.

Values of different JSON kinds are never equal and have no order. For example, true does not equal 1. All numbers are of
one kind, so 1 equals 1.0. Bools have an order: false comes before true.
"""

import math
from collections.abc import Mapping
from operator import ge, gt, le, lt
from typing import Any, TypeGuard

from splade_integrations.milvus.filters.text import FilterError

__all__ = [
    "LARGEST_INT",
    "OPERATORS",
    "ORDERS",
    "SMALLEST_INT",
    "TAKES_A_LIST",
    "TAKES_A_TEXT",
    "TAKES_YES_OR_NO",
    "check_unicode",
    "frozen",
    "holds",
    "is_list",
    "kind",
    "same",
]

ORDERS = {"gt": gt, "gte": ge, "lt": lt, "lte": le}
TAKES_A_LIST = frozenset({"in", "nin", "any", "all"})
TAKES_A_TEXT = frozenset({"text_match", "text_match_insensitive"})
TAKES_YES_OR_NO = frozenset({"exists", "is_empty"})
OPERATORS = frozenset({"eq", "ne", "contains", *ORDERS, *TAKES_A_LIST, *TAKES_A_TEXT, *TAKES_YES_OR_NO})

# The range of Milvus's integers, in expressions and in JSON.
SMALLEST_INT, LARGEST_INT = -(2**63), 2**63 - 1


def holds(value: Any, operator: str, operand: Any) -> bool:
    """Return whether a metadata value (None for an absent key) satisfies a comparison with the operand.

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


class _Object(dict[str, Any]):
    """A JSON object as an operand. It is hashable, so that a filter with this operand is hashable as well."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))


def frozen(operand: Any, what: str) -> Any:
    """Return a hashable copy of the operand. Raise a FilterError if Milvus cannot hold it as JSON."""
    if operand is None or isinstance(operand, bool):
        return operand
    if isinstance(operand, str):
        check_unicode(operand, what)
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
        return tuple(frozen(member, what) for member in operand)
    if isinstance(operand, Mapping) and all(isinstance(key, str) for key in operand):
        return _Object((key, frozen(value, what)) for key, value in operand.items())
    raise FilterError(
        f"{what} must be JSON (a str, number, bool or list, or a dict with str keys), got {type(operand).__name__}. "
        "Convert it to the form in which you stored it."
    )


def check_unicode(text: str, what: str) -> None:
    """Raise a FilterError if a text has a lone surrogate. `what` names the text in the message."""
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise FilterError(
            f"{what} must be valid Unicode, got a lone surrogate at position {err.start}. Replace it: "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')."
        ) from err
