"""Plots the results of `evaluate` (a comparison of systems) and of `sweep` (one model with several settings).

The plots are readable in black and white, because markers and line styles tell the systems apart.
"""

from collections.abc import Sequence
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.evaluation.results import Comparison
from splade_integrations.evaluation.sweep import SweepPoint, short_name

__all__ = ["plot_comparison", "plot_sweep"]

_MARKERS = "osD^vP"
_COLOURS = ("#1b5e9b", "#c25b00", "#2e7d32", "#7b1fa2")


def plot_comparison(comparison: Comparison, ax: Any = None) -> Any:
    """Plot the first measure of each system with its 95 % interval, and the baseline's mean as a line.

    Args:
        comparison: What `evaluate` returned.
        ax: Axes to draw into. None makes a new figure.
    Returns:
        The axes.
    Raises:
        OptionalDependencyError: matplotlib is not installed.
    """
    systems = comparison.systems
    ax = ax if ax is not None else _axes(7.5, 1.3 + 0.33 * len(systems))
    measure = next(iter(systems[0].measures))
    for place, system in enumerate(systems):
        value, (low, high) = system.measures[measure], system.interval
        fused = "+" in system.name
        ax.errorbar(
            value,
            place,
            xerr=[[value - low], [high - value]],
            fmt="D" if fused else "o",
            color=_COLOURS[0] if fused else "black",
            markerfacecolor=_COLOURS[0] if fused else "white",
            capsize=3,
            markersize=6,
        )
        ax.annotate(
            f"{value:.3f}",
            (value, place),
            textcoords="offset points",
            xytext=(0, 6),
            ha="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    baseline = comparison.system(comparison.baseline).measures[measure]
    ax.axvline(baseline, color="grey", linestyle="--", linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(systems)), [system.name for system in systems])
    ax.set_ylim(len(systems) - 0.4, -0.8)
    ax.set_xlabel(f"{measure} (0 to 1), mean over {comparison.queries} queries and its 95 % interval")
    ax.set_title(f"{comparison.dataset}, {comparison.search} search; dashed: {comparison.baseline}", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_sweep(points: Sequence[SweepPoint], comparison: Comparison | None = None, ax: Any = None) -> Any:
    """Plot the first measure against the index size, with a line for each number type and a point for each pruning.

    Args:
        points: What `sweep` returned.
        comparison: A comparison on the same dataset, or None. The results of its baseline and of its dense retriever
            are drawn as horizontal lines.
        ax: Axes to draw into. None makes a new figure.
    Returns:
        The axes.
    Raises:
        OptionalDependencyError: matplotlib is not installed.
    """
    ax = ax if ax is not None else _axes(7.5, 4.5)
    measure = next(iter(points[0].measures))
    for place, dtype in enumerate(dict.fromkeys(point.dtype for point in points)):
        line = sorted((point for point in points if point.dtype == dtype), key=lambda point: point.index_bytes)
        shift = 1.02**place  # so that number types with equal points do not hide each other
        x = [point.index_bytes / 1e6 * shift for point in line]
        y = [point.measures[measure] for point in line]
        errors = [
            [value - point.interval[0] for value, point in zip(y, line, strict=True)],
            [point.interval[1] - value for value, point in zip(y, line, strict=True)],
        ]
        ax.errorbar(
            x,
            y,
            yerr=errors,
            marker=_MARKERS[place % len(_MARKERS)],
            linestyle=("-", "--", ":", "-.")[place % 4],
            color=_COLOURS[place % len(_COLOURS)],
            markerfacecolor="white" if place else _COLOURS[0],
            capsize=2,
            elinewidth=0.6,
            label=f"SPLADE {dtype}, {line[-1].texts_per_second:.0f} texts/s",
        )
        if place == 0:
            for point, horizontal, vertical in zip(line, x, y, strict=True):
                name, place_of_name = short_name(point.pruning), {"xytext": (-6, 7), "ha": "right", "fontsize": 8}
                ax.annotate(name, (horizontal, vertical), textcoords="offset points", **place_of_name)
    for system, style in _references(comparison):
        ax.axhline(system.measures[measure], color="grey", linestyle=style, linewidth=1, label=system.name)
    ax.set_xscale("log")
    ax.minorticks_off()
    ticks = sorted({float(f"{point.index_bytes / 1e6:.2g}") for point in points})
    kept = [tick for n, tick in enumerate(ticks) if n == 0 or tick > 1.15 * ticks[n - 1]]
    ax.set_xticks(kept, [f"{tick:g}" for tick in kept])
    ax.margins(x=0.12)
    ax.set_xlabel("index size (MB, log scale); labels: terms kept per document")
    ax.set_ylabel(f"{measure} (0 to 1) with 95 % interval")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _references(comparison: Comparison | None) -> list[tuple[Any, str]]:
    if comparison is None:
        return []
    singles = [system for system in comparison.systems if system.name in ("dense", comparison.baseline)]
    return list(zip(singles, ("--", ":"), strict=False))


def _axes(width: float, height: float) -> Any:
    with require_extra("evaluate", module=__name__):
        from matplotlib import pyplot
    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]
