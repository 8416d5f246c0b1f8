"""milvus-lite 2 and servers: Milvus's own engine, which keeps JSON's kinds apart. What one of them cannot say is below.

milvus-lite 2 has no `not`, no `exists`, no `is null`; `!=` and `not in` hold for absent keys and other kinds.

A server has `not` and `exists`. Up to 2.6.x a comparison with an absent key or another kind is false (and != true), so
that `not` of it is true; later ones answer "unknown", so that `not` and `!=` of it are unknown as well (milvus issue
50699). A negation here is true by either rule: it also asks for the other kinds. Two things no expression can say by
the later rule: that a value is an object ({…}), so negations leave out rows that hold one under the key; and that it is
[] or {}, which `exists` takes for absent. Source: UnaryExpr.cpp, JsonContainsExpr.cpp, Json.h, Plan.g4 of milvus.
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
    """The value under a metadata key, asked of Milvus's own engine."""

    engine: Engine

    def __init__(self, compare: Compare, layout: Layout) -> None:
        super().__init__(compare)
        self.value = f'{layout.document}["{compare.key}"]'

    def said(self, negated: bool) -> Said:
        """Return what the engine says, if it can read the key: its parser does not unescape keys."""
        fault = _fault_of_key(self.compare.key)
        return super().said(negated) if fault is None else self.unsayable(f"a key that {fault}")

    def unsayable(self, what: str) -> Said:
        """Return that all rows are in doubt, or raise."""
        raise NotImplementedError

    def negation(self, expr: str, of_kind: str) -> Said:
        """Return what says that this expression, which asks for one kind of value, does not hold."""
        raise NotImplementedError

    def literal(self, value: Any) -> str:
        """Return the value as the engine's parser reads it."""
        return literal(value, self.engine)

    def readable(self, members: list[Any]) -> bool:
        """Return whether the engine can be asked for all of these values."""
        return all(isinstance(member, (bool, int, float, str)) for member in members)

    def equals_one(self, members: list[Any], negated: bool) -> Said:
        """Return what says that the value equals one of the members."""
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
        """Return what says an inequality, which holds for other kinds as well."""
        raise NotImplementedError

    def ordered(self, operator: str, bound: str | int | float, negated: bool) -> Said:
        """Return what says that the value is above or below the bound."""
        if not self.readable([bound]):
            return self.unsayable("such a value")
        expr = f"{self.value} {SIGNS[operator]} {self.literal(bound)}"
        return self.negation(expr, kind(bound)) if negated else Said(expr)

    def holds_any(self, members: list[Any], negated: bool) -> Said:
        """Return what says that the value is a list with one of the members."""
        parts = self._held("any", members, negated)
        if parts is None:
            return self.unsayable("such a value")
        return all_of(parts) if negated else any_of(parts)

    def holds_all(self, members: list[Any], negated: bool) -> Said:
        """Return what says that the value is a list with all members."""
        parts = self._held("all", members, negated)
        if not parts:
            return self.unsayable("such a value" if members else "an empty list")
        return any_of(parts) if negated else all_of(parts)

    def _held(self, which: str, members: list[Any], negated: bool) -> list[Said] | None:
        if not self.readable(members):
            return None
        # A whole number finds ints alone, a float finds both.
        as_floats = [float(each) if type(each) is int and abs(each) <= EXACT_FLOATS else each for each in members]
        asked = []
        for name, group in by_kind(as_floats).items():
            # milvus-lite 2 takes one bool, and no list of them.
            if name == "bool":
                asked += [f"json_contains({self.value}, {self.literal(each)})" for each in dict.fromkeys(group)]
            else:
                asked.append(f"json_contains_{which}({self.value}, [{', '.join(map(self.literal, group))}])")
        return [self.negation(expr, "list") if negated else Said(expr) for expr in asked]

    def text(self, part: str, negated: bool) -> Said:
        """Return what says that the value is a string with this part."""
        if not self.readable([part]):
            return self.unsayable("such a value")
        # like "%" finds nothing on milvus-lite 2.
        expr = f"{self.value} like {self.literal(escaped_pattern(part))}" if part else f'{self.value} >= ""'
        return self.negation(expr, "string") if negated else Said(expr)

    def text_in_any_case(self, part: str, negated: bool) -> Said:
        """Return what says that the value is a string with this part, in upper or lower case."""
        return self.unsayable("upper and lower case alike")


class Lite2(Strict):
    """The value under a metadata key, asked of milvus-lite 2."""

    engine = Engine.LITE2

    def unsayable(self, what: str) -> Said:
        """Return that all rows are in doubt."""
        return UNSAYABLE

    def negation(self, expr: str, of_kind: str) -> Said:
        """Return that all rows are in doubt: there is no `not`."""
        return UNSAYABLE

    def beyond(self, expr: str, of_kind: str) -> Said:
        """Return the inequality, which holds for absent keys and other kinds."""
        return Said(expr)

    def readable(self, members: list[Any]) -> bool:
        """Return whether milvus-lite 2 can be asked for all of these values."""
        return super().readable(members) and all(readable_by_lite2(each) for each in members if isinstance(each, str))

    def exists(self, negated: bool) -> Said:
        """Return that all rows are in doubt: nothing tells {} from an absent key."""
        return UNSAYABLE

    def is_empty(self, negated: bool) -> Said:
        """Return that all rows are in doubt: nothing tells {} from an absent key."""
        return UNSAYABLE


class Server(Strict):
    """The value under a metadata key, asked of a Milvus server."""

    engine = Engine.SERVER

    def unsayable(self, what: str) -> Said:
        """Raise: a server's rows are too many to look at each.

        Raises:
            FilterError: Always.
        """
        compare = self.compare
        raise FilterError(
            f"A Milvus server cannot filter by {compare.operator} on {compare.key!r} exactly: it has no expression for "
            f"{what}. Store what you filter by under a plain key, as a string, number or bool."
        )

    def negation(self, expr: str, of_kind: str) -> Said:
        """Return what holds where the expression does not, and for all other kinds."""
        return self.beyond(f"not ({expr})", of_kind)

    def beyond(self, expr: str, of_kind: str) -> Said:
        """Return what says an inequality, or that the value is absent or of another kind."""
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
        """Return what says that the key is there and not null."""
        return Said(f"not (exists {self.value})" if negated else f"exists {self.value}")

    def is_empty(self, negated: bool) -> Said:
        """Return what says that the key is absent, or holds null, "" or []."""
        if negated:
            # By the earlier rule the last of these holds for an object as well.
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
