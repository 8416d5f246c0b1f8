"""Builds, prunes and joins sparse rows of term weights, and turns them into plain dicts.

This module uses numpy and scipy only. It does not use torch, tokenizers or a framework.
"""

from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, Protocol, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

__all__ = [
    "Pruning",
    "SparseTextEncoder",
    "as_rows",
    "concatenate",
    "drop_terms",
    "encoded",
    "from_dense",
    "from_rows",
    "from_terms",
    "is_integer",
    "max_over_groups",
    "to_dicts",
]

_INT32_MAX = np.iinfo(np.int32).max


class SparseTextEncoder(Protocol):
    """The two methods that adapters call on an encoder. Any object with both methods can be used as an encoder."""

    def encode_documents(self, texts: Sequence[str]) -> csr_array:
        """Encode documents. Returns term weights, (len(texts), vocabulary size)."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> csr_array:
        """Encode queries. Returns term weights, (len(texts), vocabulary size)."""
        ...


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
        max_ratio: Keep terms of at least this share of the row's largest weight. The share is 0 or more, and below 1.
            OpenSearch calls this rule `prune_type: max_ratio`, and uses the share 0.1.

    Raises:
        ValueError: A limit is out of range.

    Example:
        >>> row = from_dense(np.array([[.5, .0, .1, .7]], np.float32))
        >>> Pruning(max_active_dims=2).apply(row).toarray()
        array([[0.5, 0. , 0. , 0.7]], dtype=float32)
        >>> Pruning(mass=0.5).apply(row).toarray()
        array([[0. , 0. , 0. , 0.7]], dtype=float32)
        >>> Pruning(max_ratio=0.2).apply(row).toarray()
        array([[0.5, 0. , 0. , 0.7]], dtype=float32)
        >>> print(Pruning(max_ratio=0.1)), print(Pruning())
        terms of at least 0.1 of the largest weight
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
            "terms of at least {}": self.min_weight,
            "the heaviest terms that hold {} of the weight": self.mass,
            "terms of at least {} of the largest weight": self.max_ratio,
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
        return matrix if kept.all() else _keep(matrix, kept)


def from_dense(weights: NDArray[np.float32]) -> csr_array:
    """Build sparse rows from a dense matrix of term weights.

    Args:
        weights: Term weights, 0 or more. (B, V).
    Returns:
        (B, V) float32 with sorted int32 indices and no stored zeros.
    """
    batch, vocabulary = weights.shape
    flat = weights.reshape(-1)
    positions = np.flatnonzero(flat)
    counts = np.bincount(positions // vocabulary, minlength=batch)
    return from_terms(positions % vocabulary, flat[positions], counts, vocabulary)


def from_terms(ids: NDArray[Any], weights: NDArray[Any], counts: Sequence[int] | NDArray[Any], dim: int) -> csr_array:
    """Build a matrix from its stored terms, row after row.

    Args:
        ids: The token ids of all stored terms. They ascend within a row.
        weights: The weights of the same terms.
        counts: The number of stored terms of each row.
        dim: Vocabulary size.
    Returns:
        (len(counts), dim) float32 with int32 indices. `indptr` is int32 as well, or int64 beyond 2^31 stored terms.
    """
    rows = len(counts)
    indptr = np.zeros(rows + 1, np.int32 if len(ids) <= _INT32_MAX else np.int64)
    if rows == 1:
        indptr[1] = len(ids)
    else:
        np.cumsum(counts, out=indptr[1:])
    matrix: Any = csr_array.__new__(csr_array)
    # This line copies an empty matrix, to save time. copy.copy and csr_array's constructor each take about the time of
    # tokenising a query, and tokenising is most of the work for an inference-free query.
    vars(matrix).update(vars(_empty(rows, dim)))
    # The arrays are set one by one, because the constructor would widen int32 indices to int64 or copy them.
    matrix.data = weights.astype(np.float32, copy=False)
    matrix.indices = ids.astype(np.int32, copy=False)
    matrix.indptr = indptr
    return cast(csr_array, matrix)


@lru_cache(maxsize=64)
def _empty(rows: int, dim: int) -> csr_array:
    """Return a matrix without terms. Callers must not change it, because later calls return the same matrix."""
    return cast(csr_array, csr_array((rows, dim), dtype=np.float32))


def from_rows(rows: Sequence[tuple[NDArray[np.int32], NDArray[np.float32]]], dim: int) -> csr_array:
    """Build a matrix from rows, each given as (ascending token ids, weights). Returns (len(rows), dim) float32."""
    if not rows:
        return concatenate([], dim)
    if len(rows) == 1:
        [(ids, weights)] = rows
        return from_terms(ids, weights, [len(ids)], dim)
    all_ids, all_weights = zip(*rows, strict=True)
    counts = [len(row) for row in all_ids]
    return from_terms(np.concatenate(all_ids), np.concatenate(all_weights), counts, dim)


def drop_terms(matrix: csr_array, dropped: NDArray[np.bool_]) -> csr_array:
    """Return `matrix` (N, V) without the terms for which `dropped`, (V,), is true.

    If no term is dropped, the result is `matrix` itself.
    """
    kept = ~dropped[matrix.indices]
    return matrix if kept.all() else _keep(matrix, kept)


def max_over_groups(matrix: csr_array, sizes: Sequence[int]) -> csr_array:
    """Return each term's largest weight in each group of consecutive rows.

    Args:
        matrix: (sum of sizes, V).
        sizes: The number of rows in each group, at least 1.
    Returns:
        (len(sizes), V) float32. It is `matrix` itself if every group has one row.

    Example:
        >>> max_over_groups(csr_array(np.array([[1, 0], [.5, 2], [0, 3]], np.float32)), [2, 1]).toarray()
        array([[1., 2.],
               [0., 3.]], dtype=float32)
    """
    if len(sizes) == matrix.shape[0]:
        return matrix
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    groups = np.repeat(np.arange(len(sizes)), sizes)[rows]
    order = np.lexsort((matrix.indices, groups))
    groups, ids = groups[order], matrix.indices[order]
    first = np.ones(len(order), bool)  # whether an entry is the first of its term in its group
    first[1:] = (np.diff(groups) != 0) | (np.diff(ids) != 0)
    starts = np.flatnonzero(first)
    maxima = np.maximum.reduceat(matrix.data[order], starts) if starts.size else matrix.data
    return from_terms(ids[starts], maxima, np.bincount(groups[starts], minlength=len(sizes)), matrix.shape[1])


def concatenate(blocks: Sequence[csr_array], dim: int) -> csr_array:
    """Stack the rows of several matrices, in order.

    Unlike `scipy.sparse.vstack`, this function accepts an empty list, for which it returns a matrix of shape (0, dim).
    If there is only one matrix, it is returned without a copy.

    Args:
        blocks: The matrices. (n_i, dim).
        dim: Vocabulary size.
    Returns:
        (sum of n_i, dim) float32. The index types are those of `from_terms`.
    """
    if not blocks:
        return from_terms(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int64), dim)
    if len(blocks) == 1:
        return blocks[0]
    counts = np.concatenate([np.diff(block.indptr) for block in blocks])
    return from_terms(
        np.concatenate([block.indices for block in blocks]),
        np.concatenate([block.data for block in blocks]),
        counts,
        dim,
    )


def to_dicts(matrix: Any) -> list[dict[int, float]]:
    """Turn sparse rows into `{token id: weight}` of plain Python numbers, a form that Milvus always accepts.

    pymilvus refuses numpy scalars and bools. It also refuses 1-D sparse rows, which a loop over a scipy array
    yields. A dict of plain numbers works for Milvus, LangChain and LlamaIndex.

    Args:
        matrix: Any scipy sparse matrix or array of shape (N, V), or one 1-D row of shape (V,).
    Returns:
        One dict per row, with its token ids ascending. A row without terms becomes `{}`.
    Raises:
        TypeError: `matrix` is not a scipy sparse matrix.

    Example:
        >>> to_dicts(csr_array(np.array([[0, 1.5, 0], [0, 0, 0]], np.float32)))
        [{1: 1.5}, {}]
    """
    rows = as_rows(matrix).astype(np.float32)  # `astype` copies, because the next line changes `rows` in place
    rows.sum_duplicates()
    ids, weights, bounds = rows.indices.tolist(), rows.data.tolist(), rows.indptr.tolist()
    return [dict(zip(ids[start:end], weights[start:end], strict=True)) for start, end in pairwise(bounds)]


def encoded(encode: Callable[[Any], Any], texts: Iterable[str]) -> list[dict[int, float]]:
    """Return `to_dicts(encode(texts))`, and check that the result has one row for each text.

    Args:
        encode: `encode_documents` or `encode_queries` of an encoder.
        texts: N texts.
    Raises:
        ValueError: The encoder returns more or fewer than N rows.
        RuntimeError: The encoder raises StopIteration. asyncio cannot pass this error on, so a caller that awaits the
            result would wait for ever.

    Example:
        >>> encoded(lambda texts: csr_array([[0.0, 0.5]]), ["a", "b"])
        Traceback (most recent call last):
        ValueError: the encoder must return one row for each text, got 1 rows for 2 texts. Correct <lambda>.
    """
    try:
        rows = to_dicts(encode(texts))
    except StopIteration as err:
        raise RuntimeError(
            "the encoder must return rows or raise an error other than StopIteration, got StopIteration. Correct "
            f"{_name(encode)}, where next() may have been called on an iterator that had ended."
        ) from err
    if isinstance(texts, Sized) and len(rows) != len(texts):
        raise ValueError(
            f"the encoder must return one row for each text, got {len(rows)} rows for {len(texts)} texts. Correct "
            f"{_name(encode)}."
        )
    return rows


def as_rows(matrix: Any) -> csr_array:
    """Return `matrix` as a 2-D csr_array. A 1-D row of shape (V,) becomes (1, V).

    Raises:
        TypeError: `matrix` is not a scipy sparse matrix.
    """
    if not issparse(matrix):
        raise TypeError(
            f"matrix must be a scipy sparse matrix, got {type(matrix).__name__}. Pass what encode_documents returned."
        )
    rows = cast(csr_array, matrix)
    return csr_array(rows.reshape((1, -1)) if rows.ndim == 1 else rows)


def is_integer(value: object) -> TypeGuard[int]:
    """Return whether `value` is an integer of Python or numpy. True and False do not count as integers."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", None) or type(function).__name__)


def _keep(matrix: csr_array, kept: NDArray[np.bool_]) -> csr_array:
    """Return `matrix` with only the stored terms for which `kept`, (nnz,), is true."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    counts = np.bincount(rows[kept], minlength=matrix.shape[0])
    return from_terms(matrix.indices[kept], matrix.data[kept], counts, matrix.shape[1])


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
