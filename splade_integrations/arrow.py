"""Turns sparse rows and dense vectors into Arrow columns, and sparse columns back into rows.

A sparse column has the type struct<indices: list<uint32>, values: list<float>>. Parquet files, Ray Data and Milvus's
bulk import accept this type. For speed, no function except `sparse_json` loops over the rows in Python. This module
imports pyarrow when one of its functions is called.
"""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from splade_integrations.dependencies import require_extra

if TYPE_CHECKING:
    import pyarrow

__all__ = ["dense_column", "dense_type", "sparse_column", "sparse_json", "sparse_rows", "sparse_type"]


def sparse_type() -> "pyarrow.StructType":
    """Return the Arrow type of sparse columns.

    Example:
        >>> print(sparse_type())
        struct<indices: list<item: uint32>, values: list<item: float>>
    """
    pa = _pyarrow()
    return pa.struct([("indices", pa.list_(pa.uint32())), ("values", pa.list_(pa.float32()))])


def dense_type() -> "pyarrow.ListType":
    """Return the Arrow type of dense columns: list<float>. pymilvus's bulk writer uses the same type."""
    pa = _pyarrow()
    return pa.list_(pa.float32())


def sparse_column(rows: csr_array) -> "pyarrow.StructArray":
    """Turn sparse rows into an Arrow column.

    Args:
        rows: Term weights. (N, V).
    Returns:
        A column of N values. Weights become float32, and token ids become uint32.

    Example:
        >>> column = sparse_column(csr_array(np.array([[0, 0.5, 0, 2], [0, 0, 0, 0]], np.float32)))
        >>> column.to_pylist()
        [{'indices': [1, 3], 'values': [0.5, 2.0]}, {'indices': [], 'values': []}]
    """
    pa = _pyarrow()
    offsets = pa.array(rows.indptr, pa.int32())
    lists = [
        # `astype` copies the arrays. So a later change of `rows`, such as sorting in place, does not change the column.
        pa.ListArray.from_arrays(offsets, pa.array(rows.indices.astype(np.uint32))),
        pa.ListArray.from_arrays(offsets, pa.array(rows.data.astype(np.float32))),
    ]
    return pa.StructArray.from_arrays(lists, fields=list(sparse_type()))


def sparse_rows(column: Any, dim: int | None = None) -> csr_array:
    """Turn an Arrow column into sparse rows. A null becomes an empty row.

    Args:
        column: A column, in one or several chunks, of structs with the lists `indices` and `values`. The lists may hold
            any integers and floats, because Ray's `Dataset.map` widens them to int64 and double.
        dim: The size of the vocabulary. None means the smallest size that fits the token ids.
    Returns:
        Term weights. (N, dim) float32, with sorted int32 indices.
    Raises:
        TypeError: The column does not hold structs with these two lists.
        ValueError: A row's two lists differ in length. Or a token id is negative, or is `dim` or more.

    Example:
        >>> rows = csr_array(np.array([[0, 0.5, 0, 2], [0, 0, 0, 0]], np.float32))
        >>> sparse_rows(sparse_column(rows), 4).toarray().tolist()
        [[0.0, 0.5, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]]
    """
    pa = _pyarrow()
    import pyarrow.compute as pc

    column = _one_chunk(column)
    kind = column.type
    if not pa.types.is_struct(kind) or {"indices", "values"} - {field.name for field in kind}:
        raise TypeError(
            f"a sparse column must have the type {sparse_type()}, got {kind}. Make it with sparse_column, or name "
            "another column."
        )
    # The column may be a slice of a longer array. Unlike `StructArray.field`, `flatten` returns only the rows of the
    # slice. It also returns a null for each null struct.
    lists = dict(zip([field.name for field in kind], column.flatten(), strict=True))
    counts = {name: _lengths(lists[name], pc) for name in ("indices", "values")}
    if len(wrong := np.flatnonzero(counts["indices"] != counts["values"])):
        row = int(wrong[0])
        raise ValueError(
            f"row {row} of a sparse column must have as many indices as values, got {counts['indices'][row]} indices "
            f"and {counts['values'][row]} values. Correct the row."
        )
    # `astype` copies both arrays. The copies are needed because scipy sorts in place, but Arrow's own arrays cannot
    # be changed.
    indices = lists["indices"].flatten().to_numpy(zero_copy_only=False)
    values = lists["values"].flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    least, most = (int(indices.min()), int(indices.max())) if len(indices) else (0, -1)
    width = most + 1 if dim is None else dim
    if least < 0 or most >= width:
        raise ValueError(
            f"the indices of a sparse column must be from 0 to {width - 1}, got {least if least < 0 else most}. Give "
            "the dim of the encoder that made the column."
        )
    starts = np.concatenate([[0], np.cumsum(counts["indices"])])
    small = width <= np.iinfo(np.int32).max and starts[-1] <= np.iinfo(np.int32).max
    kind_of_ids = np.int32 if small else np.int64
    rows = csr_array((values, indices.astype(kind_of_ids), starts.astype(kind_of_ids)), (len(column), width))
    rows.sort_indices()
    return rows


def sparse_json(column: Any) -> "pyarrow.StringArray":
    """Turn a sparse column into JSON texts such as {"3": 0.5}, with token ids as keys.

    The bulk import of Milvus versions before 2.5.8 needs sparse vectors in this form. Weights are written with 9
    significant digits, so that reading them restores each float32 exactly.

    Example:
        >>> sparse_json(sparse_column(csr_array(np.array([[0, 0.5], [0, 0]], np.float32)))).to_pylist()
        ['{"1": 0.5}', '{}']
    """
    pa = _pyarrow()
    rows = sparse_rows(column)
    terms, weights = rows.indices.tolist(), rows.data.tolist()
    pairs = [f'"{term}": {weight:.9g}' for term, weight in zip(terms, weights, strict=True)]
    starts = rows.indptr.tolist()
    texts = ["{" + ", ".join(pairs[start:end]) + "}" for start, end in pairwise(starts)]
    return pa.array(texts, pa.string())


def dense_column(vectors: NDArray[np.floating[Any]]) -> "pyarrow.ListArray":
    """Turn dense vectors into an Arrow column.

    Args:
        vectors: Dense vectors. (N, H).

    Example:
        >>> dense_column(np.array([[0.5, 1], [2, 3]])).to_pylist()
        [[0.5, 1.0], [2.0, 3.0]]
    """
    pa = _pyarrow()
    count, width = vectors.shape
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * np.int32(width))
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1)))


def _pyarrow() -> Any:
    with require_extra("cli", module="An Arrow column"):
        import pyarrow
    return pyarrow


def _one_chunk(column: Any) -> Any:
    pa = _pyarrow()
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _lengths(lists: Any, pc: Any) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64)
