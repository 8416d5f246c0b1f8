"""The rows of a batch are its real tokens in order, and putting them back restores every real token."""

import pytest
import torch

from splade_integrations.engine.layers import TokenRows, rounded_up, seen_tokens

WIDTH = 64


def batch(lengths):
    """Return hidden states in which each token has its own number, and which tokens are real."""
    longest = max(lengths)
    hidden = torch.arange(1.0, len(lengths) * longest + 1).view(len(lengths), longest, 1).repeat(1, 1, WIDTH)
    return hidden, torch.arange(longest).expand(len(lengths), -1) < torch.tensor(lengths).unsqueeze(1)


def laid_out(hidden, seen):
    return TokenRows.of(hidden, seen[:, None, None, :])


@pytest.mark.parametrize("lengths", [[9, 3, 1], [12] * 3, [1], [1, 1], [40, 39, 38], [3, 9, 1, 9], [300, 2, 2]])
def test_real_tokens_come_back(lengths):
    hidden, seen = batch(lengths)
    tokens = laid_out(hidden, seen)
    rows = tokens.taken_from(hidden)
    assert len(rows) == rounded_up(len(rows)) == tokens.rows
    found = tokens.put_back(rows)
    assert found.shape == hidden.shape
    torch.testing.assert_close(found[seen], hidden[seen], atol=0, rtol=0)
    for text, states in zip(hidden, found, strict=True):
        assert torch.isin(states, text).all()  # padding holds numbers of its own text, and never leftovers of memory


def test_much_padding_is_left_out():
    hidden, seen = batch([16, 9, 8, 3])
    rows = laid_out(hidden, seen).taken_from(hidden)
    torch.testing.assert_close(rows, hidden[seen], atol=0, rtol=0)


def test_rows_at_the_end_are_zeros():
    hidden, seen = batch([37, 16, 14])
    tokens = laid_out(hidden, seen)
    assert tokens.rows == 68
    assert tokens.taken_from(hidden)[67:].count_nonzero() == 0


@pytest.mark.parametrize(("width", "left_out"), [(768, True), (128, False)])
def test_little_padding_is_computed_in_narrow_models_only(width, left_out):
    hidden = torch.ones(10, 20, width)
    seen = torch.ones(10, 20, dtype=torch.bool)
    seen[5:, 16:] = False  # a tenth
    assert (laid_out(hidden, seen).places is not None) is left_out


def test_no_mask_means_no_padding():
    hidden, _ = batch([5, 5])
    assert TokenRows.of(hidden).places is None


def test_a_mask_for_all_texts_and_a_mask_that_hides_all_tokens():
    hidden, seen = batch([6, 6])
    seen[:, 2:] = False
    assert TokenRows.of(hidden, seen[:1, None, None, :]).places.tolist() == [0, 1, 6, 7]
    assert laid_out(hidden, torch.zeros_like(seen)).places is None


@pytest.mark.parametrize("rows", [1, 5])
def test_masks_of_bools_and_of_numbers(rows):
    seen = torch.tensor([[True, True, False], [True, False, False]])
    mask = seen[:, None, None, :].expand(2, 1, rows, 3)
    numbers = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    assert torch.equal(seen_tokens(mask), seen)
    assert torch.equal(seen_tokens(numbers), seen)
