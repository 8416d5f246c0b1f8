"""What a comparison found, as plain data. Computes, prints and draws nothing."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splade_integrations.evaluation.retrievers import Costs

__all__ = ["Comparison", "System"]


@dataclass
class System:
    """One row of the comparison.

    Args:
        name: A retriever, such as "dense", or a fusion, such as "dense + SPLADE, RRF".
        measures: Means over the judged queries.
        interval: 95 % bootstrap interval of the first measure.
        difference: How much the first measure is above the baseline's.
        p_value: Of that difference, by a paired test corrected for the number of systems. None for the baseline.
        weights: For a fusion by weights: {retriever: weight}. None for the others.
        tuned_on: The queries on which the weights were chosen, or "" for equal weights.
        latency_ms: Median milliseconds of one query, encoding and search, or None if nobody measured it.
        queries_with_ties: For a fusion by rank: for how many queries the tie rule decides about the first ten hits.
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
        documents: How many documents there are.
        empty_documents: How many of them are empty.
        queries: How many queries are judged.
        judgments: How many pairs of query and document are judged.
        judged_but_absent: How many judgments name a document that the corpus lacks; they count as missed.
        candidates: Hits of each retriever that fusion sees.
        rrf_k: k of reciprocal rank fusion.
        tie_rule: What decides between equal scores, in words.
        baseline: Name of the system that the others are tested against.
        systems: The retrievers and their fusions.
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
