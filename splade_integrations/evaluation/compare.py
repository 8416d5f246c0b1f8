"""Systems side by side on one dataset: single retrievers, and their fusions by rank and by tuned weights.

Knows datasets, retrievers, rankings and measures; neither prints nor draws.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splade_integrations.evaluation.dataset import Dataset
from splade_integrations.evaluation.measures import MEASURES, holm, interval, paired_test, per_query
from splade_integrations.evaluation.ranking import Candidates, Ranking, fuse_rrf, has_tie
from splade_integrations.evaluation.retrievers import Costs, Retriever
from splade_integrations.milvus.defaults import RRF_K

__all__ = [
    "DEPTH",
    "Comparison",
    "System",
    "check_baseline",
    "compare",
    "evaluate",
    "fusions",
    "median_ms",
    "rrf_name",
    "system_names",
]

# R@100 looks at this many hits.
DEPTH = 100
_TIMED_QUERIES = 30
_WEIGHT_STEP = 0.1


@dataclass
class System:
    """One row of the comparison.

    Args:
        name: What it is.
        measures: Means over the judged queries.
        interval: 95 % bootstrap interval of the first measure.
        difference: Of the first measure from the baseline's.
        p_value: Of that difference, by a paired test, corrected for the number of systems. None for the baseline.
        weights: For a fusion by weights: {retriever: weight}.
        tuned_on: The queries on which the weights were chosen, or "" for equal weights.
        latency_ms: Median milliseconds of one query: encoding and search.
        queries_with_ties: For a fusion by rank: how many queries have first ten hits that depend on the tie rule.
        values: The first measure of each query. (Q,).
    """

    name: str
    measures: dict[str, float]
    interval: tuple[float, float]
    difference: float = 0.0
    p_value: float | None = None
    weights: dict[str, float] | None = None
    tuned_on: str = ""
    latency_ms: float | None = None
    queries_with_ties: int | None = None
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)


@dataclass
class Comparison:
    """What `evaluate` found. `to_dict` returns plain data for JSON.

    Args:
        dataset: Name of the dataset.
        search: "exact" or "Milvus".
        documents: How many there are.
        empty_documents: How many of them are empty.
        queries: Judged queries.
        judgments: Judged pairs.
        judged_but_absent: Judgments of documents that the corpus lacks; they count as missed.
        candidates: Hits of each retriever that fusion sees.
        rrf_k: k of reciprocal rank fusion.
        tie_rule: What decides between equal scores.
        baseline: The system that the others are tested against.
        systems: The rows.
        costs: What each retriever costs.
        notes: What a reader should know.
    """

    dataset: str
    search: str
    documents: int
    empty_documents: int
    queries: int
    judgments: int
    judged_but_absent: int
    candidates: int
    rrf_k: int
    tie_rule: str
    baseline: str
    systems: list[System]
    costs: dict[str, Costs]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without each query's values."""
        whole = {name: value for name, value in vars(self).items() if name not in ("systems", "costs")}
        systems = []
        for system in self.systems:
            row = vars(system).copy()
            row.pop("values")
            systems.append(row)
        return whole | {"systems": systems, "costs": {name: asdict(cost) for name, cost in self.costs.items()}}

    def system(self, name: str) -> System:
        """Return the row of that name.

        Raises:
            ValueError: There is no such row.
        """
        for system in self.systems:
            if system.name == name:
                return system
        raise ValueError(
            f"name must be one of {', '.join(system.name for system in self.systems)}, got {name!r}. Name one of them."
        )


def evaluate(
    dataset: Dataset,
    retrievers: Sequence[Retriever],
    *,
    candidates: int = 100,
    measures: Sequence[str] = MEASURES,
    baseline: str | None = None,
) -> Comparison:
    """Compare retrievers and their fusions by exact search.

    The fusions are those of `fusions`, by rank and by weights. Weights are chosen on the train split by the first
    measure; without a train split they are equal.

    Args:
        dataset: The dataset.
        retrievers: Retrievers over its documents.
        candidates: Hits of each retriever that fusion sees.
        measures: Names of ir_measures; the first one decides.
        baseline: The system to test the others against. None is the last BM25, or the first retriever without one.
    Returns:
        Each retriever and fusion, with its measures, tests and costs.
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
    latency = {r.name: median_ms(lambda text, r=r: r.rank(r.encode([text]), depth), dataset) for r in retrievers}  # type: ignore[misc]
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
) -> Comparison:
    """Measure single and fused rankings. `rrf` holds the fusions that a store made; the others are made here."""
    systems = [_system(dataset, name, rankings, measures, latency.get(name)) for name, rankings in found.items()]
    for parts in fusions(list(found)):
        lists = [
            tuple(r.cut(candidates) for r in query) for query in zip(*(found[part] for part in parts), strict=True)
        ]
        name = rrf_name(parts)
        ours = [fuse_rrf(query, RRF_K) for query in lists]
        fused = rrf.get(name) or [ranking.cut(DEPTH) for ranking in ours]
        systems.append(_system(dataset, name, fused, measures, latency.get(name)))
        systems[-1].queries_with_ties = sum(has_tie(ranking, 10) for ranking in ours)
        weights = [1 / len(parts)] * len(parts)
        if dataset.train is not None:
            lists_of_train = list(zip(*(train[part] for part in parts), strict=True))
            weights = _tune(dataset.train, lists_of_train, measures[0])
        weighted = [Candidates(query).fuse(weights, DEPTH) for query in lists]
        systems.append(_system(dataset, _weights_name(parts), weighted, measures, None))
        systems[-1].weights = dict(zip(parts, weights, strict=True))
        systems[-1].tuned_on = "" if dataset.train is None else f"{len(dataset.train.queries)} train queries"
    names = [system.name for system in systems]
    lexical = [name for name in found if name.startswith("BM25")]
    check_baseline(baseline, names)
    against = baseline or (lexical or names)[-1 if lexical else 0]
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
    )


def fusions(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return which retrievers are fused: dense + BM25, dense + SPLADE, and all three. BM25 is the last such one.

    Example:
        >>> fusions(["BM25 unstemmed", "BM25", "SPLADE"])
        [('BM25', 'SPLADE')]
    """
    dense, splade = ([name] if name in names else [] for name in ("dense", "SPLADE"))
    lexical = [name for name in names if name.startswith("BM25")][-1:]
    wanted = [(*dense, *lexical), (*dense, *splade), (*dense, *lexical, *splade)]
    return [parts for place, parts in enumerate(wanted) if len(parts) > 1 and parts not in wanted[:place]]


def system_names(retrievers: Sequence[str]) -> list[str]:
    """Return the names of the systems that these retrievers make: each alone, then their fusions.

    Example:
        >>> system_names(["BM25", "SPLADE"])
        ['BM25', 'SPLADE', 'BM25 + SPLADE, RRF', 'BM25 + SPLADE, weights']
    """
    return [*retrievers, *(name(parts) for parts in fusions(retrievers) for name in (rrf_name, _weights_name))]


def check_baseline(baseline: str | None, systems: Sequence[str]) -> None:
    """Raise ValueError unless `baseline` is one of these systems, or None, which leaves the choice to `compare`.

    Raises:
        ValueError: The baseline is unknown.
    """
    if baseline and baseline not in systems:
        raise ValueError(f"the baseline must be one of {'; '.join(systems)}, got {baseline!r}. Name one of them.")


def rrf_name(parts: Sequence[str]) -> str:
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


def _test(systems: list[System], baseline: str) -> None:
    reference = next(system for system in systems if system.name == baseline)
    others = [system for system in systems if system is not reference]
    corrected = holm([paired_test(system.values, reference.values) for system in others])
    for system, p_value in zip(others, corrected, strict=True):
        system.difference = float(system.values.mean() - reference.values.mean())
        system.p_value = p_value


def _tune(train: Dataset, lists: Sequence[Sequence[Ranking]], measure: str) -> list[float]:
    """Return the weights, in steps of a tenth, that do best on the train split; on a tie the most even ones."""
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


def median_ms(search: Callable[[str], object], dataset: Dataset) -> float:
    """Return the median milliseconds of one query alone, over the first queries of the dataset."""
    times = []
    for text in [dataset.queries[0], *dataset.queries[:_TIMED_QUERIES]]:  # the first call warms up
        start = time.perf_counter()
        search(text)
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times[1:]))
