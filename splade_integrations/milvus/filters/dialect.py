"""The base class of the dialects. A dialect expresses comparisons in the syntax of one engine (one kind of Milvus).

The base class reduces every comparison to one of eight conditions. Each dialect expresses these conditions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from splade_integrations.milvus.filters.json_values import LARGEST_INT, ORDERS, SMALLEST_INT, kind
from splade_integrations.milvus.filters.said import Said
from splade_integrations.milvus.filters.tree import Compare

# A float can hold every integer up to this bound exactly.
EXACT_FLOATS = 2**53
# The end of an error message: a condition that a Milvus server cannot express, and then some advice.
ANY_CASE = "text matched regardless of case. Store the text in lower case, and use text_match"


class Dialect(ABC):
    """One engine's conditions on the value under one key.

    If `negated` is true, a method returns the negation of its condition. The negation holds on exactly those rows on
    which the condition does not hold.
    """

    def __init__(self, compare: Compare) -> None:
        self.compare = compare

    def said(self, negated: bool) -> Said:
        """Return the engine's expression for the comparison, or for its negation."""
        operator, operand = self.compare.operator, self.compare.operand
        if operator in ("ne", "nin"):
            operator, negated = {"ne": "eq", "nin": "in"}[operator], not negated
        if operator in ("exists", "is_empty"):
            ask = self.exists if operator == "exists" else self.is_empty
            return ask(negated is operand)
        if operator in ORDERS:
            if kind(operand) in ("string", "number"):
                return self.ordered(operator, as_whole(operand), negated)
            # Bools are ordered: false comes before true. So a comparison with a bool becomes a list of the bools that
            # satisfy it. null, lists and objects have no order, so no value satisfies a comparison with them.
            members = [each for each in (False, True) if kind(operand) == "bool" and ORDERS[operator](each, operand)]
            return self.one_of(members, negated)
        if operator in ("eq", "in"):
            members = [as_whole(each) for each in ([operand] if operator == "eq" else operand) if each is not None]
            return self.one_of(members, negated)
        if operator == "text_match":
            return self.text(operand, negated)
        if operator == "text_match_insensitive":
            return self.text_in_any_case(operand, negated)
        members = [as_whole(each) for each in ([operand] if operator == "contains" else operand)]
        return self.holds_any(members, negated) if operator == "any" else self.holds_all(members, negated)

    def one_of(self, members: list[Any], negated: bool) -> Said:
        """Return the condition that the value equals one of the members. No member may be null."""
        return self.equals_one(members, negated) if members else Said(negated)

    @abstractmethod
    def equals_one(self, members: list[Any], negated: bool) -> Said:
        """Return the condition that the value equals one of the members. There is at least one member."""

    @abstractmethod
    def ordered(self, operator: str, bound: str | int | float, negated: bool) -> Said:
        """Return the condition that the value has the bound's JSON kind, and that `value operator bound` holds."""

    @abstractmethod
    def holds_any(self, members: list[Any], negated: bool) -> Said:
        """Return the condition that the value is a list with at least one of the members."""

    @abstractmethod
    def holds_all(self, members: list[Any], negated: bool) -> Said:
        """Return the condition that the value is a list with all members."""

    @abstractmethod
    def text(self, part: str, negated: bool) -> Said:
        """Return the condition that the value is a string that contains this part."""

    @abstractmethod
    def text_in_any_case(self, part: str, negated: bool) -> Said:
        """Return the condition that the value is a string that contains this part, ignoring case."""

    @abstractmethod
    def exists(self, negated: bool) -> Said:
        """Return the condition that the key is present and not null."""

    @abstractmethod
    def is_empty(self, negated: bool) -> Said:
        """Return the condition that the key is absent, or holds null, "" or []."""


def as_whole(value: Any) -> Any:
    """Convert a whole float that fits into 64 bits to an int, because engines compare ints exactly.

    Any other value is returned unchanged.
    """
    if isinstance(value, float) and value.is_integer() and SMALLEST_INT <= value <= LARGEST_INT:
        return int(value)
    return value


def by_kind(members: list[Any]) -> dict[str, list[Any]]:
    """Return {type name: its members}. An engine needs one list for each type, because it accepts no mixed lists."""
    groups: dict[str, list[Any]] = {}
    for member in members:
        name = type(member).__name__ if isinstance(member, (bool, int, float, str)) else "other"
        groups.setdefault(name, []).append(member)
    return groups


def escaped_pattern(part: str) -> str:
    """Return the `like` pattern for a text that contains this part, with the wildcards % and _ escaped."""
    for special in ("\\", "%", "_"):
        part = part.replace(special, f"\\{special}")
    return f"%{part}%"
