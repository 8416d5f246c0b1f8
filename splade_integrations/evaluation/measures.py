"""Measures rankings with ir_measures, and computes bootstrap intervals and p values of the results."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splade_integrations.dependencies import require_extra
from splade_integrations.evaluation.dataset import Dataset
from splade_integrations.evaluation.ranking import Ranking, blocks

__all__ = ["DRAWN_AT_ONCE", "MEASURES", "check_measures", "holm", "interval", "paired_test", "per_query"]

MEASURES = ("nDCG@10", "R@100", "MRR@10")
# The number of random draws of signs in `paired_test`. With this number, a p value near 0.05 changes by about 0.002 if
# the random numbers have another seed. The smallest possible p value is 0.0001.
_SIGN_FLIPS = 10_000
# The number of random samples in `interval`. With this number, the ends of an interval move by about 1.5 % of its width
# if the random numbers have another seed.
_BOOTSTRAPS = 2_000
_SEED = 0  # fixed, so that each run gives the same figures
# The largest number of random numbers drawn in one call. The limit saves memory. Each random number takes 16 bytes, so
# a single call for all 10 000 signs of each query would take 160 KB per query.
DRAWN_AT_ONCE = 2**20


def per_query(
    dataset: Dataset, rankings: Sequence[Ranking], measures: Sequence[str] = MEASURES
) -> dict[str, NDArray[np.float64]]:
    """Return the value of each measure, as trec_eval defines it, for each judged query.

    A query without hits has the value 0.

    Args:
        dataset: The dataset with the judgments.
        rankings: One ranking for each of the dataset's queries, in the same order.
        measures: Names of measures, as ir_measures spells them, such as "nDCG@10", "R@100", "P@5" or "AP". "MRR@10"
            is also allowed, although ir_measures calls this measure RR@10.
    Returns:
        {name: the value for each query, (Q,)}.
    Raises:
        ValueError: A measure is unknown.
        OptionalDependencyError: ir_measures is not installed.
    """
    parsed = check_measures(measures)
    # Each rank gets a different score, because trec_eval would order documents with equal scores by their ids.
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
    """Check the names of measures, and return {name: measure object of ir_measures}.

    Raises:
        ValueError: A measure is unknown.
    """
    with require_extra("evaluate", module="splade_integrations.evaluation"):
        import ir_measures
    parsed = {}
    for name in measures:
        try:
            parsed[name] = ir_measures.parse_measure("RR" + name[3:] if name.startswith("MRR") else name)
        except Exception as err:  # ir_measures raises different errors for unknown names and for malformed names
            raise ValueError(
                f"a measure must be one that ir_measures knows, such as nDCG@10, R@100 or P@5, got {name!r}. "
                "See the list at https://ir-measur.es."
            ) from err
    return parsed


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean over queries.

    The interval shows how much the mean could differ if other queries of the same kind had been asked.

    Args:
        values: One value per query. (Q,).
    """
    generator = np.random.default_rng(_SEED)
    shapes = _shapes(_BOOTSTRAPS, len(values))
    means = [values[generator.integers(0, len(values), shape)].mean(axis=1) for shape in shapes]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def paired_test(values: NDArray[np.float64], baseline: NDArray[np.float64]) -> float:
    """Return the two-sided p value of the difference between two means over the same queries.

    The test flips the signs of the queries' differences at random, many times. It counts how often the sum of the
    differences is then at least as far from 0 as the real sum.

    Args:
        values: One value per query. (Q,).
        baseline: The baseline's value for each query. (Q,).
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
    """Split the shape (resamples, queries) into shapes of fewer rows.

    Drawing the random numbers part by part gives the same numbers as drawing the whole shape at once.
    """
    for rows in blocks(resamples, max(1, DRAWN_AT_ONCE // max(1, queries))):
        yield rows.stop - rows.start, queries


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for multiple tests by Holm's method.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = largest
    return corrected
