"""The bfloat16 head equals float32 sums over bfloat16 vectors, even if a careless bound would miss terms."""

import pytest
import torch
from torch.nn.functional import linear

from splade_integrations.engine.heads import BFloat16Head, TwoPassHead, bfloat16, choose
from splade_integrations.engine.heads.tiled import Decoder, splade_pool

LENGTHS = torch.tensor([33, 1, 20, 5, 32])


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def expected(weight, bias, hidden, lengths, activation="relu"):
    mask = (torch.arange(hidden.shape[1]) < lengths.unsqueeze(1)).long()
    logits = linear(hidden.double(), weight.double(), None if bias is None else bias.double())
    return splade_pool(logits.float(), mask, "max", activation)


@pytest.fixture(autouse=True)
def no_plain_head(monkeypatch):
    """Always use the second pass, even if there are many candidates."""
    monkeypatch.setattr(bfloat16, "MOST_CANDIDATES", 2)


@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("width", [2, 64, 1024])
def test_random_weights(width, with_bias, activation):
    weight, hidden = random(900, width, seed=width), random(5, 33, width, seed=width + 1)
    bias = random(900, seed=3) - 2 * width**0.5 if with_bias else None
    found = BFloat16Head(Decoder(weight, bias), activation)(hidden, LENGTHS)
    torch.testing.assert_close(found, expected(weight, bias, hidden, LENGTHS, activation), rtol=1e-5, atol=2e-5)
    assert found.dtype == torch.float32
    assert (found > 0).any()


def test_a_large_product_and_a_bias_that_nearly_cancel():
    """bfloat16 rounds sums of up to 257 down to 256. With the bias they are then negative, so the bound is needed."""
    hidden = torch.ones(1, 1, 8).bfloat16()
    weight = torch.full((256, 8), 32.0).bfloat16()
    weight[:, 0] = 32 + torch.arange(256) / 256
    weight = weight.bfloat16()
    bias = torch.full((256,), -256.4)
    found = BFloat16Head(Decoder(weight, bias))(hidden, torch.tensor([1]))
    truth = expected(weight, bias, hidden, torch.tensor([1]))
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-6)
    assert (truth > 0).sum() > 100


def test_few_terms_are_candidates():
    weight, hidden = random(5000, 256, seed=1), random(3, 20, 256, seed=2)
    bias = torch.full((5000,), -56.0)
    head = BFloat16Head(Decoder(weight, bias))
    active = (expected(weight, bias, hidden, torch.tensor([20, 20, 20])) > 0).sum()
    candidates = head.candidates(hidden).sum()
    assert 0 < active <= candidates < 1.5 * active


def test_nan_is_not_lost():
    weight, hidden = random(50, 8, seed=1), random(2, 4, 8, seed=2)
    hidden[1, 2, 3] = float("nan")
    found = BFloat16Head(Decoder(weight, torch.full((50,), -100.0)))(hidden, torch.tensor([4, 4]))
    assert not found[0].isnan().any()
    assert found[1].isnan().all()


def test_many_candidates_are_left_to_the_plain_head(monkeypatch):
    monkeypatch.setattr(bfloat16, "MOST_CANDIDATES", 0)
    weight, hidden = random(300, 16, seed=1), random(5, 33, 16, seed=2)
    head, called = BFloat16Head(Decoder(weight)), []
    plain = head._plain
    head._plain = lambda *given: called.append(1) or plain(*given)
    torch.testing.assert_close(head(hidden, LENGTHS), expected(weight, None, hidden, LENGTHS), rtol=1e-5, atol=2e-5)
    assert called == [1]


def test_only_large_bfloat16_decoders_get_it(monkeypatch):
    weight = random(300, 16, seed=1)
    assert not isinstance(choose(Decoder(weight), "max", "relu"), BFloat16Head)
    monkeypatch.setattr(bfloat16, "_LARGE", 300 * 16)
    if not BFloat16Head.suits(weight):
        pytest.skip("this processor has no fast bfloat16 product")
    assert isinstance(choose(Decoder(weight), "max", "relu"), BFloat16Head)
    assert isinstance(choose(Decoder(weight.float()), "max", "relu"), TwoPassHead)
