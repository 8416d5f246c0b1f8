"""Comparisons and sweeps as tables of at most 80 columns, wider where the terminal is. Knows results only."""

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from splade_integrations.evaluation.compare import Comparison
from splade_integrations.evaluation.sweep import SweepPoint

__all__ = ["comparison_tables", "sweep_table"]


def comparison_tables(comparison: Comparison) -> Iterator[Any]:
    """What rich prints: the collection, the systems, what they cost, and how to read it."""
    yield Text(
        f"\n{comparison.collection}, {comparison.search} search: {comparison.documents} documents "
        f"({comparison.empty_documents} empty), {comparison.queries} judged queries, {comparison.judgments} judgments",
        style="bold",
    )
    yield _systems(comparison)
    if comparison.costs:
        yield _costs(comparison)
    yield Text(_reading(comparison))


def sweep_table(points: list[SweepPoint]) -> Table:
    """One row for each setting."""
    measures = list(points[0].measures)
    table = Table(
        box=box.SIMPLE, padding=(0, 1), show_edge=False, title="Pruning and number types", title_justify="left"
    )
    table.add_column("dtype")
    for name in ("max dims", "dims", "MB", "texts/s", *measures[:1], "95 %", *measures[1:]):
        table.add_column(name, justify="right", no_wrap=True)
    for point in points:
        values = [_digits(point.measures[name]) for name in measures]
        table.add_row(
            point.dtype,
            "all" if point.max_active_dims is None else str(point.max_active_dims),
            f"{point.dims_per_document:.0f}",
            f"{point.index_bytes / 1e6:.1f}",
            f"{point.texts_per_second:.0f}",
            values[0],
            _interval(point.interval),
            *values[1:],
        )
    return table


def _systems(comparison: Comparison) -> Table:
    measures = list(comparison.systems[0].measures)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("system", overflow="fold", min_width=21)
    table.add_column("fusion", no_wrap=True)
    for name in (measures[0], "95 %", *measures[1:], "p", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    best = max(system.measures[measures[0]] for system in comparison.systems)
    for system in comparison.systems:
        values = [_digits(system.measures[name]) for name in measures]
        table.add_row(
            *(part.strip() for part in f"{system.name}, ".split(",")[:2]),
            Text(values[0], style="bold underline" if system.measures[measures[0]] == best else ""),
            _interval(system.interval),
            *values[1:],
            "base" if system.p_value is None else f"{system.p_value:.3f}".removeprefix("0"),
            "" if system.latency_ms is None else f"{system.latency_ms:.1f}",
        )
    return table


def _costs(comparison: Comparison) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1), show_edge=False)
    table.add_column("cost of", min_width=21)
    for name in ("texts/s", "dims/document", "dims/query", "index MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, cost in comparison.costs.items():
        table.add_row(
            name,
            f"{cost.texts_per_second:,.0f}",
            f"{cost.dims_per_document:.0f}",
            f"{cost.dims_per_query:.0f}",
            f"{cost.index_bytes / 1e6:.1f}",
        )
    return table


def _reading(comparison: Comparison) -> str:
    measure = next(iter(comparison.systems[0].measures))
    weighted = [system for system in comparison.systems if system.weights is not None]
    lines = [
        f"95 %: bootstrap interval of {measure} over queries. p: how often chance alone would give a difference from "
        f"{comparison.baseline} this large; paired sign flips, corrected for the number of systems by Holm. ms: one "
        "query alone, median, encoding and search.",
    ]
    fused = [system for system in comparison.systems if system.queries_with_ties is not None]
    if fused:
        most = max(system.queries_with_ties or 0 for system in fused)
        lines.append(
            f"RRF: k = {comparison.rrf_k}, {comparison.candidates} candidates a side; {comparison.tie_rule} "
            f"(matters in the first ten of up to {most} of {comparison.queries} queries)."
        )
    if weighted:
        tuned = weighted[0].tuned_on
        lines.append(
            "Weights: of scores scaled to 0..1 by query, "
            + (f"chosen on {tuned}: " if tuned else "equal, for want of a train split: ")
            + "; ".join(
                ", ".join(f"{side} {weight:.2g}" for side, weight in (system.weights or {}).items())
                for system in weighted
            )
            + "."
        )
    if comparison.judged_but_absent:
        lines.append(
            f"{comparison.judged_but_absent} judgments name documents that the corpus lacks: they count as missed."
        )
    return "\n".join([*lines, *comparison.notes])


def _digits(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def _interval(interval: tuple[float, float]) -> str:
    return "–".join(f"{value:.3f}".removeprefix("0") for value in interval)
