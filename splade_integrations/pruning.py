"""`Pruning`: the rules that decide which terms of a row are kept."""

from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from splade_integrations.sparse import is_integer, keep_terms

__all__ = ["Pruning"]


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """Rules that decide which terms of a text's sparse row are kept.

    The rules are applied once, after pooling, so pruned terms are never stored. Each rule keeps the terms with the
    largest weights. If it must choose among terms of equal weight, it keeps those with lower token ids. If several
    rules are set, only the terms that pass all rules are kept.

    Args:
        max_active_dims: Keep at most this many terms.
        min_weight: Keep terms of at least this weight.
        mass: Keep the fewest terms that together have at least this share of the row's total weight. The share is above
            0 and at most 1.
        max_ratio: Keep terms whose weight is at least this share of the row's largest weight. The share is 0 or more,
            and below 1. OpenSearch calls this rule `prune_type: max_ratio`, and uses the share 0.1.

    Raises:
        ValueError: A limit is out of range.

    Example:
        >>> from splade_integrations.sparse import from_dense
        >>> row = from_dense(np.array([[.5, .0, .1, .7]], np.float32))
        >>> Pruning(max_active_dims=2).apply(row).toarray()
        array([[0.5, 0. , 0. , 0.7]], dtype=float32)
        >>> Pruning(mass=0.5).apply(row).toarray()
        array([[0. , 0. , 0. , 0.7]], dtype=float32)
        >>> Pruning(max_ratio=0.2).apply(row).toarray()
        array([[0.5, 0. , 0. , 0.7]], dtype=float32)
        >>> print(Pruning(max_ratio=0.1)), print(Pruning())
        terms with at least 0.1 of the largest weight
        all terms
        (None, None)

    Source:
        Lassance et al., A Static Pruning Study on Sparse Neural Retrievers, arXiv:2304.12702. For `max_ratio`:
        OpenSearch's documentation, "Sparse encoding processor", and PruneUtils.java of neural-search.
    """

    max_active_dims: int | None = None
    min_weight: float | None = None
    mass: float | None = None
    max_ratio: float | None = None

    def __post_init__(self) -> None:
        limit = self.max_active_dims
        if not (limit is None or (is_integer(limit) and limit >= 1)):
            raise ValueError(
                f"max_active_dims must be an int of at least 1, or None, got {limit!r}. Use None to keep all terms."
            )
        if not (self.min_weight is None or (_is_real(self.min_weight) and 0 <= self.min_weight < float("inf"))):
            raise ValueError(
                f"min_weight must be 0 or more, or None, got {self.min_weight!r}. Use None to keep all terms."
            )
        if not (self.mass is None or (_is_real(self.mass) and 0 < self.mass <= 1)):
            raise ValueError(
                f"mass must be above 0 and at most 1, or None, got {self.mass!r}. Use None to keep all terms."
            )
        if not (self.max_ratio is None or (_is_real(self.max_ratio) and 0 <= self.max_ratio < 1)):
            raise ValueError(
                f"max_ratio must be 0 or more and below 1, or None, got {self.max_ratio!r}. Use None to keep all terms."
            )
        plain_types = {"max_active_dims": int, "min_weight": float, "mass": float, "max_ratio": float}
        for name, plain in plain_types.items():
            if (value := getattr(self, name)) is not None:  # plain, because JSON cannot store a numpy number
                object.__setattr__(self, name, plain(value))

    def __str__(self) -> str:
        rules = {
            "at most {} terms": self.max_active_dims,
            "terms with a weight of at least {}": self.min_weight,
            "the heaviest terms that hold {} of the weight": self.mass,
            "terms with at least {} of the largest weight": self.max_ratio,
        }
        return ", ".join(rule.format(f"{value:g}") for rule, value in rules.items() if value) or "all terms"

    def apply(self, matrix: csr_array) -> csr_array:
        """Return `matrix` (N, V) without the terms that the rules drop, or `matrix` itself if no term is dropped."""
        if not any(vars(self).values()):  # each rule is None, or is 0 and so keeps all terms
            return matrix
        counts = np.diff(matrix.indptr)
        limit = self.max_active_dims
        sorts = self.mass is not None or (limit is not None and matrix.nnz > 0 and counts.max() > limit)
        kept = np.ones(matrix.nnz, bool)
        if self.min_weight is not None:
            kept &= matrix.data >= self.min_weight
        if self.max_ratio is not None:
            kept &= matrix.data >= np.repeat(np.float32(self.max_ratio) * _largest(matrix), counts)
        if sorts:
            rows = np.repeat(np.arange(matrix.shape[0]), counts)
            # lexsort sorts by its last key first. So the order is by row, then by falling weight, then by token id.
            order = np.lexsort((matrix.indices, -matrix.data, rows))
            if limit is not None:
                kept[order] &= np.arange(matrix.nnz) - matrix.indptr[rows] < limit
            if self.mass is not None:
                kept[order] &= _mass_before(matrix.data[order], rows, matrix.indptr) < self.mass
        return matrix if kept.all() else keep_terms(matrix, kept)


def _is_real(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _largest(matrix: csr_array) -> NDArray[np.float32]:
    """Return the largest weight of each row, (N,). It is 0 for a row without terms."""
    largest = np.zeros(matrix.shape[0], np.float32)
    filled = np.flatnonzero(np.diff(matrix.indptr))
    if filled.size:
        largest[filled] = np.maximum.reduceat(matrix.data, matrix.indptr[filled])
    return largest


def _mass_before(weights: NDArray[np.float32], rows: NDArray[Any], indptr: NDArray[Any]) -> NDArray[np.float64]:
    """Return, for each stored term, the sum of the weights before it in its row, as a share of the row's sum."""
    running = np.concatenate(([0.0], np.cumsum(weights, dtype=np.float64)))
    starts, totals = running[indptr[:-1]], np.diff(running[indptr])
    shares: NDArray[np.float64] = (running[:-1] - starts[rows]) / totals[rows]
    return shares
