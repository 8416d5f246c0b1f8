"""What pruning and number types cost and save: one SPLADE model measured at several settings.

Knows retrievers, datasets and measures; draws nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from splade_integrations.evaluation.dataset import Dataset
from splade_integrations.evaluation.measures import MEASURES, interval, per_query
from splade_integrations.evaluation.retrievers import Splade
from splade_integrations.sparse import Pruning, SparseTextEncoder

__all__ = ["SweepPoint", "sweep"]


@dataclass(frozen=True)
class SweepPoint:
    """One setting of a model, and what was measured with it.

    Args:
        dtype: Number type of the model.
        max_active_dims: Most terms of a document, or None for all.
        dims_per_document: Terms of a document on average.
        index_bytes: Size of the inverted index: 8 bytes per stored term.
        texts_per_second: Documents encoded per second.
        measures: Means over the judged queries.
        interval: 95 % bootstrap interval of the first measure.
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
    """Measure a model at each number type and each pruning of its documents.

    Documents are encoded once for each number type. Pruning then keeps the heaviest terms of those rows.

    Args:
        dataset: The dataset.
        encoders: {number type: function that loads the model in it}.
        max_active_dims: Most terms of a document; None keeps all.
        measures: Names of ir_measures.
        report: Called with how many more documents are encoded.
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
