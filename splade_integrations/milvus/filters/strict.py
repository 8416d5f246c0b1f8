"""Filters for milvus-lite 2 and servers: Milvus's C++ engine, which keeps the kinds of JSON values apart.

milvus-lite 2 has no `not`, no `exists` and no `is null`. `!=` and `not in` hold for absent keys and for other kinds.

A server has `not` and `exists`. Versions differ about a comparison with an absent key or a value of another kind. Up to
2.6.x such a comparison is false (and `!=` is true), so `not` of it is true. In later versions it is "unknown", and so
are `!=` and `not` of it (milvus issue 50699). A negation here also asks for the other kinds, so it is true by either
rule. By the later rule, two conditions cannot be expressed. The first is that a value is an object ({…}), so negations
leave out rows with an object under the key. The second is that a value is [] or {}, because `exists` takes these for
absent.
Source: UnaryExpr.cpp, JsonContainsExpr.cpp, Json.h, Plan.g4 of milvus.
"""

from __future__ import annotations

import unicodedata
from typing import Any

from splade_integrations.milvus.filters.dialect import EXACT_FLOATS, Dialect, by_kind, escaped_pattern
from splade_integrations.milvus.filters.lite3 import SIGNS
from splade_integrations.milvus.filters.said import UNSAYABLE, Expression, Said, all_of, any_of, both, either
from splade_integrations.milvus.filters.text import Engine, FilterError, Layout, literal, readable_by_lite2
from splade_integrations.milvus.filters.tree import Compare, kind


class Strict(Dialect):
    """A comparison with the value under a metadata key, for Milvus's C++ engine."""

    engine: Engine

    def __init__(self, compare: Compare, layout: Layout) -> None:
        super().__init__(compare)
        self.value = f'{layout.document}["{compare.key}"]'

    def said(self, negated: bool) -> Said:
        """Return the engine's expression, if it can read the key. Its parser does not unescape keys."""
        fault = _fault_of_key(self.compare.key)
        return super().said(negated) if fault is None else self.unsayable(f"a key that {fault}")

    def unsayable(self, what: str) -> Said:
        """Return that all rows are doubtful, or raise."""
        raise NotImplementedError

    def negation(self, expr: str, of_kind: str) -> Said:
        """Return the condition that an expression, which asks for values of one kind, does not hold."""
        raise NotImplementedError

    def literal(self, value: Any) -> str:
        """Return the literal that the engine's parser reads as the value."""
        return literal(value, self.engine)

    def readable(self, members: list[Any]) -> bool:
        """Return whether the engine's expressions can hold all of these values."""
        return all(isinstance(member, (bool, int, float, str)) for member in members)

    def equals_one(self, members: list[Any], negated: bool) -> Said:
        """Return the condition that the value equals one of the members."""
        if not self.readable(members):
            return self.unsayable("such a value")
        parts = []
        for group in by_kind(members).values():
            values = ", ".join(map(self.literal, group))
            equal, unequal = ("==", "!=") if len(group) == 1 else ("in", "not in")
            values = values if len(group) == 1 else f"[{values}]"
            expr = f"{self.value} {unequal if negated else equal} {values}"
            parts.append(self.beyond(expr, kind(group[0])) if negated else Said(expr))
        return all_of(parts) if negated else any_of(parts)

    def beyond(self, expr: str, of_kind: str) -> Said:
        """Return the condition that an inequality holds, or that the value has another kind."""
        raise NotImplementedError

    def ordered(self, operator: str, bound: str | int | float, negated: bool) -> Said:
        """Return the condition that the value is above or below the bound."""
        if not self.readable([bound]):
            return self.unsayable("such a value")
        expr = f"{self.value} {SIGNS[operator]} {self.literal(bound)}"
        return self.negation(expr, kind(bound)) if negated else Said(expr)

    def holds_any(self, members: list[Any], negated: bool) -> Said:
        """Return the condition that the value is a list with at least one of the members."""
        parts = self._held("any", members, negated)
        if parts is None:
            return self.unsayable("such a value")
        return all_of(parts) if negated else any_of(parts)

    def holds_all(self, members: list[Any], negated: bool) -> Said:
        """Return the condition that the value is a list with all members."""
        parts = self._held("all", members, negated)
        if not parts:
            return self.unsayable("such a value" if members else "an empty list")
        return any_of(parts) if negated else all_of(parts)

    def _held(self, which: str, members: list[Any], negated: bool) -> list[Said] | None:
        if not self.readable(members):
            return None
        # An int finds ints alone, while a float finds ints and floats.
        as_floats = [float(each) if type(each) is int and abs(each) <= EXACT_FLOATS else each for each in members]
        asked = []
        for name, group in by_kind(as_floats).items():
            # milvus-lite 2 accepts a single bool, but not a list of bools.
            if name == "bool":
                asked += [f"json_contains({self.value}, {self.literal(each)})" for each in dict.fromkeys(group)]
            else:
                asked.append(f"json_contains_{which}({self.value}, [{', '.join(map(self.literal, group))}])")
        return [self.negation(expr, "list") if negated else Said(expr) for expr in asked]

    def text(self, part: str, negated: bool) -> Said:
        """Return the condition that the value is a string that contains this part."""
        if not self.readable([part]):
            return self.unsayable("such a value")
        # like "%" finds nothing on milvus-lite 2.
        expr = f"{self.value} like {self.literal(escaped_pattern(part))}" if part else f'{self.value} >= ""'
        return self.negation(expr, "string") if negated else Said(expr)

    def text_in_any_case(self, part: str, negated: bool) -> Said:
        """Return the condition that the value is a string that contains this part, ignoring case."""
        return self.unsayable("text matched regardless of case")


class Lite2(Strict):
    """A comparison with the value under a metadata key, for milvus-lite 2."""

    engine = Engine.LITE2

    def unsayable(self, what: str) -> Said:
        """Return that all rows are doubtful."""
        return UNSAYABLE

    def negation(self, expr: str, of_kind: str) -> Said:
        """Return that all rows are doubtful, because milvus-lite 2 has no `not`."""
        return UNSAYABLE

    def beyond(self, expr: str, of_kind: str) -> Said:
        """Return the inequality, which holds for absent keys and other kinds."""
        return Said(expr)

    def readable(self, members: list[Any]) -> bool:
        """Return whether milvus-lite 2's expressions can hold all of these values."""
        return super().readable(members) and all(readable_by_lite2(each) for each in members if isinstance(each, str))

    def exists(self, negated: bool) -> Said:
        """Return that all rows are doubtful, because no expression tells {} from an absent key."""
        return UNSAYABLE

    def is_empty(self, negated: bool) -> Said:
        """Return that all rows are doubtful, because no expression tells {} from an absent key."""
        return UNSAYABLE


class Server(Strict):
    """A comparison with the value under a metadata key, for a Milvus server."""

    engine = Engine.SERVER

    def unsayable(self, what: str) -> Said:
        """Raise, because a server holds too many rows to check each one.

        Raises:
            FilterError: Always.
        """
        compare = self.compare
        raise FilterError(
            f"A Milvus server cannot filter by {compare.operator} on {compare.key!r} exactly: it has no expression for "
            f"{what}. Filter by a string, a number or a bool, and store it under a plain key."
        )

    def negation(self, expr: str, of_kind: str) -> Said:
        """Return the condition that the expression does not hold, or that the value is absent or has another kind."""
        return self.beyond(f"not ({expr})", of_kind)

    def beyond(self, expr: str, of_kind: str) -> Said:
        """Return the condition that an inequality holds, or that the value is absent or has another kind."""
        return Said(either(f"not (exists {self.value})", expr, *self._other_kinds(of_kind)))

    def _other_kinds(self, of_kind: str) -> list[Expression]:
        value = self.value
        kinds: dict[str, Expression] = {
            "string": f'{value} >= ""',
            "number": either(f"{value} < 0", f"{value} >= 0"),
            "bool": either(f"{value} == true", f"{value} == false"),
            "list": f"array_length({value}) > 0",
        }
        return [said for name, said in kinds.items() if name != of_kind]

    def exists(self, negated: bool) -> Said:
        """Return the condition that the key is present and not null."""
        return Said(f"not (exists {self.value})" if negated else f"exists {self.value}")

    def is_empty(self, negated: bool) -> Said:
        """Return the condition that the key is absent, or holds null, "" or []."""
        if negated:
            # Up to 2.6.x, `neither` holds for an object as well.
            neither = both(f'not ({self.value} == "")', f"not ({self.value} == [])")
            some = either(f'{self.value} > ""', *self._other_kinds("string"), neither)
            return Said(both(f"exists {self.value}", some))
        return Said(either(f"not (exists {self.value})", f'{self.value} == ""', f"{self.value} == []"))


def _fault_of_key(key: str) -> str | None:
    if not key:
        return "is empty"
    for character in key:
        if character in "\"'\\[]":
            return f"holds {character!r}"
        if unicodedata.category(character) == "Cc" or ord(character) > 0xFFFF:
            return f"holds {character!r}"
    return None
