"""Translate a filter into an engine's expression, and find the rows on which this expression may be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from splade_integrations.milvus.filters.columns import Column
from splade_integrations.milvus.filters.dialect import Dialect
from splade_integrations.milvus.filters.id_keys import compares_in
from splade_integrations.milvus.filters.lite3 import Lite3
from splade_integrations.milvus.filters.said import Expression, Said, all_of, any_of, both, either
from splade_integrations.milvus.filters.strict import Lite2, Server
from splade_integrations.milvus.filters.text import Engine, FilterError, Layout, ids_expr, is_name
from splade_integrations.milvus.filters.tree import And, Compare, Filter, Not, Or

# A row to check in Python: its primary key and its metadata. If the filter asks for fields of the collection, a third
# item holds {field: its value}.
Row = tuple[Any, Mapping[str, Any]] | tuple[Any, Mapping[str, Any], Mapping[str, Any]]


@dataclass(frozen=True)
class Plan:
    """How to find the rows that satisfy a filter.

    If `doubtful` is None, `expr` is exact. Otherwise `expr` may be wrong on the rows that match `doubtful`. Read the
    primary keys and metadata of those rows, and use `resolve(rows)` in place of `expr`. `reach` matches every row that
    satisfies the filter, and may match other rows.

    Example:
        >>> layout = Layout()
        >>> plan = make_plan(Compare("year", "lt", 2000), layout, Engine.LITE3)
        >>> print(plan.doubtful)  # on milvus-lite 3, true equals 1
        (metadata["year"] == 0 or metadata["year"] == 1)
        >>> print(plan.resolve([("a", {"year": True}), ("b", {"year": 1})]))
        ((metadata["year"] < 2000 and pk not in ["a", "b"]) or pk in ["b"])
    """

    filter: Filter
    layout: Layout
    engine: Engine
    said: Said

    @property
    def expr(self) -> str:
        """The expression. It is "" if all rows match."""
        return self._sent(self.said.expr)

    @property
    def doubtful(self) -> str | None:
        """The expression for the rows to check: "" for all rows, or None if no row needs checking."""
        return None if self.said.doubt is False else self._sent(self.said.doubt)

    @property
    def reach(self) -> str:
        """The expression for all rows that may satisfy the filter."""
        return self._sent(self.said.reach)

    def resolve(self, rows: Iterable[Row]) -> str:
        """Return an exact expression. `rows` are the rows that match `doubtful`.

        Raises:
            FilterError: A primary key cannot be written in an expression of this engine.
        """
        looked_at = list(rows)
        found = matching_keys(self.filter, looked_at, self.layout)
        expr: Expression = self.said.expr
        if looked_at and expr is not False:
            expr = both(expr, self._ids([row[0] for row in looked_at], negated=True))
        return self._sent(either(expr, self._ids(found)) if found else expr)

    def _ids(self, keys: list[Any], negated: bool = False) -> str:
        layout = self.layout
        return ids_expr(layout.primary, keys, self.engine, negated=negated, is_text=layout.primary_is_text)

    def _sent(self, expr: Expression) -> str:
        if expr is True:
            return ""
        if expr is False:
            return self._ids([])
        return expr


def make_plan(filter: Filter, layout: Layout, engine: Engine) -> Plan:
    """Return the `Plan` for finding the rows that satisfy the filter.

    Raises:
        FilterError: A server cannot answer the filter, or the filter asks for a field that the collection lacks.
    """
    return Plan(filter, layout, engine, _said(filter, layout, engine, negated=False))


def to_expr(filter: Filter, layout: Layout, engine: Engine) -> str:
    """Return the exact expression for the filter.

    Raises:
        FilterError: There is no exact expression. The message names the key and the operator.
    """
    plan = make_plan(filter, layout, engine)
    if plan.doubtful is None:
        return plan.expr
    compare = next(
        each
        for each in compares_in(filter)
        if Plan(each, layout, engine, _said(each, layout, engine, False)).doubtful is not None
        or Plan(each, layout, engine, _said(each, layout, engine, True)).doubtful is not None
    )
    raise FilterError(
        f"{engine.value} cannot apply {compare.operator} exactly to {compare.key!r}: Python must check some rows. "
        "Call make_plan(filter, layout, engine), read the rows that match its `doubtful`, and call its resolve(rows)."
    )


def matching_keys(filter: Filter, rows: Iterable[Row], layout: Layout | None = None) -> list[Any]:
    """Return the primary keys of the rows that satisfy the filter, in the order of the rows.

    Args:
        filter: The filter.
        rows: (primary key, metadata) of each row. If the filter asks for fields of the collection, a third item holds
            their values by name.
        layout: The layout, which holds the name of the primary field. It is needed only if the filter uses that field.

    Example:
        >>> matching_keys(Compare("tenant", "eq", "a"), [(1, {"tenant": "a"}), (2, {}), (3, {"tenant": "b"})])
        [1]
    """
    keys = []
    for key, metadata, *columns in rows:
        fields = {**(columns[0] if columns else {}), **({layout.primary: key} if layout else {})}
        if filter.matches(metadata, fields):
            keys.append(key)
    return keys


def _said(filter: Filter, layout: Layout, engine: Engine, negated: bool) -> Said:
    """Return the engine's expression. A `Not` is moved inwards, so that only single comparisons are negated."""
    if isinstance(filter, Not):
        return _said(filter.filter, layout, engine, not negated)
    if isinstance(filter, (And, Or)):
        parts = [_said(each, layout, engine, negated) for each in filter.filters]
        return all_of(parts) if isinstance(filter, And) is not negated else any_of(parts)
    if isinstance(filter, Compare):
        return _dialect(filter, layout, engine).said(negated)
    raise FilterError(f"A filter must be made of And, Or, Not and Compare, got {type(filter).__name__}.")


def _dialect(compare: Compare, layout: Layout, engine: Engine) -> Dialect:
    fields = {layout.primary, *layout.columns, *layout.own}
    if compare.column and (compare.key not in fields or not is_name(compare.key)):
        raise FilterError(
            f"The field {compare.key!r} of the comparison {compare.operator!r} must be one of the collection's fields: "
            f"{', '.join(sorted(fields))}. If it is a metadata key, leave out column=True."
        )
    if compare.column or compare.key in layout.columns:
        return Column(compare, layout, engine)
    if engine is Engine.LITE3:
        return Lite3(compare, layout)
    return Lite2(compare, layout) if engine is Engine.LITE2 else Server(compare, layout)
