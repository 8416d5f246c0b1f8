"""Formats results as tables. A table is at most as wide as the terminal, or 80 columns if there is no terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from splade_integrations.cli.milvus_store import Hit
    from splade_integrations.encoding.explain import Explanation
    from splade_integrations.evaluation.fit import Fit
    from splade_integrations.evaluation.results import Comparison
    from splade_integrations.evaluation.sweep import QueryPoint, SweepPoint

__all__ = [
    "comparison_tables",
    "facts_table",
    "fit_table",
    "hits_table",
    "print_explained",
    "query_sweep_table",
    "sweep_table",
]

_TEXT_SHOWN = 160  # at most this many characters of a text are shown


def facts_table(facts: dict[str, Any]) -> Table:
    """Return a table with the name and the value of each fact."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(name.replace("_", " "), style="bold"), Text("not stated" if value is None else str(value)))
    return table


def hits_table(hits: "Sequence[Hit]", mode: str) -> Table:
    """Return a table with one row for each document that a search found."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", justify="right")
    table.add_column(f"{mode} score", justify="right", no_wrap=True)
    table.add_column("id", overflow="fold")
    table.add_column("text", overflow="fold", ratio=1)
    for rank, hit in enumerate(hits, start=1):
        text = " ".join(hit.text.split())
        shown = text if len(text) <= _TEXT_SHOWN else text[: _TEXT_SHOWN - 1] + "…"
        table.add_row(str(rank), f"{hit.score:.4f}", Text(hit.id), _with_metadata(shown, _not_in_id(hit)))
    return table


def _not_in_id(hit: "Hit") -> Mapping[str, Any]:
    """Return the metadata. Leave out a chunk's document and position if its id, such as "notes.md#3", states them."""
    document, position = (hit.metadata.get(name) for name in ("document", "position"))
    if hit.id != f"{document}#{position}":
        return hit.metadata
    return {name: value for name, value in hit.metadata.items() if name not in ("document", "position")}


def _with_metadata(text: str, metadata: Mapping[str, Any]) -> Text:
    """Return a text, and its metadata on the next line.

    If the text begins with a value of the metadata, such as a title, this value is left out of the metadata.
    """
    shown = "  ".join(
        f"{name}: {' '.join(str(value).split())}"
        for name, value in metadata.items()
        if not (isinstance(value, str) and text.startswith(value))
    )
    cut = shown if len(shown) <= _TEXT_SHOWN else shown[: _TEXT_SHOWN - 1] + "…"
    return Text.assemble(text, *([("\n" + cut, "dim")] if cut else []))


def print_explained(
    console: Console,
    hits: "Sequence[Hit]",
    explanations: "Sequence[Explanation]",
    places: Sequence[Mapping[str, Any]],
    mode: str,
) -> None:
    """Print each document that a search found, its score and rank on each side, and its explanation.

    A side is a kind of vector in the collection, such as "dense".

    Args:
        console: The console to print to.
        hits: N documents.
        explanations: N explanations.
        places: N dicts {side: the document's rank and score}, or [] if only one side was searched.
        mode: The kind of the hits' scores, such as "hybrid".
    """
    for rank, (hit, explanation) in enumerate(zip(hits, explanations, strict=True), start=1):
        console.rule(Text(f"{rank}. {hit.id}  ({mode} score {hit.score:.4f})"), align="left")
        if places:
            console.print(Text(" · ".join(f"{side} {_place(place)}" for side, place in places[rank - 1].items())))
        if line := _with_metadata("", _not_in_id(hit)).plain.strip():
            console.print(Text(line, style="dim"))
        console.print(explanation)


def _place(place: Mapping[str, Any] | None) -> str:
    return "not among its best" if place is None else f"{place['score']:.4f} (rank {place['rank']})"


def comparison_tables(comparison: "Comparison") -> Iterator[Any]:
    """Yield the parts to print: a line about the dataset, a table of quality, a table of costs, and a legend."""
    yield Text(
        f"\n{comparison.dataset}, {comparison.search} search: {comparison.documents} documents "
        f"({comparison.empty_documents} empty), {comparison.queries} judged queries, {comparison.judgments} judgments",
        style="bold",
    )
    yield _systems(comparison)
    if comparison.costs:
        yield _costs(comparison)
    yield Text(_reading(comparison))


def fit_table(fitted: "Fit") -> Iterator[Any]:
    """Yield the parts to print: a table of the chosen fusion and of simpler fusions, and a text about the choice."""
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("fusion", overflow="fold", min_width=21)
    table.add_column(fitted.measure, justify="right", no_wrap=True)
    table.add_column("95 %", justify="right", no_wrap=True)
    for name, value in fitted.others.items():
        table.add_row(name, _digits(value), "")
    chosen = Text(_digits(fitted.value), style="bold underline")
    table.add_row(Text(f"fitted: {fitted.fusion}", style="bold"), chosen, _interval(fitted.interval))
    yield table
    sides = {side for name in fitted.others for side in name.partition(",")[0].split(" + ")}
    count = len(fitted.fusion.sides)
    enough = "" if count == len(sides) else "One side is enough. " if count == 1 else "Two sides are enough. "
    again = (
        ""
        if fitted.itself == fitted.value
        else f" On the queries that the fusion was chosen on, it has {_digits(fitted.itself)}."
    )
    yield Text(
        f"{enough}Chosen on {fitted.chosen_on}. The figures are means over {fitted.queries} queries that were "
        f"not used for the choice.{again}"
    )


def sweep_table(points: "Sequence[SweepPoint]") -> Table:
    """Return a table with one row for each number type and pruning that the sweep tried."""
    from splade_integrations.evaluation.sweep import short_name

    measures = list(points[0].measures)
    table = Table(
        box=box.SIMPLE, padding=(0, 1), show_edge=False, title="Pruning and number types", title_justify="left"
    )
    table.add_column("dtype")
    for name in ("keep", "dims", "MB", "texts/s", *measures[:1], "95 %", *measures[1:]):
        table.add_column(name, justify="right", no_wrap=True)
    for point in points:
        values = [_digits(point.measures[name]) for name in measures]
        table.add_row(
            point.dtype,
            short_name(point.pruning),
            f"{point.dims_per_document:.0f}",
            f"{point.index_bytes / 1e6:.1f}",
            f"{point.texts_per_second:.0f}",
            values[0],
            _interval(point.interval),
            *values[1:],
        )
    return table


def query_sweep_table(points: "Sequence[QueryPoint]") -> Table:
    """Return a table with one row for each pruning of the queries."""
    from splade_integrations.evaluation.sweep import short_name

    measures = list(points[0].measures)
    table = Table(box=box.SIMPLE, padding=(0, 1), show_edge=False, title="Pruning of queries", title_justify="left")
    table.add_column("keep")
    for name in ("dims", "recall", "ms", *measures[:1], "95 %", *measures[1:]):
        table.add_column(name, justify="right", no_wrap=True)
    for point in points:
        values = [_digits(point.measures[name]) for name in measures]
        table.add_row(
            short_name(point.pruning),
            f"{point.dims_per_query:.1f}",
            _digits(point.recall),
            f"{point.milliseconds:.1f}",
            values[0],
            _interval(point.interval),
            *values[1:],
        )
    return table


def _systems(comparison: "Comparison") -> Table:
    measures = list(comparison.systems[0].measures)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("system", overflow="fold", min_width=21)
    table.add_column("fusion", no_wrap=True)
    for name in (measures[0], "95 %", *measures[1:], "p", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    best = max(system.measures[measures[0]] for system in comparison.systems)
    for system in comparison.systems:
        values = [_digits(system.measures[measure]) for measure in measures]
        name, _, fusion = system.name.partition(",")
        table.add_row(
            name,
            fusion.strip(),
            Text(values[0], style="bold underline" if system.measures[measures[0]] == best else ""),
            _interval(system.interval),
            *values[1:],
            "base" if system.p_value is None else f"{system.p_value:.3f}".removeprefix("0"),
            "" if system.latency_ms is None else f"{system.latency_ms:.1f}",
        )
    return table


def _costs(comparison: "Comparison") -> Table:
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


def _reading(comparison: "Comparison") -> str:
    measure = next(iter(comparison.systems[0].measures))
    weighted = [system for system in comparison.systems if system.weights is not None]
    lines = [
        f"95 %: the 95 % bootstrap interval of {measure} over the queries. p: the probability that chance alone makes "
        f"the difference from {comparison.baseline} this large (paired test by random sign flips, with Holm's "
        "correction for the number of systems). ms: the median time to encode and search a single query.",
    ]
    fused = [system for system in comparison.systems if system.queries_with_ties is not None]
    if fused:
        most = max(system.queries_with_ties or 0 for system in fused)
        lines.append(
            f"RRF: reciprocal rank fusion, k = {comparison.rrf_k}, {comparison.candidates} candidates per retriever; "
            f"{comparison.tie_rule}. The order of equal scores affects the first ten hits of up to {most} of the "
            f"{comparison.queries} queries."
        )
    if weighted:
        tuned = weighted[0].tuned_on
        lines.append(
            "weights: a fusion by a weighted sum of scores, which are first scaled to 0..1 per query. The weights are "
            + (f"chosen on {tuned}: " if tuned else "equal, because there is no train split: ")
            + "; ".join(
                ", ".join(f"{name} {weight:.2g}" for name, weight in (system.weights or {}).items())
                for system in weighted
            )
            + "."
        )
    if comparison.judged_but_absent:
        lines.append(
            f"{comparison.judged_but_absent} judgments name documents that are not in the corpus. These documents "
            "count as not found."
        )
    return "\n".join([*lines, *comparison.notes])


def _digits(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def _interval(interval: tuple[float, float]) -> str:
    return "–".join(f"{value:.3f}".removeprefix("0") for value in interval)
