"""Uses judged queries to choose the sides of a hybrid search, and the way to fuse their hits.

A side is one kind of vector: dense, SPLADE or BM25. A fusion looks better on the queries on which it was chosen than on
other queries. So `Fit.value` is measured on queries that the choice did not use. With a train split, these are the
queries of the test split. Without a train split, they are the held-out queries of a cross-validation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splade_integrations.evaluation.dataset import Dataset
from splade_integrations.evaluation.measures import interval, per_query
from splade_integrations.evaluation.ranking import Ranking
from splade_integrations.fusion import METHODS, Fusion, contributions, ordered

__all__ = ["LEAST_QUERIES", "Fit", "fit", "fusions_to_try"]

LEAST_QUERIES = 40  # with fewer queries, the choice would mostly be chance
_FOLDS = 10
_STEPS = 10  # weights are multiples of 1 / _STEPS
_SEED = 0  # of the random folds; fixed, so that each run gives the same choice


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The chosen fusion, its quality, and the quality of simple alternatives.

    Args:
        fusion: The chosen fusion.
        measure: The name of the measure.
        value: The mean of the measure over queries that the choice did not use. Without a train split, cross-validation
            divides the queries into folds. Each query is then measured under the fusion that is chosen on the other
            folds.
        itself: The mean of the measure under `fusion`, over the same queries as `value`. With a train split, `itself`
            equals `value`. Without a train split, `fusion` was chosen on these queries, so expect a lower mean over
            other queries.
        interval: The 95 % bootstrap interval of `value`.
        others: {alternative in words: the mean of the measure over the same queries}. The alternatives are each side
            alone, and the fusion of all sides by rank with equal weights.
        queries: The number of queries over which `value` is a mean.
        chosen_on: The queries on which the fusion was chosen, in words.
    """

    fusion: Fusion
    measure: str
    value: float
    itself: float
    interval: tuple[float, float]
    others: Mapping[str, float]
    queries: int
    chosen_on: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fit as plain data for JSON."""
        return {**vars(self), "fusion": self.fusion.to_dict(), "others": dict(self.others)}


def fit(
    dataset: Dataset,
    found: Mapping[str, Sequence[Ranking]],
    train: Mapping[str, Sequence[Ranking]],
    *,
    measure: str,
    depth: int,
) -> Fit:
    """Choose the sides, the method and the weights of a fusion.

    With a train split, the choice is made on the train split. Without a train split, the choice is made on all queries,
    and cross-validation measures how good such a choice is on other queries. A fusion is called simple if it is one
    side alone, or a fusion by rank with equal weights. A fusion that is not simple is chosen only if it is better than
    the best simple fusion by more than the standard error of the difference.

    Args:
        dataset: The dataset.
        found: {side: a ranking for each query of the dataset}.
        train: {side: a ranking for each query of the train split}, or {} if there is no train split.
        measure: The name of the measure.
        depth: The number of hits of each side that are fused.
    Raises:
        ValueError: There are too few judged queries.
    """
    judged = dataset if dataset.train is None else dataset.train
    if len(judged.queries) < LEAST_QUERIES:
        raise ValueError(
            f"a fusion must be fitted on at least {LEAST_QUERIES} judged queries, got {len(judged.queries)}. Judge "
            "more queries, or keep the default, reciprocal rank fusion."
        )
    tried = fusions_to_try(tuple(found))
    values = _values(dataset, found, tried, measure, depth)
    if dataset.train is not None:
        best = _choice(_values(dataset.train, train, tried, measure, depth), tried)
        held_out, chosen_on = values[:, best], f"{len(judged.queries)} train queries"
    else:
        best = _choice(values, tried)
        held_out = _cross_validated(values, tried)
        chosen_on = f"all {len(judged.queries)} queries, and judged by {_FOLDS}-fold cross-validation"
    simple = [place for place, one in enumerate(tried) if len(one.sides) == 1 or _is_default(one, tuple(found))]
    return Fit(
        fusion=replace(tried[best], depth=depth),
        measure=measure,
        value=float(held_out.mean()),
        itself=float(values[:, best].mean()),
        interval=interval(held_out),
        others={str(tried[place]): float(values[:, place].mean()) for place in simple},
        queries=len(held_out),
        chosen_on=chosen_on,
    )


@cache
def fusions_to_try(sides: tuple[str, ...]) -> list[Fusion]:
    """Return each side alone, and all fusions of two or more sides.

    Sides are fused by rank and by scaled scores, with equal weights or with unequal weights in steps of 0.1.

    Example:
        >>> len(fusions_to_try(("dense", "sparse"))), len(fusions_to_try(("dense", "sparse", "bm25")))
        (20, 131)
    """
    tried: list[Fusion] = []
    for subset in (some for size in range(1, len(sides) + 1) for some in combinations(sides, size)):
        if len(subset) == 1:
            tried.append(Fusion(sides=subset))
            continue
        counts = [one for one in product(range(1, _STEPS), repeat=len(subset)) if sum(one) == _STEPS]
        weights = [None, *(tuple(count / _STEPS for count in one) for one in counts if len(set(one)) > 1)]
        tried += [Fusion(sides=subset, method=method, weights=one) for method in METHODS for one in weights]
    return tried


def _values(
    dataset: Dataset, found: Mapping[str, Sequence[Ranking]], tried: Sequence[Fusion], measure: str, depth: int
) -> NDArray[np.float64]:
    """Return the measure of each query under each fusion, (Q, F)."""
    columns: list[NDArray[np.float64]] = []
    parts: dict[tuple[tuple[str, ...], str], list[tuple[NDArray[Any], NDArray[np.float64]]]] = {}
    for fusion in tried:
        key = (fusion.sides, fusion.method)
        if key not in parts:
            queries = zip(*(found[side] for side in fusion.sides), strict=True)
            parts[key] = [contributions([_cut(one, depth) for one in query], fusion.method) for query in queries]
        weights = np.asarray(fusion.weights or [1.0] * len(fusion.sides))
        rankings = [Ranking(*ordered(rows, scores @ weights, depth)) for rows, scores in parts[key]]
        columns.append(per_query(dataset, rankings, [measure])[measure])
    return np.stack(columns, axis=1)


def _choice(values: NDArray[np.float64], tried: Sequence[Fusion]) -> int:
    """Return the index of the chosen fusion: the best simple fusion, or another fusion if it is clearly better.

    A simple fusion is a side alone, or a fusion by rank with equal weights. If many fusions are tried, one of them can
    look best by luck. Most fusions are not simple, so the luckiest fusion is probably not simple. To make up for this
    luck, a fusion that is not simple must be better than the best simple fusion by more than one standard error of the
    difference.

    Args:
        values: The measure of each query under each fusion, (Q, F).
        tried: The F fusions.
    """
    simple = [place for place, fusion in enumerate(tried) if fusion.plain]
    best: int = simple[int(values[:, simple].mean(axis=0).argmax())]
    gains = values - values[:, [best]]
    margin = gains.std(axis=0, ddof=1) / np.sqrt(len(values))
    return int((gains.mean(axis=0) - margin).argmax())


def _cross_validated(values: NDArray[np.float64], tried: Sequence[Fusion]) -> NDArray[np.float64]:
    """Return the measure of each query under the fusion that is chosen on the other folds, (Q,)."""
    held_out = np.empty(len(values))
    folds = np.random.default_rng(_SEED).permutation(len(values)) % _FOLDS
    for fold in range(_FOLDS):
        held_out[folds == fold] = values[folds == fold, _choice(values[folds != fold], tried)]
    return held_out


def _cut(ranking: Ranking, depth: int) -> tuple[list[int], list[float]]:
    return ranking.rows[:depth], ranking.scores[:depth]


def _is_default(fusion: Fusion, sides: tuple[str, ...]) -> bool:
    return fusion.plain and fusion.sides == sides
