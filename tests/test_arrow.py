"""Sparse and dense rows become Arrow columns and come back the same, also through Parquet."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from splade_integrations.arrow import dense_column, dense_type, sparse_column, sparse_json, sparse_rows, sparse_type

ROWS = csr_array(np.array([[0, 0.5, 0, 2], [0, 0, 0, 0], [1e-3, 0, 0, 0.25]], np.float32))


def same(found, right):
    assert found.shape == right.shape
    assert found.dtype == np.float32
    assert found.indices.dtype == np.int32
    assert found.has_sorted_indices
    assert (found != right).nnz == 0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.dictionaries(st.integers(0, 49), st.floats(0.125, 100, width=32), max_size=8), max_size=12))
def test_any_rows_come_back(rows):
    counts = [len(row) for row in rows]
    data = np.array([weight for row in rows for weight in row.values()], np.float32)
    ids = np.array([term for row in rows for term in row], np.int32)
    matrix = csr_array((data, ids, np.cumsum([0, *counts])), (len(rows), 50))
    column = sparse_column(matrix)
    assert column.type == sparse_type()
    assert [dict(zip(one["indices"], one["values"], strict=True)) for one in column.to_pylist()] == rows
    matrix.sort_indices()
    same(sparse_rows(column, 50), matrix)
    assert [{int(k): v for k, v in json.loads(text).items()} for text in sparse_json(column).to_pylist()] == [
        {term: pytest.approx(weight, rel=1e-7) for term, weight in row.items()} for row in rows
    ]


def test_slices_chunks_and_nulls():
    column = sparse_column(ROWS)
    same(sparse_rows(column.slice(1), 4), ROWS[1:])
    same(sparse_rows(column.slice(1, 0), 4), ROWS[:0])
    same(sparse_rows(pa.chunked_array([column, column.slice(2)]), 4), csr_array(ROWS.toarray()[[0, 1, 2, 2]]))
    same(sparse_rows(pa.chunked_array([], sparse_type()), 4), ROWS[:0])
    with_null = pa.array([*column.to_pylist()[:1], None, *column.to_pylist()[2:]], sparse_type())
    same(sparse_rows(with_null, 4), ROWS)
    same(sparse_rows(with_null.slice(1), 4), ROWS[1:])
    assert sparse_rows(column).shape == (3, 4)


def test_wider_types_come_back():
    """Ray's `Dataset.map` widens uint32 to int64 and float to double."""
    wide = pa.struct([("indices", pa.large_list(pa.int64())), ("values", pa.list_(pa.float64()))])
    same(sparse_rows(pa.array(sparse_column(ROWS).to_pylist(), wide), 4), ROWS)


def test_parquet_keeps_the_column(tmp_path):
    table = pa.table({"sparse": sparse_column(ROWS), "dense": dense_column(np.arange(6).reshape(3, 2))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    back = pq.read_table(tmp_path / "a.parquet")
    assert back.schema.field("sparse").type.equals(pq.read_schema(tmp_path / "a.parquet").field("sparse").type)
    same(sparse_rows(back["sparse"], 4), ROWS)
    assert back["dense"].to_pylist() == [[0, 1], [2, 3], [4, 5]]
    assert table["dense"].type == dense_type()


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([{"indices": [1, 2], "values": [0.5]}], ValueError, "row 0 .* as values, got 2 indices and 1 values"),
        ([{"indices": [4], "values": [0.5]}], ValueError, "from 0 to 3, got 4"),
        ([{"indices": [1]}], TypeError, "must have the type struct<indices"),
        ([{"3": 0.5}], TypeError, "must have the type struct<indices"),
        (["{}"], TypeError, "must have the type struct<indices"),
    ],
)
def test_other_columns_are_refused(value, error, message):
    with pytest.raises(error, match=message):
        sparse_rows(pa.array(value), 4)
