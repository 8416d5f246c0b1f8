"""Each rule of `Pruning` keeps the heaviest terms of a row."""

import numpy as np
import pytest
from scipy.sparse import random_array

from splade_integrations import Pruning, to_dicts
from splade_integrations.sparse import from_dense

WEIGHTS = np.array([[0, 0.5, 0, 2, 0.5, 0], [0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]], np.float32)


def test_pruning_keeps_the_heaviest_and_breaks_ties_by_token_id():
    pruned = Pruning(max_active_dims=2).apply(from_dense(WEIGHTS))
    assert to_dicts(pruned) == [{1: 0.5, 3: 2.0}, {}, {4: 5.0, 5: 6.0}]
    assert pruned.has_sorted_indices
    assert to_dicts(Pruning(max_active_dims=100).apply(from_dense(WEIGHTS))) == to_dicts(from_dense(WEIGHTS))


def test_pruning_equals_a_plain_sort():
    matrix = random_array((50, 300), density=0.2, format="csr", dtype=np.float32, rng=np.random.default_rng(1))
    matrix.data = np.ceil(matrix.data * 5)  # many ties
    for row, pruned in zip(to_dicts(matrix), to_dicts(Pruning(max_active_dims=7).apply(matrix)), strict=True):
        assert pruned == dict(sorted(sorted(row.items(), key=lambda term: (-term[1], term[0]))[:7]))


def test_pruning_takes_numbers_of_numpy():
    found = Pruning(max_active_dims=np.int64(3), min_weight=np.float32(0.5), mass=np.float64(0.9), max_ratio=np.int8(0))
    assert found == Pruning(max_active_dims=3, min_weight=0.5, mass=0.9, max_ratio=0)
    assert [type(value) for value in vars(found).values()] == [int, float, float, float]


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "10"])
def test_pruning_refuses_what_is_no_limit(limit):
    with pytest.raises(ValueError, match="max_active_dims must be an int of at least 1"):
        Pruning(max_active_dims=limit)


def reference_pruning(row, max_active_dims, min_weight, mass, max_ratio):
    """Apply the rules of pruning to one term at a time."""
    order = sorted(np.flatnonzero(row), key=lambda term: (-row[term], term))
    kept, before = np.zeros_like(row), 0.0
    for rank, term in enumerate(order):
        heavy = row[term] >= min_weight and row[term] >= np.float32(max_ratio) * row.max()
        if heavy and rank < max_active_dims and before < mass * row.sum(dtype=np.float64):
            kept[term] = row[term]
        before += float(row[term])
    return kept


@pytest.mark.parametrize("max_ratio", [None, 0.0, 0.5])
@pytest.mark.parametrize("mass", [None, 1.0, 0.7, 0.1])
@pytest.mark.parametrize("min_weight", [None, 0.0, 0.5])
@pytest.mark.parametrize("max_active_dims", [None, 1, 7])
def test_pruning_rules_together(max_active_dims, min_weight, mass, max_ratio):
    generator = np.random.default_rng(0)
    dense = np.round(generator.random((40, 30)) * 4).astype(np.float32) / 4  # many ties
    dense *= generator.random(dense.shape) < 0.5
    dense[[0, 7]] = 0
    rules = Pruning(max_active_dims=max_active_dims, min_weight=min_weight, mass=mass, max_ratio=max_ratio)
    pruned = rules.apply(from_dense(dense))
    expected = [
        reference_pruning(row, max_active_dims or 99, min_weight or 0, mass or 2, max_ratio or 0) for row in dense
    ]
    np.testing.assert_array_equal(pruned.toarray(), expected)
    assert (pruned.data > 0).all()
    assert pruned.has_sorted_indices


@pytest.mark.parametrize(
    "rule",
    [
        *({"min_weight": -1}, {"min_weight": float("nan")}, {"mass": 0}, {"mass": 1.1}, {"mass": True}),
        *({"max_ratio": -0.1}, {"max_ratio": 1}, {"max_ratio": float("nan")}, {"max_ratio": "0.1"}),
    ],
)
def test_pruning_out_of_range(rule):
    with pytest.raises(ValueError, match=next(iter(rule))):
        Pruning(**rule)


def test_max_ratio_follows_opensearch():
    """OpenSearch keeps `value >= ratio * largest`, in float32. A row without terms stays empty."""
    rows = from_dense(np.array([[2.0, 0.2, 0.19, 0], [0, 0, 0, 0], [0, 0.05, 0, 0.2]], np.float32))
    assert to_dicts(Pruning(max_ratio=0.1).apply(rows)) == [{0: 2.0, 1: pytest.approx(0.2)}, {}, to_dicts(rows)[2]]
    assert Pruning(max_ratio=0.0).apply(rows) is rows
    assert Pruning(max_ratio=0.1).apply(from_dense(np.zeros((0, 4), np.float32))).shape == (0, 4)
