"""Systems side by side on one collection: single retrievers, and their fusions by rank and by tuned weights.

Knows collections, retrievers, rankings and measures; prints and draws nothing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splade_integrations.evaluation.dataset import Collection
from splade_integrations.evaluation.measures import MEASURES, holm, interval, paired_test, per_query
from splade_integrations.evaluation.ranking import RRF_K, Candidates, Ranking, fuse_rrf, has_tie
from splade_integrations.evaluation.retrievers import Costs, Retriever

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

# R@100 looks at so many hits.
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
        weights: Of a fusion by weights: {side: weight}.
        tuned_on: The queries that the weights were chosen on, or "" for equal weights.
        latency_ms: Median milliseconds of one query: encoding and search.
        queries_with_ties: Of a fusion by rank: queries whose first ten the tie rule has a say in.
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
    """What `evaluate` found. `to_dict` gives plain data for JSON.

    Args:
        collection: Name of the collection.
        search: "exact" or "Milvus".
        documents: How many.
        empty_documents: How many of them are empty.
        queries: Judged queries.
        judgments: Judged pairs.
        judged_but_absent: Judgments of documents that the corpus lacks; they count as missed.
        candidates: Hits a side before fusion.
        rrf_k: Of reciprocal rank fusion.
        tie_rule: What decides between equal scores.
        baseline: The system that the others are tested against.
        systems: The rows.
        costs: Of each retriever.
        notes: What a reader should know.
    """

    collection: str
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
        """Plain data."""
        whole = {name: value for name, value in vars(self).items() if name not in ("systems", "costs")}
        systems = []
        for system in self.systems:
            row = vars(system).copy()
            row.pop("values")
            systems.append(row)
        return whole | {"systems": systems, "costs": {name: asdict(cost) for name, cost in self.costs.items()}}

    def system(self, name: str) -> System:
        """The row of that name.

        Raises:
            ValueError: There is none.
        """
        for system in self.systems:
            if system.name == name:
                return system
        raise ValueError(f"name must be one of {', '.join(system.name for system in self.systems)}, got {name!r}.")


def evaluate(
    collection: Collection,
    retrievers: Sequence[Retriever],
    *,
    candidates: int = 100,
    measures: Sequence[str] = MEASURES,
    baseline: str | None = None,
) -> Comparison:
    """Compare retrievers and their fusions by exact search.

    Fused are dense and the last BM25, dense and SPLADE, and all three. Weights are chosen on the train split by the
    first measure, and are equal where there is none.

    Args:
        collection: The collection.
        retrievers: Its documents, indexed.
        candidates: Hits a side before fusion.
        measures: Names of ir_measures; the first one decides.
        baseline: The system to test the others against. None takes the last BM25, or else the first retriever.
    Returns:
        Each retriever and fusion, with its measures, tests and costs.
    Raises:
        ValueError: An unknown baseline or measure.
    """
    names = [retriever.name for retriever in retrievers]
    check_baseline(baseline, system_names(names))
    depth = max(DEPTH, candidates)
    encoded = {retriever.name: retriever.encode(collection.queries) for retriever in retrievers}
    found = {r.name: r.rank(encoded[r.name], depth) for r in retrievers}
    for retriever in retrievers:
        retriever.costs.dims_per_query = retriever.dims(encoded[retriever.name])
    train: dict[str, list[Ranking]] = {}
    if collection.train is not None:
        train = {r.name: r.rank(r.encode(collection.train.queries), candidates) for r in retrievers}
    latency = {r.name: median_ms(lambda text, r=r: r.rank(r.encode([text]), depth), collection) for r in retrievers}  # type: ignore[misc]
    return compare(
        collection,
        found,
        train,
        rrf={},
        latency=latency | {rrf_name(sides): sum(latency[side] for side in sides) for sides in fusions(names)},
        candidates=candidates,
        measures=measures,
        baseline=baseline,
        search="exact",
        costs={retriever.name: retriever.costs for retriever in retrievers},
        notes=["BM25: bm25s, English stop words, Snowball stemmer; k1 = 1.5, b = 0.75."] if "BM25" in names else [],
    )


def compare(
    collection: Collection,
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
    """Measure single and fused rankings. `rrf` holds fusions that a store has made; others are made here."""
    systems = [_system(collection, name, rankings, measures, latency.get(name)) for name, rankings in found.items()]
    for sides in fusions(list(found)):
        lists = [tuple(r.cut(candidates) for r in query) for query in zip(*(found[s] for s in sides), strict=True)]
        name = rrf_name(sides)
        ours = [fuse_rrf(query, RRF_K) for query in lists]
        fused = rrf.get(name) or [ranking.cut(DEPTH) for ranking in ours]
        systems.append(_system(collection, name, fused, measures, latency.get(name)))
        systems[-1].queries_with_ties = sum(has_tie(ranking, 10) for ranking in ours)
        weights = [1 / len(sides)] * len(sides)
        if collection.train is not None:
            lists_of_train = list(zip(*(train[side] for side in sides), strict=True))
            weights = _tune(collection.train, lists_of_train, measures[0])
        weighted = [Candidates(query).fuse(weights, DEPTH) for query in lists]
        systems.append(_system(collection, _weights_name(sides), weighted, measures, None))
        systems[-1].weights = dict(zip(sides, weights, strict=True))
        systems[-1].tuned_on = "" if collection.train is None else f"{len(collection.train.queries)} train queries"
    names = [system.name for system in systems]
    lexical = [name for name in found if name.startswith("BM25")]
    check_baseline(baseline, names)
    against = baseline or (lexical or names)[-1 if lexical else 0]
    _test(systems, against)
    return Comparison(
        collection=collection.name,
        search=search,
        documents=len(collection.documents),
        empty_documents=sum(not text for text in collection.documents),
        queries=len(collection.queries),
        judgments=collection.judgments,
        judged_but_absent=collection.judged_but_absent,
        candidates=candidates,
        rrf_k=RRF_K,
        tie_rule="equal scores go by place in the corpus"
        if search == "exact"
        else "equal scores go as the store has it",
        baseline=against,
        systems=systems,
        costs=costs,
        notes=notes,
    )


def fusions(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Which retrievers are fused: dense + BM25, dense + SPLADE, and all three; BM25 is the last one named so.

    Example:
        >>> fusions(["BM25 unstemmed", "BM25", "SPLADE"])
        [('BM25', 'SPLADE')]
    """
    dense, splade = ([name] if name in names else [] for name in ("dense", "SPLADE"))
    lexical = [name for name in names if name.startswith("BM25")][-1:]
    wanted = [(*dense, *lexical), (*dense, *splade), (*dense, *lexical, *splade)]
    return [sides for place, sides in enumerate(wanted) if len(sides) > 1 and sides not in wanted[:place]]


def system_names(retrievers: Sequence[str]) -> list[str]:
    """Names of the systems that retrievers of these names make: each alone, then their fusions.

    Example:
        >>> system_names(["BM25", "SPLADE"])
        ['BM25', 'SPLADE', 'BM25 + SPLADE, RRF', 'BM25 + SPLADE, weights']
    """
    return [*retrievers, *(name(sides) for sides in fusions(retrievers) for name in (rrf_name, _weights_name))]


def check_baseline(baseline: str | None, systems: Sequence[str]) -> None:
    """Refuse a baseline that is none of these systems; None, which leaves the choice to `compare`, is fine.

    Raises:
        ValueError: It is unknown.
    """
    if baseline and baseline not in systems:
        raise ValueError(f"the baseline must be one of {'; '.join(systems)}, got {baseline!r}. Name one of them.")


def rrf_name(sides: Sequence[str]) -> str:
    return f"{' + '.join(sides)}, RRF"


def _weights_name(sides: Sequence[str]) -> str:
    return f"{' + '.join(sides)}, weights"


def _system(
    collection: Collection, name: str, rankings: list[Ranking], measures: Sequence[str], latency: float | None
) -> System:
    values = per_query(collection, rankings, measures)
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


def _tune(train: Collection, lists: Sequence[Sequence[Ranking]], measure: str) -> list[float]:
    """The weights, in steps of a tenth, that do best on the train split; of equal ones the most even."""
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


def median_ms(search: Callable[[str], object], collection: Collection) -> float:
    """Median milliseconds of one query alone, over the first ones of the collection."""
    times = []
    for text in [collection.queries[0], *collection.queries[:_TIMED_QUERIES]]:  # the first one warms up
        start = time.perf_counter()
        search(text)
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times[1:]))
