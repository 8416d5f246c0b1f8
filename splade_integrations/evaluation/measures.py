"""Measures of rankings by ir_measures, and how far they can be trusted: bootstrap intervals and a paired test.

Knows collections and rankings, no model.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splade_integrations.errors import require_extra
from splade_integrations.evaluation.collections import Collection
from splade_integrations.evaluation.ranking import Ranking

__all__ = ["MEASURES", "check_measures", "holm", "interval", "paired_test", "per_query"]

MEASURES = ("nDCG@10", "R@100", "MRR@10")
_RESAMPLES = 10_000


def per_query(
    collection: Collection, rankings: Sequence[Ranking], measures: Sequence[str] = MEASURES
) -> dict[str, NDArray[np.float64]]:
    """Measures as trec_eval defines them, for each judged query, found or not: {name: (Q,)}.

    Args:
        collection: Where the judgments are.
        rankings: One for each of the collection's queries, in their order.
        measures: Names of ir_measures, such as "nDCG@10", "R@100", "P@5", "AP"; "MRR@10" is its RR@10.
    Raises:
        ValueError: A measure is unknown.
        OptionalDependencyError: ir_measures is not installed.
    """
    parsed = check_measures(measures)
    # Scores that fall by whole numbers: trec_eval would break ties of real ones by document id.
    run = {
        query: {collection.document_ids[row]: float(-rank) for rank, row in enumerate(ranking.rows)}
        for query, ranking in zip(collection.query_ids, rankings, strict=True)
    }
    places = {query: place for place, query in enumerate(collection.query_ids)}
    names = {measure: name for name, measure in parsed.items()}
    values = {name: np.zeros(len(places)) for name in parsed}
    with require_extra("evaluate", module="splade_integrations.evaluation"):
        import ir_measures
    for metric in ir_measures.iter_calc(list(names), collection.qrels, run):
        values[names[metric.measure]][places[metric.query_id]] = metric.value
    return values


def check_measures(measures: Sequence[str]) -> dict[str, Any]:
    """{name: ir_measures' measure}.

    Raises:
        ValueError: One is unknown.
    """
    with require_extra("evaluate", module="splade_integrations.evaluation"):
        import ir_measures
    parsed = {}
    for name in measures:
        try:
            parsed[name] = ir_measures.parse_measure("RR" + name[3:] if name.startswith("MRR") else name)
        except Exception as err:  # it has an error of its own for names and one for their form
            raise ValueError(
                f"a measure must be one of ir_measures', such as nDCG@10, R@100 or P@5, got {name!r}. See its page."
            ) from err
    return parsed


def interval(values: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over queries: what other queries of the same kind could have given.

    Args:
        values: One for each query. (Q,).
        seed: Of the resampling.
    """
    draws = np.random.default_rng(seed).integers(0, len(values), (_RESAMPLES // 5, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def paired_test(values: NDArray[np.float64], baseline: NDArray[np.float64], *, seed: int = 0) -> float:
    """Two-sided p value of a difference of means over the same queries, by random sign flips.

    Args:
        values: One for each query. (Q,).
        baseline: The other system's. (Q,).
        seed: Of the flips.
    Source:
        Smucker et al., A comparison of statistical significance tests for information retrieval evaluation, CIKM 2007.
    """
    differences = values - baseline
    flips = np.random.default_rng(seed).choice((-1.0, 1.0), (_RESAMPLES, len(values)))
    extreme = np.abs(flips @ differences) >= abs(differences.sum()) - 1e-12
    return float((extreme.sum() + 1) / (_RESAMPLES + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for being several, by Holm's method.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = largest
    return corrected
