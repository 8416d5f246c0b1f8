"""Measures one SPLADE model with several prunings of documents and queries, and with several number types."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from splade_integrations.evaluation.dataset import Dataset
from splade_integrations.evaluation.measures import MEASURES, interval, per_query
from splade_integrations.evaluation.retrievers import Splade
from splade_integrations.pruning import Pruning
from splade_integrations.sparse import SparseTextEncoder

__all__ = ["QueryPoint", "SweepPoint", "short_name", "sweep", "sweep_queries"]

_DEPTH = 100
_TIMED_QUERIES = 30


@dataclass(frozen=True)
class SweepPoint:
    """One setting of a model, and its results.

    Args:
        dtype: The number type of the model, such as float32.
        pruning: The rules that decide which terms of a document are kept.
        dims_per_document: The average number of terms of a document.
        index_bytes: The size of the index: 8 bytes for each stored term, plus the offset of each document's terms.
        texts_per_second: The number of documents encoded per second, without pruning.
        measures: {measure: mean over the judged queries}.
        interval: The 95 % bootstrap interval of the first measure.
    """

    dtype: str
    pruning: Pruning
    dims_per_document: float
    index_bytes: int
    texts_per_second: float
    measures: dict[str, float]
    interval: tuple[float, float]


def sweep(
    dataset: Dataset,
    encoders: Mapping[str, Callable[[], SparseTextEncoder]],
    prunings: Sequence[Pruning | int | None] = (None,),
    *,
    measures: Sequence[str] = MEASURES,
    report: Callable[[int], object] = lambda _: None,
) -> list[SweepPoint]:
    """Measure a model with each number type and each pruning of its documents.

    Documents are encoded once for each number type. Each pruning is then applied to the same embeddings.

    Args:
        dataset: The dataset.
        encoders: {number type: function that loads the model with this number type}. The function should load the model
            with `document_pruning=Pruning()`, which keeps all terms. Without it, each pruning is applied after the
            model's own pruning.
        prunings: The prunings to try. A number is the largest number of terms of a document. None keeps all terms.
        measures: Names of measures, as ir_measures spells them.
        report: Called with the number of documents encoded since its last call.
    """
    points = []
    for dtype, load in encoders.items():
        encoder = load()
        whole = Splade(encoder, dataset.documents, report)
        queries = whole.encode(dataset.queries)
        for rule in prunings:
            pruning = rule if isinstance(rule, Pruning) else Pruning(max_active_dims=rule)
            pruned = Splade(encoder, whole.documents, pruning=pruning)
            values = per_query(dataset, pruned.rank(queries, _DEPTH), measures)
            points.append(
                SweepPoint(
                    dtype=dtype,
                    pruning=pruning,
                    dims_per_document=pruned.costs.dims_per_document,
                    index_bytes=pruned.costs.index_bytes,
                    texts_per_second=whole.costs.texts_per_second,
                    measures={name: float(found.mean()) for name, found in values.items()},
                    interval=interval(values[measures[0]]),
                )
            )
    return points


def short_name(pruning: Pruning) -> str:
    """Return a pruning as the options of `splade evaluate` spell it.

    Example:
        >>> [short_name(rule) for rule in (Pruning(), Pruning(max_active_dims=64), Pruning(mass=0.9, max_ratio=0.1))]
        ['all', '64', '0.9 0.1max']
    """
    rules = {
        "{}": pruning.max_active_dims,
        "{:g}": pruning.mass,
        "{:g}max": pruning.max_ratio,
        "{:g}min": pruning.min_weight,
    }
    return " ".join(rule.format(value) for rule, value in rules.items() if value) or "all"


@dataclass(frozen=True)
class QueryPoint:
    """One pruning of the queries, and its results.

    Args:
        pruning: The pruning.
        dims_per_query: The average number of terms of a query.
        recall: The share of the unpruned query's first 100 hits that are also among the pruned query's first 100 hits,
            as a mean over the queries.
        milliseconds: The median time to search for one query.
        measures: {measure: mean over the judged queries}.
        interval: The 95 % bootstrap interval of the first measure.
    """

    pruning: Pruning
    dims_per_query: float
    recall: float
    milliseconds: float
    measures: dict[str, float]
    interval: tuple[float, float]


def sweep_queries(
    dataset: Dataset, splade: Splade, prunings: Sequence[Pruning], *, measures: Sequence[str] = MEASURES
) -> list[QueryPoint]:
    """Measure a model with each pruning of the queries. The documents do not change.

    Args:
        dataset: The dataset.
        splade: The model, with its index of the dataset's documents.
        prunings: The prunings to try.
        measures: Names of measures, as ir_measures spells them.
    """
    queries = splade.encode(dataset.queries)
    whole = [set(ranking.rows) for ranking in splade.rank(queries, _DEPTH)]
    points = []
    for pruning in prunings:
        pruned = pruning.apply(queries)
        rankings = splade.rank(pruned, _DEPTH)
        kept = [
            len(best & set(ranking.rows)) / len(best) for best, ranking in zip(whole, rankings, strict=True) if best
        ]
        values = per_query(dataset, rankings, measures)
        points.append(
            QueryPoint(
                pruning=pruning,
                dims_per_query=splade.dims(pruned),
                recall=float(np.mean(kept)) if kept else 1.0,
                milliseconds=_median_ms(splade, pruned),
                measures={name: float(found.mean()) for name, found in values.items()},
                interval=interval(values[measures[0]]),
            )
        )
    return points


def _median_ms(splade: Splade, queries: csr_array) -> float:
    times = []
    for row in range(min(_TIMED_QUERIES, queries.shape[0])):
        start = time.perf_counter()
        splade.rank(queries[[row]], _DEPTH)
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times))
