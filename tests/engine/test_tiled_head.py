"""The tiled heads equal the readable formula, on weights that are harder than those of a trained model."""

import pytest
import torch
from torch.nn.functional import linear

from splade_integrations.engine import heads
from splade_integrations.engine.heads import tiled as head
from splade_integrations.engine.heads.tiled import Decoder, MaxPoolHead, SumPoolHead, splade_pool


@pytest.mark.parametrize(("batch", "longest", "vocabulary"), [(1, 1, 3), (5, 7, 1000), (40, 33, 999), (3, 1100, 4099)])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("pooling", "fast_head"), [("max", MaxPoolHead), ("sum", SumPoolHead)])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_equals_the_reference(batch, longest, vocabulary, with_bias, pooling, fast_head, activation, monkeypatch):
    # With tiles of this size, even small inputs need several tiles.
    monkeypatch.setattr(head, "TILE_CELLS", dict.fromkeys(head.TILE_CELLS, 64 * 300))
    monkeypatch.setattr(head, "_FEW_TOKENS_TILE_CELLS", 64 * 300)
    monkeypatch.setattr(head, "TILE_TOKENS", 700)
    generator = torch.Generator().manual_seed(batch)
    hidden = torch.randn(batch, longest, 16, generator=generator)
    weight = torch.randn(vocabulary, 16, generator=generator)
    bias = torch.randn(vocabulary, generator=generator) if with_bias else None
    lengths = torch.randint(1, longest + 1, (batch,), generator=generator)
    mask = torch.arange(longest) < lengths.unsqueeze(1)
    expected = splade_pool(linear(hidden, weight, bias), mask.long(), pooling, activation)
    hidden[~mask] = 1e4  # without the mask, padding would win every maximum
    found = fast_head(Decoder(weight, bias), activation)(hidden, lengths)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_never_writes_the_logits():
    batch, longest, vocabulary = 8, 256, 30522
    hidden, weight = torch.randn(batch, longest, 8), torch.randn(vocabulary, 8)
    with torch.profiler.profile(profile_memory=True) as profile:
        MaxPoolHead(Decoder(weight))(hidden, torch.full((batch,), longest))
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < batch * longest * vocabulary * 4 / 20


def test_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"attention_mask must have the shape \(2, 3\)"):
        splade_pool(torch.zeros(2, 3, 4), torch.ones(2, 2))


def test_half_precision_keeps_small_weights():
    """If log(1 + x) were computed in bfloat16, every weight below 4e-3 would be lost."""
    hidden, weight = torch.full((1, 1, 1), 1e-3, dtype=torch.bfloat16), torch.ones(1, 1, dtype=torch.bfloat16)
    assert MaxPoolHead(Decoder(weight))(hidden, torch.tensor([1])).item() == pytest.approx(1e-3, rel=1e-2)


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="pooling_strategy must be max or sum, got 'mean'"):
        heads.choose(Decoder(torch.ones(3, 2)), "mean", "relu")
