"""Filters for milvus-lite 3, which evaluates expressions in Python.

- Comparisons follow Python's rules: true equals 1 and is below 2.
- If the key is absent, or its value is of another kind than the operand, a comparison is unknown (None). The negation
  of an unknown comparison is unknown as well. A row with an unknown result does not match. But `is null`, `like` and
  `json_contains` are always true or false.
- `json_contains` treats a string as a list if the string parses as a JSON list.
- A pattern for `like` cannot escape a wildcard.

Source: milvus_lite/search/filter of milvus-lite 3.2.2.
"""

from __future__ import annotations

from typing import Any

from splade_integrations.milvus.filters.dialect import Dialect
from splade_integrations.milvus.filters.json_values import ORDERS, kind
from splade_integrations.milvus.filters.said import Expression, Said, all_of, any_of, both, either
from splade_integrations.milvus.filters.text import Layout, is_name, literal, quote
from splade_integrations.milvus.filters.tree import Compare

SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
INVERSE = {"gt": "<=", "gte": "<", "lt": ">=", "lte": ">"}

# Each comparison parses the row's JSON again (about 5 microseconds). Above this number of comparisons, it is faster to
# read the rows and compare in Python.
MOST_COMPARISONS = 16

# milvus-lite's parser reads these words as keywords, never as names.
KEYWORDS = frozenset({"and", "or", "not", "in", "like", "is", "null", "exists", "true", "false", "iso", "interval"})


class Lite3(Dialect):
    """A comparison with the value under a metadata key, for milvus-lite 3."""

    def __init__(self, compare: Compare, layout: Layout) -> None:
        super().__init__(compare)
        self.value = f"{layout.document}[{quote(compare.key)}]"
        # json_contains accepts a path into a JSON field. But it accepts a dynamic key only as a bare name, so it cannot
        # be used for a dynamic key that is not a valid name.
        bare = is_name(compare.key) and compare.key.lower() not in KEYWORDS
        self.listed = self.value if layout.metadata is not None else compare.key if bare else None
        self.is_null = f"{self.value} is null"
        self.is_text = f'{self.value} like "%"'
        self.some_value = f"{self.value} is not null"

    @property
    def is_list(self) -> str | None:
        """The condition that the value is a list, or None if this cannot be expressed.

        The condition does not hold for a string that parses as a list.
        """
        if self.listed is None:
            return None
        return f"(json_contains_all({self.listed}, []) and not ({self.is_text}))"

    def equals_one(self, members: list[Any], negated: bool) -> Said:
        """Return the condition that the value equals one of the members."""
        if len(members) > MOST_COMPARISONS:
            return Said(negated, self._about(members))
        parts = [self._equals(member, negated) for member in members]
        return all_of(parts) if negated else any_of(parts)

    def _about(self, members: list[Any]) -> Expression:
        """Return a condition that holds for every row whose value may equal a member.

        If all members are strings, or all are numbers, the value must lie between the smallest and the largest member.
        In all other cases, the value must not be null.
        """
        if not (all(kind(each) == "string" for each in members) or all(kind(each) == "number" for each in members)):
            return self.some_value
        least, most = min(members), max(members)
        return both(f"{self.value} >= {literal(least)}", f"{self.value} <= {literal(most)}")

    def _equals(self, member: Any, negated: bool) -> Said:
        if not isinstance(member, (bool, int, float, str)):
            return Said(negated, self.some_value)
        equal = f"{self.value} == {literal(member)}"
        # In Python, true equals 1 and false equals 0. So if the member is one of these values, the rows that `equal`
        # matches must be checked in Python.
        doubt = not isinstance(member, str) and member in (0, 1) and equal
        return Said(either(self.is_null, f"{self.value} != {literal(member)}") if negated else equal, doubt)

    def ordered(self, operator: str, bound: str | int | float, negated: bool) -> Said:
        """Return the condition that the value is above or below the bound."""
        other = f"{self.value} {INVERSE[operator]} {literal(bound)}"
        if not negated:
            bools: list[Expression] = (
                []
                if isinstance(bound, str)
                else [f"{self.value} == {each}" for each in (0, 1) if ORDERS[operator](each, bound)]
            )
            return Said(f"{self.value} {SIGNS[operator]} {literal(bound)}", either(*bools))
        if isinstance(bound, str):
            return Said(either(self.is_null, f"not ({self.is_text})", other))
        # A row with an object satisfies the negation. But no expression distinguishes an object from a number. So every
        # row that may hold an object or a number must be checked in Python.
        is_list = self.is_list or False
        rest = both(self.some_value, f"not ({self.is_text})", is_list is False or f"not {is_list}")
        return Said(either(self.is_null, self.is_text, is_list, other), rest)

    def holds_any(self, members: list[Any], negated: bool) -> Said:
        """Return the condition that the value is a list with at least one of the members."""
        return self._holds("any", members, negated) if members else Said(negated)

    def holds_all(self, members: list[Any], negated: bool) -> Said:
        """Return the condition that the value is a list with all members."""
        return self._holds("all", members, negated)

    def _holds(self, which: str, members: list[Any], negated: bool) -> Said:
        if self.is_list is None:
            return Said(negated, self.some_value)
        if not all(isinstance(member, (bool, int, float, str)) for member in members):
            return Said(negated, self.is_list)
        held = f"json_contains_{which}({self.listed}, [{', '.join(map(literal, members))}])"
        doubt = any(not isinstance(member, str) and member in (0, 1) for member in members) and held
        if negated:
            return Said(either(f"not {held}", self.is_text), doubt)
        return Said(both(held, f"not ({self.is_text})"), doubt)

    def text(self, part: str, negated: bool) -> Said:
        """Return the condition that the value is a string that contains this part."""
        return pattern_said(self.value, part, negated)

    def text_in_any_case(self, part: str, negated: bool) -> Said:
        """Return the condition that the value is a string that contains this part, ignoring case."""
        return Said(negated, self.is_text)

    def exists(self, negated: bool) -> Said:
        """Return the condition that the key is present and not null."""
        return Said(self.is_null if negated else self.some_value)

    def is_empty(self, negated: bool) -> Said:
        """Return the condition that the key is absent, or holds null, "" or []."""
        no_text = f'{self.value} != ""' if negated else f'{self.value} == ""'
        if self.is_list is None:
            return Said(both(self.some_value, no_text) if negated else either(self.is_null, no_text), self.some_value)
        # Tests whether a list contains its own first item. Only an empty list does not.
        holds_first = f"json_contains({self.listed}, {self.listed}[0])"
        if negated:
            return Said(both(self.some_value, no_text, f"(not {self.is_list} or {holds_first})"))
        return Said(either(self.is_null, no_text, both(self.is_list, f"not {holds_first}")))


def pattern_said(value: str, part: str, negated: bool) -> Said:
    """Return milvus-lite 3's condition that the value is a string that contains this part.

    A pattern for `like` cannot escape special characters. So each special character is replaced by the wildcard _,
    which matches any character. If a pattern contains _, the rows that it finds must be checked in Python.
    """
    wild = part
    for special in ("%", "_", "\\"):
        wild = wild.replace(special, "_")
    like = f"{value} like {quote(f'%{wild}%')}"
    return Said(either(f"{value} is null", f"not ({like})") if negated else like, "_" in wild and like)
