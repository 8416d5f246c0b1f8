"""Conditions on typed fields. The type of their values is known, so engines can express nearly every condition."""

from __future__ import annotations

import math
from typing import Any

from splade_integrations.milvus.filters.dialect import ANY_CASE, Dialect, escaped_pattern
from splade_integrations.milvus.filters.json_values import kind
from splade_integrations.milvus.filters.lite3 import INVERSE, SIGNS, pattern_said
from splade_integrations.milvus.filters.said import UNSAYABLE, Expression, Said, either
from splade_integrations.milvus.filters.text import Engine, FilterError, Layout, literal, readable_by_lite2
from splade_integrations.milvus.filters.tree import Compare

# The keys are values of pymilvus's DataType: BOOL, INT8 to INT64, FLOAT, DOUBLE, STRING and VARCHAR. In a field of
# any other type, such as ARRAY or JSON, a value need not be just one bool, number or string.
KINDS = {1: "bool", 2: "int", 3: "int", 4: "int", 5: "int", 10: "float", 11: "float", 20: "string", 21: "string"}


class Column(Dialect):
    """A comparison with the value of a typed field, for any engine."""

    def __init__(self, compare: Compare, layout: Layout, engine: Engine) -> None:
        super().__init__(compare)
        self.value, self.engine = compare.key, engine
        if compare.key == layout.primary:
            self.kind: str | None = "string" if layout.primary_is_text else "int"
        else:
            self.kind = KINDS.get({**layout.columns, **layout.own}.get(compare.key, 0))
        # Nulls need a condition only where they can occur. A primary key is never null, and milvus-lite 2 has no nulls.
        nulls = compare.key != layout.primary and engine is not Engine.LITE2
        self.is_null: Expression = nulls and f"{self.value} is null"
        self.some_value: Expression = not nulls or f"{self.value} is not null"

    def said(self, negated: bool) -> Said:
        """Return the engine's expression. Only a field of bools, numbers or strings has one.

        Raises:
            FilterError: The engine is a server, and either the field holds lists or objects, or the operator ignores
                case.
        """
        if self.kind is not None:
            return super().said(negated)
        return self.unsayable(
            "a field of this type. Filter by a field of strings, numbers or bools, or by a metadata key"
        )

    def unsayable(self, what: str) -> Said:
        """Return `UNSAYABLE`, so that every row is checked in Python, or raise a FilterError if the engine is a server.

        `what` is the end of the message: the condition that the server cannot express, and then some advice.
        """
        if self.engine is not Engine.SERVER:
            return UNSAYABLE
        compare = self.compare
        raise FilterError(
            f"A Milvus server cannot apply {compare.operator} exactly to the field {compare.key!r}: it has no "
            f"expression for {what}."
        )

    def equals_one(self, members: list[Any], negated: bool) -> Said:
        """Return the condition that the field equals one of the members. Members of other types match no row."""
        typed = [each for each in map(self._typed, members) if each is not None]
        if not typed:
            return Said(negated)
        if not self._readable(typed):
            return UNSAYABLE
        expr = (
            f"{self.value} {'not in' if negated else 'in'} [{', '.join(literal(each, self.engine) for each in typed)}]"
        )
        return Said(either(self.is_null, expr) if negated else expr)

    def _typed(self, member: Any) -> Any:
        if self.kind == "int":
            return member if type(member) is int else None
        if self.kind == "float":
            return float(member) if kind(member) == "number" else None
        return member if kind(member) == self.kind else None

    def _readable(self, members: list[Any]) -> bool:
        return self.engine is not Engine.LITE2 or all(
            readable_by_lite2(each) for each in members if isinstance(each, str)
        )

    def ordered(self, operator: str, bound: str | int | float, negated: bool) -> Said:
        """Return the condition that the field is above or below the bound."""
        if kind(bound) != ("number" if self.kind in ("int", "float") else self.kind):
            return Said(negated)
        if not self._readable([bound]):
            return UNSAYABLE
        if self.kind == "int" and isinstance(bound, float):
            # `Dialect.said` has already converted a whole bound, such as 3.0, to an int. So no integer in the field
            # equals this bound, and the same rows match if it is rounded: up for < and >=, down for > and <=.
            bound = math.ceil(bound) if operator in ("lt", "gte") else math.floor(bound)
        elif self.kind == "float":
            bound = float(bound)
        sign = (INVERSE if negated else SIGNS)[operator]
        expr = f"{self.value} {sign} {literal(bound, self.engine)}"
        return Said(either(self.is_null, expr) if negated else expr)

    def holds_any(self, members: list[Any], negated: bool) -> Said:
        """Return a condition that no row satisfies, because the field holds a single value, never a list."""
        return Said(negated)

    def holds_all(self, members: list[Any], negated: bool) -> Said:
        """Return a condition that no row satisfies, because the field holds a single value, never a list."""
        return Said(negated)

    def text(self, part: str, negated: bool) -> Said:
        """Return the condition that the field is a string that contains this part."""
        if self.kind != "string":
            return Said(negated)
        if not part:
            return Said(self.is_null if negated else self.some_value)
        if self.engine is Engine.LITE3:
            return pattern_said(self.value, part, negated)
        if self.engine is Engine.LITE2 and (negated or not self._readable([part])):
            return UNSAYABLE
        like = f"{self.value} like {literal(escaped_pattern(part), self.engine)}"
        return Said(either(self.is_null, f"not ({like})") if negated else like)

    def text_in_any_case(self, part: str, negated: bool) -> Said:
        """Return the condition that the field is a string that contains this part, ignoring case."""
        if self.kind != "string":
            return Said(negated)
        return self.unsayable(ANY_CASE)

    def exists(self, negated: bool) -> Said:
        """Return the condition that the field is not null."""
        return Said(self.is_null if negated else self.some_value)

    def is_empty(self, negated: bool) -> Said:
        """Return the condition that the field is null or ""."""
        if self.kind != "string":
            return self.exists(not negated)
        return Said(f'{self.value} > ""' if negated else either(self.is_null, f'{self.value} == ""'))
