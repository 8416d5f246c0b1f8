"""Measures of rankings by ir_measures, and how far they can be trusted: bootstrap intervals and a paired test.

Knows datasets and rankings; knows no model.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splade_integrations.dependencies import require_extra
from splade_integrations.evaluation.dataset import Dataset
from splade_integrations.evaluation.ranking import Ranking, blocks

__all__ = ["DRAWN_AT_ONCE", "MEASURES", "check_measures", "holm", "interval", "paired_test", "per_query"]

MEASURES = ("nDCG@10", "R@100", "MRR@10")
# With this many a p value near 0.05 moves by about 0.002 with the seed, and the smallest possible one is 0.0001.
_SIGN_FLIPS = 10_000
# With this many the ends of an interval move by about 1.5 % of its width with the seed.
_BOOTSTRAPS = 2_000
_SEED = 0  # the same figures each time
# Random numbers drawn at once, 16 bytes each. Drawing all at once would take 160 KB per query.
DRAWN_AT_ONCE = 2**20


def per_query(
    dataset: Dataset, rankings: Sequence[Ranking], measures: Sequence[str] = MEASURES
) -> dict[str, NDArray[np.float64]]:
    """Return measures as trec_eval defines them, for every judged query, even if nothing was found for it.

    Args:
        dataset: It holds the judgments.
        rankings: One for each of the dataset's queries, in their order.
        measures: Names of ir_measures, such as "nDCG@10", "R@100", "P@5", "AP"; "MRR@10" is its RR@10.
    Returns:
        {name: values of (Q,)}.
    Raises:
        ValueError: A measure is unknown.
        OptionalDependencyError: ir_measures is not installed.
    """
    parsed = check_measures(measures)
    # Scores that fall by whole numbers, because trec_eval breaks ties of real scores by document id.
    run = {
        query: {dataset.document_ids[row]: float(-rank) for rank, row in enumerate(ranking.rows)}
        for query, ranking in zip(dataset.query_ids, rankings, strict=True)
    }
    places = {query: place for place, query in enumerate(dataset.query_ids)}
    names = {measure: name for name, measure in parsed.items()}
    values = {name: np.zeros(len(places)) for name in parsed}
    with require_extra("evaluate", module="splade_integrations.evaluation"):
        import ir_measures
    for metric in ir_measures.iter_calc(list(names), dataset.qrels, run):
        values[names[metric.measure]][places[metric.query_id]] = metric.value
    return values


def check_measures(measures: Sequence[str]) -> dict[str, Any]:
    """Return {name: ir_measures' measure}.

    Raises:
        ValueError: A measure is unknown.
    """
    with require_extra("evaluate", module="splade_integrations.evaluation"):
        import ir_measures
    parsed = {}
    for name in measures:
        try:
            parsed[name] = ir_measures.parse_measure("RR" + name[3:] if name.startswith("MRR") else name)
        except Exception as err:  # it raises one error for unknown names and another for malformed ones
            raise ValueError(
                f"a measure must be one of ir_measures', such as nDCG@10, R@100 or P@5, got {name!r}. See ir-measur.es."
            ) from err
    return parsed


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean over queries: what other queries of the same kind could have given.

    Args:
        values: One per query. (Q,).
    """
    generator = np.random.default_rng(_SEED)
    shapes = _shapes(_BOOTSTRAPS, len(values))
    means = [values[generator.integers(0, len(values), shape)].mean(axis=1) for shape in shapes]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def paired_test(values: NDArray[np.float64], baseline: NDArray[np.float64]) -> float:
    """Return the two-sided p value of a difference of means over the same queries, by random sign flips.

    Args:
        values: One per query. (Q,).
        baseline: The other system's. (Q,).
    Source:
        Smucker et al., A comparison of statistical significance tests for information retrieval evaluation, CIKM 2007.
    """
    differences = values - baseline
    generator = np.random.default_rng(_SEED)
    least, extreme = abs(differences.sum()) - 1e-12, 0
    for shape in _shapes(_SIGN_FLIPS, len(values)):
        extreme += int((np.abs(generator.choice((-1.0, 1.0), shape) @ differences) >= least).sum())
    return (extreme + 1) / (_SIGN_FLIPS + 1)


def _shapes(resamples: int, queries: int) -> Iterator[tuple[int, int]]:
    """Split the shape (resamples, queries) into parts of a few rows; drawing them in turn equals drawing the whole."""
    for rows in blocks(resamples, max(1, DRAWN_AT_ONCE // max(1, queries))):
        yield rows.stop - rows.start, queries


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for multiple tests, by Holm's method.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = largest
    return corrected
