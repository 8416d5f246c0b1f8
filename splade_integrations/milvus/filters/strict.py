"""Filters for milvus-lite 2 and for Milvus servers. Both use Milvus's C++ engine.

The engine distinguishes the kinds of JSON values: a bool never equals a number, for example.

milvus-lite 2 has no `not`, no `exists` and no `is null`. Its `!=` and `not in` also hold if the key is absent, or if
the value under the key is of another kind than the operand.

A server has `not` and `exists`. If the key is absent, or if the value under the key is of another kind than the
operand, the result depends on the server's version:

- Up to 2.6.x, a comparison is false, so its negation by `not` is true. `!=` is true.
- In later versions, a comparison, its negation and `!=` are all "unknown", so the row does not match (milvus issue
  50699).

So this module joins a negation, by `or`, with a condition for an absent key and a condition for each other kind of
value. In every version, the negation then matches the rows without the key and the rows with a value of another kind.
But in the versions after 2.6.x, two operations miss some rows:

- A negation does not match the rows with an object ({…}) under the key, because no expression can test for an object.
- The operator `exists` does not match the rows with [] or {} under the key, because Milvus's `exists` treats both
  values as absent.

Source: UnaryExpr.cpp, JsonContainsExpr.cpp, Json.h, Plan.g4 of milvus.
"""

from __future__ import annotations

import unicodedata
from typing import Any

from splade_integrations.milvus.filters.dialect import ANY_CASE, EXACT_FLOATS, Dialect, by_kind, escaped_pattern
from splade_integrations.milvus.filters.json_values import kind
from splade_integrations.milvus.filters.lite3 import SIGNS
from splade_integrations.milvus.filters.said import UNSAYABLE, Expression, Said, all_of, any_of, both, either
from splade_integrations.milvus.filters.text import Engine, FilterError, Layout, literal, readable_by_lite2
from splade_integrations.milvus.filters.tree import Compare

# Two ends of error messages for a server. Both give advice. `_NO_SCALAR` first names a condition that the server cannot
# express.
_NO_SCALAR = "a comparison with null, a list or an object. Store strings, numbers or bools, and compare with those"
_OTHER_KEY = "Store the value under a key of letters, digits and underscores"


class Strict(Dialect):
    """A comparison with the value under a metadata key, for Milvus's C++ engine."""

    engine: Engine

    def __init__(self, compare: Compare, layout: Layout) -> None:
        super().__init__(compare)
        self.value = f'{layout.document}["{compare.key}"]'

    def said(self, negated: bool) -> Said:
        """Return the engine's expression, if the engine can read the key. Its parser does not unescape keys."""
        fault = _fault_of_key(self.compare.key)
        return super().said(negated) if fault is None else self.unsayable(f"a key that {fault}. {_OTHER_KEY}")

    def unsayable(self, what: str) -> Said:
        """Return `UNSAYABLE`, so that every row is checked in Python, or raise a FilterError.

        `what` is the end of the message: the condition that the engine cannot express, and then some advice.
        """
        raise NotImplementedError

    def negation(self, expr: str, of_kind: str) -> Said:
        """Return the condition that `expr` does not hold. `expr` can hold only for values of the kind `of_kind`."""
        raise NotImplementedError

    def literal(self, value: Any) -> str:
        """Return the literal that the engine's parser reads as the value."""
        return literal(value, self.engine)

    def readable(self, members: list[Any]) -> bool:
        """Return whether an expression for the engine can contain all of these values."""
        return all(isinstance(member, (bool, int, float, str)) for member in members)

    def equals_one(self, members: list[Any], negated: bool) -> Said:
        """Return the condition that the value equals one of the members."""
        if not self.readable(members):
            return self.unsayable(_NO_SCALAR)
        parts = []
        for group in by_kind(members).values():
            values = ", ".join(map(self.literal, group))
            equal, unequal = ("==", "!=") if len(group) == 1 else ("in", "not in")
            values = values if len(group) == 1 else f"[{values}]"
            expr = f"{self.value} {unequal if negated else equal} {values}"
            parts.append(self.beyond(expr, kind(group[0])) if negated else Said(expr))
        return all_of(parts) if negated else any_of(parts)

    def beyond(self, expr: str, of_kind: str) -> Said:
        """Return the condition that the inequality `expr` holds, or that the value is not of the kind `of_kind`."""
        raise NotImplementedError

    def ordered(self, operator: str, bound: str | int | float, negated: bool) -> Said:
        """Return the condition that the value is above or below the bound."""
        if not self.readable([bound]):
            return self.unsayable(_NO_SCALAR)
        expr = f"{self.value} {SIGNS[operator]} {self.literal(bound)}"
        return self.negation(expr, kind(bound)) if negated else Said(expr)

    def holds_any(self, members: list[Any], negated: bool) -> Said:
        """Return the condition that the value is a list with at least one of the members."""
        parts = self._held("any", members, negated)
        if parts is None:
            return self.unsayable(_NO_SCALAR)
        return all_of(parts) if negated else any_of(parts)

    def holds_all(self, members: list[Any], negated: bool) -> Said:
        """Return the condition that the value is a list with all members."""
        parts = self._held("all", members, negated)
        if not parts:
            return self.unsayable(_NO_SCALAR if members else "an empty list. Name at least one member")
        return any_of(parts) if negated else all_of(parts)

    def _held(self, which: str, members: list[Any], negated: bool) -> list[Said] | None:
        if not self.readable(members):
            return None
        # In the functions json_contains…, an int finds only ints, but a float finds ints and floats. So each int is
        # converted to a float, if a float can hold it exactly.
        as_floats = [float(each) if type(each) is int and abs(each) <= EXACT_FLOATS else each for each in members]
        asked = []
        for name, group in by_kind(as_floats).items():
            # milvus-lite 2 accepts a single bool, but not a list of bools. So each bool gets its own expression.
            if name == "bool":
                asked += [f"json_contains({self.value}, {self.literal(each)})" for each in dict.fromkeys(group)]
            else:
                asked.append(f"json_contains_{which}({self.value}, [{', '.join(map(self.literal, group))}])")
        return [self.negation(expr, "list") if negated else Said(expr) for expr in asked]

    def text(self, part: str, negated: bool) -> Said:
        """Return the condition that the value is a string that contains this part."""
        if not self.readable([part]):
            return self.unsayable(_NO_SCALAR)
        # Every string contains "". On milvus-lite 2, `like "%"` finds nothing, but `>= ""` finds every string.
        expr = f"{self.value} like {self.literal(escaped_pattern(part))}" if part else f'{self.value} >= ""'
        return self.negation(expr, "string") if negated else Said(expr)

    def text_in_any_case(self, part: str, negated: bool) -> Said:
        """Return the condition that the value is a string that contains this part, ignoring case."""
        return self.unsayable(ANY_CASE)


class Lite2(Strict):
    """A comparison with the value under a metadata key, for milvus-lite 2."""

    engine = Engine.LITE2

    def unsayable(self, what: str) -> Said:
        """Return `UNSAYABLE`, so that every row is checked in Python."""
        return UNSAYABLE

    def negation(self, expr: str, of_kind: str) -> Said:
        """Return `UNSAYABLE`, because milvus-lite 2 has no `not`. Every row is then checked in Python."""
        return UNSAYABLE

    def beyond(self, expr: str, of_kind: str) -> Said:
        """Return the inequality. On milvus-lite 2, it already holds for absent keys and for values of other kinds."""
        return Said(expr)

    def readable(self, members: list[Any]) -> bool:
        """Return whether an expression for milvus-lite 2 can contain all of these values."""
        return super().readable(members) and all(readable_by_lite2(each) for each in members if isinstance(each, str))

    def exists(self, negated: bool) -> Said:
        """Return `UNSAYABLE`, because no expression of milvus-lite 2 distinguishes {} from an absent key."""
        return UNSAYABLE

    def is_empty(self, negated: bool) -> Said:
        """Return `UNSAYABLE`, because no expression of milvus-lite 2 distinguishes {} from an absent key."""
        return UNSAYABLE


class Server(Strict):
    """A comparison with the value under a metadata key, for a Milvus server."""

    engine = Engine.SERVER

    def unsayable(self, what: str) -> Said:
        """Raise an error, because a server holds too many rows to check each row in Python.

        Raises:
            FilterError: Always.
        """
        compare = self.compare
        raise FilterError(
            f"A Milvus server cannot apply {compare.operator} exactly to {compare.key!r}: it has no expression for "
            f"{what}."
        )

    def negation(self, expr: str, of_kind: str) -> Said:
        """Return the condition that `expr` does not hold, or that the value is absent or of another kind."""
        return self.beyond(f"not ({expr})", of_kind)

    def beyond(self, expr: str, of_kind: str) -> Said:
        """Return the condition that the inequality `expr` holds, or that the value is absent or of another kind."""
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
            # Up to Milvus 2.6.x, `neither` also finds objects, which no other part of the expression finds.
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
