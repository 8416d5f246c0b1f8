"""The results of a comparison as plain data."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splade_integrations.evaluation.fit import Fit
from splade_integrations.evaluation.retrievers import Costs

__all__ = ["Comparison", "System"]


@dataclass
class System:
    """The results of one system.

    Args:
        name: A retriever, such as "dense", or a fusion, such as "dense + SPLADE, RRF".
        measures: {measure: mean over the judged queries}.
        interval: The 95 % bootstrap interval of the first measure.
        difference: The system's first measure minus the baseline's first measure.
        p_value: The p value of `difference`, by a paired test. It is corrected for the number of systems that are
            tested. None for the baseline.
        weights: {retriever: weight} for a fusion by weights, None for other systems.
        tuned_on: A description of the queries on which the weights were chosen, or "" for equal weights.
        latency_ms: The median time to encode and search one query, in milliseconds. None if it was not measured.
        queries_with_ties: For a fusion by rank, the number of queries whose first ten hits depend on the rule that
            orders equal scores. None for other systems.
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
    """The results of `evaluate`. `to_dict` returns the results in a form that `json` can write.

    Args:
        dataset: The name of the dataset.
        search: How the rankings were found: by "exact" search or by "Milvus".
        documents: The number of documents.
        empty_documents: The number of empty documents.
        queries: The number of judged queries.
        judgments: The number of judged pairs of a query and a document.
        judged_but_absent: The number of judgments of documents that are not in the corpus. The measures count these
            documents as not found.
        candidates: The number of hits of each retriever that are fused.
        rrf_k: The constant k of reciprocal rank fusion.
        tie_rule: The rule that orders equal scores, in words.
        baseline: The name of the system that the other systems are tested against.
        systems: The results of the retrievers and of their fusions.
        costs: {retriever: its costs}.
        notes: Remarks for readers of the results.
        fit: The fusion that was chosen, or None if `evaluate` was not asked to choose a fusion.
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
    fit: Fit | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the results as plain data, without the values of single queries."""
        whole = {name: value for name, value in vars(self).items() if name not in ("systems", "costs", "fit")}
        systems = []
        for system in self.systems:
            row = vars(system).copy()
            row.pop("values")
            systems.append(row)
        whole |= {} if self.fit is None else {"fit": self.fit.to_dict()}
        return whole | {"systems": systems, "costs": {name: asdict(cost) for name, cost in self.costs.items()}}

    def system(self, name: str) -> System:
        """Return the results of the system called `name`.

        Raises:
            ValueError: There is no such system.
        """
        for system in self.systems:
            if system.name == name:
                return system
        raise ValueError(f"name must be one of {'; '.join(system.name for system in self.systems)}, got {name!r}.")
