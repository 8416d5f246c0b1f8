"""Rows of term weights are built, joined and turned into dicts."""

import numpy as np
import pytest
from scipy.sparse import csr_array, csr_matrix

from splade_integrations import to_dicts
from splade_integrations.sparse import concatenate, from_dense, max_over_groups

WEIGHTS = np.array([[0, 0.5, 0, 2, 0.5, 0], [0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]], np.float32)


def test_from_dense_keeps_just_what_is_positive():
    matrix = from_dense(WEIGHTS)
    np.testing.assert_array_equal(matrix.toarray(), WEIGHTS)
    assert matrix.nnz == np.count_nonzero(WEIGHTS)
    assert (matrix.dtype, matrix.indices.dtype, matrix.indptr.dtype) == (np.float32, np.int32, np.int32)
    assert matrix.has_sorted_indices


def test_concatenate():
    matrix = from_dense(WEIGHTS)
    joined = concatenate([matrix, matrix[:0], matrix[[2]]], 6)
    np.testing.assert_array_equal(joined.toarray(), WEIGHTS[[0, 1, 2, 2]])
    assert concatenate([], 6).shape == (0, 6)
    assert to_dicts(concatenate([], 6)) == []


@pytest.mark.parametrize("form", [csr_array, csr_matrix, lambda m: m.tocsc(), lambda m: m.tocoo()])
def test_dicts_of_plain_numbers(form):
    dicts = to_dicts(form(from_dense(WEIGHTS)))
    assert dicts == [{1: 0.5, 3: 2.0, 4: 0.5}, {}, dict(enumerate([1.0, 2, 3, 4, 5, 6]))]
    assert {(type(token), type(weight)) for row in dicts for token, weight in row.items()} == {(int, float)}


def test_dicts_of_one_row():
    assert to_dicts(next(iter(from_dense(WEIGHTS)))) == [{1: 0.5, 3: 2.0, 4: 0.5}]


def test_dicts_of_a_matrix_with_repeated_ids_and_of_bools():
    repeated = csr_array((np.array([1.0, 2.0]), np.array([1, 1]), np.array([0, 2])), shape=(1, 3))
    assert to_dicts(repeated) == [{1: 3.0}]
    assert repeated.nnz == 2  # the caller's matrix is unchanged
    assert type(to_dicts(csr_array(np.array([[True]])))[0][0]) is float


def test_dicts_of_something_else_are_refused():
    with pytest.raises(TypeError, match="matrix must be a scipy sparse matrix, got ndarray"):
        to_dicts(WEIGHTS)


def test_max_over_groups():
    generator = np.random.default_rng(1)
    dense = (generator.random((12, 9)) * (generator.random((12, 9)) < 0.4)).astype(np.float32)
    dense[4] = 0
    sizes = [1, 3, 1, 5, 2]
    starts = np.cumsum([0, *sizes[:-1]])
    grouped = max_over_groups(from_dense(dense), sizes)
    np.testing.assert_array_equal(grouped.toarray(), np.maximum.reduceat(dense, starts))
    assert grouped.has_sorted_indices
    assert max_over_groups(from_dense(np.zeros((3, 4), np.float32)), [1, 2]).shape == (2, 4)
