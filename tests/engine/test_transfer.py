"""Sparse rows taken on the device equal those made on the host."""

import numpy as np
import pytest
import torch

from splade_integrations.engine.transfer import CudaTransfer, nonzero_terms
from splade_integrations.sparse import from_dense

pytestmark = pytest.mark.gpu


def weights_of(density):
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(7, 501, generator=generator)
    weights[torch.rand(weights.shape, generator=generator) >= density] = 0
    weights[[0, 4, 6]] = 0  # rows without terms, first and last among them
    return weights


@pytest.mark.parametrize("density", [0.0, 0.02, 1.0])
def test_what_is_not_zero(density):
    weights = weights_of(density)
    counts, ids, values = nonzero_terms(weights)
    expected = from_dense(weights.numpy())
    assert (ids.dtype, values.dtype) == (torch.int32, torch.float32)
    np.testing.assert_array_equal(counts, np.diff(expected.indptr))
    np.testing.assert_array_equal(ids, expected.indices)
    np.testing.assert_array_equal(values, expected.data)


def test_nan_is_kept_for_the_check_that_follows():
    counts, ids, values = nonzero_terms(torch.tensor([[0.0, float("nan")]]))
    assert (counts.tolist(), ids.tolist()) == ([1], [1])
    assert values.isnan().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_rows_of_two_blocks_in_flight():
    transfer = CudaTransfer(torch.device("cuda"))
    blocks = [weights_of(0.1), weights_of(0.0)]
    started = [transfer.start(block.to("cuda")) for block in blocks]
    for rows, block in zip(started, blocks, strict=True):
        matrix = rows()
        np.testing.assert_array_equal(matrix.toarray(), block.numpy())
        assert (matrix.dtype, matrix.indices.dtype, matrix.indptr.dtype) == (np.float32, np.int32, np.int32)
        assert matrix.nnz == block.count_nonzero()
