"""Compares systems on one dataset. A system is a single retriever, or a fusion of retrievers by rank or by weights.

This module computes results, and does not print or draw them.
"""

import time
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from splade_integrations.evaluation.dataset import Dataset
from splade_integrations.evaluation.fit import Fit, fit
from splade_integrations.evaluation.measures import MEASURES, holm, interval, paired_test, per_query
from splade_integrations.evaluation.ranking import Candidates, Ranking, fuse_rrf, has_tie
from splade_integrations.evaluation.results import Comparison, System
from splade_integrations.evaluation.retrievers import Costs, Retriever
from splade_integrations.fusion import RRF_K

__all__ = [
    "DEPTH",
    "check_baseline",
    "compare",
    "evaluate",
    "fusions",
    "median_ms",
    "rrf_name",
    "system_names",
]

# The number of hits in each ranking. The measure R@100 needs 100 hits.
DEPTH = 100
_TIMED_QUERIES = 30
_WEIGHT_STEP = 0.1


def evaluate(
    dataset: Dataset,
    retrievers: Sequence[Retriever],
    *,
    candidates: int = 100,
    measures: Sequence[str] = MEASURES,
    baseline: str | None = None,
    fitted: bool = False,
) -> Comparison:
    """Compare retrievers and their fusions by exact search.

    The function `fusions` returns the combinations of retrievers to fuse. Each combination is fused in two ways: by
    rank, and by weighted scores. The weights are those that give the best value of the first measure on the train
    split. Without a train split, all weights are equal.

    Args:
        dataset: The dataset.
        retrievers: Retrievers that have indexed the dataset's documents.
        candidates: The number of hits of each retriever that are fused.
        measures: Names of measures, as ir_measures spells them. Intervals, tests and weights use the first measure.
        baseline: The system to test the other systems against. None means the last retriever whose name begins with
            "BM25". If there is no such retriever, None means the first retriever.
        fitted: Whether to choose the best fusion as well. See `evaluation.fit`.
    Returns:
        The measures, tests and costs of each retriever and fusion.
    Raises:
        ValueError: The baseline or a measure is unknown.
    """
    names = [retriever.name for retriever in retrievers]
    check_baseline(baseline, system_names(names))
    depth = max(DEPTH, candidates)
    encoded = {retriever.name: retriever.encode(dataset.queries) for retriever in retrievers}
    found = {r.name: r.rank(encoded[r.name], depth) for r in retrievers}
    for retriever in retrievers:
        retriever.costs.dims_per_query = retriever.dims(encoded[retriever.name])
    train: dict[str, list[Ranking]] = {}
    if dataset.train is not None:
        train = {r.name: r.rank(r.encode(dataset.train.queries), candidates) for r in retrievers}
    latency = {retriever.name: _latency_ms(retriever, dataset, depth) for retriever in retrievers}
    return compare(
        dataset,
        found,
        train,
        rrf={},
        latency=latency | {rrf_name(parts): sum(latency[part] for part in parts) for parts in fusions(names)},
        candidates=candidates,
        measures=measures,
        baseline=baseline,
        search="exact",
        costs={retriever.name: retriever.costs for retriever in retrievers},
        fitted=fitted,
        notes=["BM25: bm25s, English stop words, Snowball stemmer; k1 = 1.5, b = 0.75."] if "BM25" in names else [],
    )


def compare(
    dataset: Dataset,
    found: dict[str, list[Ranking]],
    train: dict[str, list[Ranking]],
    *,
    rrf: dict[str, list[Ranking]],
    latency: dict[str, float],
    candidates: int,
    measures: Sequence[str],
    baseline: str | None,
    search: str,
    costs: dict[str, Costs],
    notes: list[str],
    fitted: bool = False,
) -> Comparison:
    """Measure the rankings of retrievers and of their fusions, and test them against the baseline.

    Args:
        dataset: The dataset.
        found: {retriever: a ranking for each query}.
        train: {retriever: a ranking for each query of the train split}, or {} if there is no train split.
        rrf: {fusion: a ranking for each query}, for the fusions by rank that Milvus has already computed. This function
            computes the other fusions.
        latency: {system: the median time of one query in milliseconds}.
        candidates: As in `evaluate`.
        measures: As in `evaluate`.
        baseline: As in `evaluate`.
        search: How the rankings were found: by "exact" search or by "Milvus".
        costs: {retriever: its costs}.
        notes: Remarks for readers of the results.
        fitted: As in `evaluate`.
    """
    systems = [_system(dataset, name, rankings, measures, latency.get(name)) for name, rankings in found.items()]
    for parts in fusions(list(found)):
        lists = [
            tuple(ranking.cut(candidates) for ranking in query)
            for query in zip(*(found[part] for part in parts), strict=True)
        ]
        by_rank = [fuse_rrf(query, RRF_K) for query in lists]
        name = rrf_name(parts)
        fused = rrf.get(name) or [ranking.cut(DEPTH) for ranking in by_rank]
        system = _system(dataset, name, fused, measures, latency.get(name))
        system.queries_with_ties = sum(has_tie(ranking, 10) for ranking in by_rank)
        systems.append(system)
        systems.append(_weighted_system(dataset, parts, lists, train, measures))
    names = [system.name for system in systems]
    check_baseline(baseline, names)
    against = baseline or _default_baseline(names)
    _test(systems, against)
    return Comparison(
        dataset=dataset.name,
        search=search,
        documents=len(dataset.documents),
        empty_documents=sum(not text for text in dataset.documents),
        queries=len(dataset.queries),
        judgments=dataset.judgments,
        judged_but_absent=dataset.judged_but_absent,
        candidates=candidates,
        rrf_k=RRF_K,
        tie_rule="equal scores keep the order of the corpus"
        if search == "exact"
        else "equal scores are in the store's order",
        baseline=against,
        systems=systems,
        costs=costs,
        notes=notes,
        fit=_fit(dataset, found, train, measures[0], candidates) if fitted else None,
    )


def _fit(
    dataset: Dataset, found: dict[str, list[Ranking]], train: dict[str, list[Ranking]], measure: str, depth: int
) -> Fit:
    """Choose a fusion of the dense retriever, SPLADE and the last BM25 retriever.

    In the fusion, the retrievers have the names that a store uses: "dense", "sparse" and "bm25".
    """
    lexical = [name for name in found if name.startswith("BM25")][-1:]
    names = {"dense": "dense", "sparse": "SPLADE", "bm25": "".join(lexical)}
    sides = {side: name for side, name in names.items() if name in found}
    return fit(
        dataset,
        {side: found[name] for side, name in sides.items()},
        {side: train[name] for side, name in sides.items()} if train else {},
        measure=measure,
        depth=depth,
    )


def fusions(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the combinations to fuse: dense + BM25, dense + SPLADE, and all three.

    Here, BM25 is the last retriever whose name begins with "BM25". A missing retriever is left out of a combination,
    and a combination of fewer than two retrievers is dropped.

    Example:
        >>> fusions(["BM25 unstemmed", "BM25", "SPLADE"])
        [('BM25', 'SPLADE')]
    """
    dense, splade = ([name] if name in names else [] for name in ("dense", "SPLADE"))
    lexical = [name for name in names if name.startswith("BM25")][-1:]
    wanted = [(*dense, *lexical), (*dense, *splade), (*dense, *lexical, *splade)]
    return [parts for place, parts in enumerate(wanted) if len(parts) > 1 and parts not in wanted[:place]]


def system_names(retrievers: Sequence[str]) -> list[str]:
    """Return the names of all systems: first the single retrievers, then their fusions.

    Example:
        >>> system_names(["BM25", "SPLADE"])
        ['BM25', 'SPLADE', 'BM25 + SPLADE, RRF', 'BM25 + SPLADE, weights']
    """
    return [*retrievers, *(name(parts) for parts in fusions(retrievers) for name in (rrf_name, _weights_name))]


def check_baseline(baseline: str | None, systems: Sequence[str]) -> None:
    """Check that `baseline` is one of these systems, or None. With None, `compare` chooses the baseline.

    Raises:
        ValueError: The baseline is unknown.
    """
    if baseline and baseline not in systems:
        raise ValueError(f"the baseline must be one of {'; '.join(systems)}, got {baseline!r}.")


def rrf_name(parts: Sequence[str]) -> str:
    """Return the name of the fusion by rank of these retrievers."""
    return f"{' + '.join(parts)}, RRF"


def _weights_name(parts: Sequence[str]) -> str:
    return f"{' + '.join(parts)}, weights"


def _system(
    dataset: Dataset, name: str, rankings: list[Ranking], measures: Sequence[str], latency: float | None
) -> System:
    values = per_query(dataset, rankings, measures)
    first = values[measures[0]]
    return System(
        name=name,
        measures={measure: float(found.mean()) for measure, found in values.items()},
        interval=interval(first),
        latency_ms=latency,
        values=first,
    )


def _weighted_system(
    dataset: Dataset,
    parts: Sequence[str],
    lists: Sequence[Sequence[Ranking]],
    train: dict[str, list[Ranking]],
    measures: Sequence[str],
) -> System:
    """Fuse by weights that are chosen on the train split or, if there is no train split, by equal weights."""
    weights, tuned_on = [1 / len(parts)] * len(parts), ""
    if dataset.train is not None:
        train_lists = list(zip(*(train[part] for part in parts), strict=True))
        weights = _tune(dataset.train, train_lists, measures[0])
        tuned_on = f"{len(dataset.train.queries)} train queries"
    fused = [Candidates(query).fuse(weights, DEPTH) for query in lists]
    system = _system(dataset, _weights_name(parts), fused, measures, None)
    system.weights, system.tuned_on = dict(zip(parts, weights, strict=True)), tuned_on
    return system


def _default_baseline(names: Sequence[str]) -> str:
    """Return the last BM25 retriever, or the first system if there is no BM25 retriever."""
    lexical = [name for name in names if name.startswith("BM25") and "+" not in name]
    return lexical[-1] if lexical else names[0]


def _test(systems: list[System], baseline: str) -> None:
    """Test the first measure of each system against the first measure of the baseline."""
    reference = next(system for system in systems if system.name == baseline)
    others = [system for system in systems if system is not reference]
    corrected = holm([paired_test(system.values, reference.values) for system in others])
    for system, p_value in zip(others, corrected, strict=True):
        system.difference = float(system.values.mean() - reference.values.mean())
        system.p_value = p_value


def _tune(train: Dataset, lists: Sequence[Sequence[Ranking]], measure: str) -> list[float]:
    """Return the weights with the best measure on the train split, in steps of 0.1.

    If several combinations of weights are equally good, return the most even one: its largest weight is the smallest.
    """
    prepared = [Candidates(query) for query in lists]
    steps = round(1 / _WEIGHT_STEP)
    best: tuple[float, float, list[float]] = (-1.0, 0.0, [])
    for counts in product(range(steps + 1), repeat=len(lists[0])):
        if sum(counts) != steps:
            continue
        weights = [count / steps for count in counts]
        rankings = [candidates.fuse(weights, DEPTH) for candidates in prepared]
        quality = float(per_query(train, rankings, [measure])[measure].mean())
        best = max(best, (round(quality, 6), -max(weights), weights))
    return best[2]


def _latency_ms(retriever: Retriever, dataset: Dataset, depth: int) -> float:
    return median_ms(lambda text: retriever.rank(retriever.encode([text]), depth), dataset)


def median_ms(search: Callable[[str], object], dataset: Dataset) -> float:
    """Return the median time of a single query in milliseconds, over the first queries of the dataset."""
    times = []
    for text in [dataset.queries[0], *dataset.queries[:_TIMED_QUERIES]]:  # the first call warms up and is not counted
        start = time.perf_counter()
        search(text)
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times[1:]))
