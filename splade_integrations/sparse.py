"""Builds and joins sparse rows of term weights, and turns them into plain dicts.

This module uses numpy and scipy only. It does not use torch, tokenizers or a framework.
"""

from collections.abc import Callable, Iterable, Sequence, Sized
from functools import lru_cache
from itertools import pairwise
from numbers import Integral
from typing import Any, Protocol, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

__all__ = [
    "SparseTextEncoder",
    "as_rows",
    "concatenate",
    "drop_terms",
    "encoded",
    "from_dense",
    "from_rows",
    "from_terms",
    "is_integer",
    "keep_terms",
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


def from_dense(weights: NDArray[np.float32]) -> csr_array:
    """Build sparse rows from a dense matrix of term weights.

    Args:
        weights: Term weights, 0 or more. (B, V).
    Returns:
        (B, V) float32 with sorted int32 indices and no stored zeros.
    """
    batch, vocabulary = weights.shape
    flat = weights.reshape(-1)
    positions = np.flatnonzero(flat != 0)  # 8 times as fast as flatnonzero(flat)
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
    # This line copies an empty matrix, to save time. copy.copy and csr_array's constructor each take about as long as
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
    return matrix if kept.all() else keep_terms(matrix, kept)


def keep_terms(matrix: csr_array, kept: NDArray[np.bool_]) -> csr_array:
    """Return `matrix` with only the stored terms for which `kept`, (nnz,), is true."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    counts = np.bincount(rows[kept], minlength=matrix.shape[0])
    return from_terms(matrix.indices[kept], matrix.data[kept], counts, matrix.shape[1])


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


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", None) or type(function).__name__)
