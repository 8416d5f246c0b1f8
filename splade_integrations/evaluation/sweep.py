"""Measures one SPLADE model with several prunings and number types, to show how its quality, size and speed change."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from splade_integrations.evaluation.dataset import Dataset
from splade_integrations.evaluation.measures import MEASURES, interval, per_query
from splade_integrations.evaluation.retrievers import Splade
from splade_integrations.sparse import Pruning, SparseTextEncoder

__all__ = ["SweepPoint", "sweep"]


@dataclass(frozen=True)
class SweepPoint:
    """One setting of a model, and its results.

    Args:
        dtype: The number type of the model, such as float32.
        max_active_dims: The largest number of terms of a document, or None for all terms.
        dims_per_document: The average number of terms of a document.
        index_bytes: The size of the index in bytes: 8 for each stored term, plus the offset of each document's terms.
        texts_per_second: The number of documents encoded per second, without pruning.
        measures: {measure: mean over the judged queries}.
        interval: The 95 % bootstrap interval of the first measure.
    """

    dtype: str
    max_active_dims: int | None
    dims_per_document: float
    index_bytes: int
    texts_per_second: float
    measures: dict[str, float]
    interval: tuple[float, float]


def sweep(
    dataset: Dataset,
    encoders: Mapping[str, Callable[[], SparseTextEncoder]],
    max_active_dims: Sequence[int | None] = (None,),
    *,
    measures: Sequence[str] = MEASURES,
    report: Callable[[int], object] = lambda _: None,
) -> list[SweepPoint]:
    """Measure a model with each number type and each pruning of its documents.

    Documents are encoded once for each number type. Pruning then keeps the terms with the largest weights.

    Args:
        dataset: The dataset.
        encoders: {number type: function that loads the model with this number type}.
        max_active_dims: The prunings to try. Each is the largest number of terms of a document. None keeps all terms.
        measures: Names of measures, as ir_measures spells them.
        report: Called with the number of documents encoded since the last call.
    """
    points = []
    for dtype, load in encoders.items():
        encoder = load()
        whole = Splade(encoder, dataset.documents, report)
        queries = whole.encode(dataset.queries)
        for limit in max_active_dims:
            pruning = None if limit is None else Pruning(max_active_dims=limit)
            pruned = Splade(encoder, whole.documents, pruning=pruning)
            values = per_query(dataset, pruned.rank(queries, 100), measures)
            points.append(
                SweepPoint(
                    dtype=dtype,
                    max_active_dims=limit,
                    dims_per_document=pruned.costs.dims_per_document,
                    index_bytes=pruned.costs.index_bytes,
                    texts_per_second=whole.costs.texts_per_second,
                    measures={name: float(found.mean()) for name, found in values.items()},
                    interval=interval(values[measures[0]]),
                )
            )
    return points
