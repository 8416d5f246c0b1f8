"""The two-pass head equals the plain head, even on weights for which a careless bound would miss terms."""

import pytest
import torch
from torch.nn.functional import linear

from splade_integrations.engine.heads import two_pass
from splade_integrations.engine.heads.tiled import Decoder, MaxPoolHead, splade_pool
from splade_integrations.engine.heads.two_pass import TwoPassHead
from splade_integrations.engine.int8_gemm import QMAX_7BIT, QMAX_8BIT, int8_weight_qmax
from splade_integrations.engine.load import mean_hidden
from splade_integrations.engine.model import NetworkOutput
from tests.support.loading import loaded, splade_model

pytestmark = pytest.mark.skipif(int8_weight_qmax() is None, reason="this processor has no fast int8 product")


@pytest.fixture(autouse=True)
def never_give_up(monkeypatch):
    """Always use the second pass, even if there are many candidates."""
    monkeypatch.setattr(two_pass, "MOST_CANDIDATES", 2)


@pytest.fixture(autouse=True, params=[QMAX_8BIT, QMAX_7BIT], ids=["8 bits", "7 bits"])
def qmax(request, monkeypatch):
    """Run the tests with the int8 ranges for VNNI and for AVX2. Any processor can use both, but may be slow."""
    monkeypatch.setattr(two_pass, "int8_weight_qmax", lambda: request.param)
    return request.param


def some_centres(hidden):
    """Return three centres: 0, one near the vectors, and one far from them. A centre must not change the result."""
    vectors = hidden.float().flatten(0, 1)
    return [None, vectors.mean(dim=0), -3 * vectors[0]]


def assert_equal_to_reference(weight, bias, hidden, lengths=None, rtol=1e-5, atol=1e-6, activation="relu"):
    lengths = torch.full((hidden.shape[0],), hidden.shape[1]) if lengths is None else lengths
    mask = (torch.arange(hidden.shape[1]) < lengths.unsqueeze(1)).long()
    expected = splade_pool(
        linear(hidden.float(), weight.float(), None if bias is None else bias.float()), mask, "max", activation
    )
    for centre in some_centres(hidden):
        found = TwoPassHead(Decoder(weight, bias, centre), activation)(hidden, lengths)
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol, equal_nan=True)
        assert not ((expected > atol) & (found == 0)).any()
    return expected


@pytest.mark.parametrize("width", [2, 7, 128, 768, 4096])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_random_weights(width, scale):
    generator = torch.Generator().manual_seed(width)
    weight = torch.randn(700, width, generator=generator) * scale / width**0.5
    hidden = torch.randn(5, 33, width, generator=generator)
    bias = torch.randn(700, generator=generator) * scale - 3 * scale
    lengths = torch.tensor([33, 1, 20, 5, 32])
    rounding = 1e-6 * max(1, scale) * max(1, (width / 768) ** 0.5)  # the rounding error of a sum of `width` products
    expected = assert_equal_to_reference(weight, bias, hidden, lengths, atol=rounding)
    assert 0 < (expected > 0).float().mean() < 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("most_candidates", [2, 0], ids=["second pass", "plain head"])
def test_sixteen_bits_give_what_float32_makes_of_them(dtype, activation, most_candidates, monkeypatch):
    """The second pass and the plain head agree, so a row does not depend on how many candidates other texts have."""
    monkeypatch.setattr(two_pass, "MOST_CANDIDATES", most_candidates)
    generator = torch.Generator().manual_seed(7)
    weight, hidden = torch.randn(900, 64, generator=generator), torch.randn(4, 20, 64, generator=generator)
    bias, lengths = torch.randn(900, generator=generator) - 15, torch.tensor([20, 3, 11, 20])
    expected = assert_equal_to_reference(
        weight.to(dtype), bias.to(dtype), hidden.to(dtype), lengths, atol=2e-5, activation=activation
    )
    assert 0 < (expected > 0).float().mean() < 0.9


def test_norms_whose_squares_underflow():
    """The logit is positive, although each weight of 2^-76 rounds to 0 and its square underflows.

    63 such weights times 2^20 outweigh the bias.
    """
    weight, hidden = torch.full((1, 64), 2.0**-76), torch.full((1, 1, 64), 2.0**20)
    weight[0, 0], hidden[0, 0, 0] = -(2.0**-68), 0
    bias = torch.tensor([-(2.0**-51)])
    assert (linear(hidden.double(), weight.double()) + bias).item() > 0
    for centre in some_centres(hidden):
        assert TwoPassHead(Decoder(weight, bias, centre)).candidates(hidden).all()


def test_rounding_by_a_half_unit_on_both_operands():
    """A bound with a single 2^-8 would miss this positive term, because the rounding errors of both operands add up."""
    hidden = torch.empty(1, 1, 128)
    hidden[..., :64], hidden[..., 64:] = 1 + 0.999 * 2**-8, 1 + 1.001 * 2**-8
    weight = torch.cat([hidden[0, :, :64], -hidden[0, :, 64:]], dim=1)
    for bias in (0.3, 0.1, 0.0, -0.1, 1.0):
        assert_equal_to_reference(weight, torch.tensor([bias]), hidden)


def test_cancelling_signs():
    """Products of about 2^16 cancel. What remains is about as large as the rounding errors of the products."""
    generator = torch.Generator().manual_seed(4)
    half = torch.randn(300, 256, generator=generator) * 256
    weight = torch.cat([half, -half], dim=1)
    tokens = torch.randn(2, 9, 256, generator=generator) * 256
    hidden = torch.cat([tokens, tokens + torch.randn(tokens.shape, generator=generator) * 1e-2], dim=2)
    assert_equal_to_reference(weight, None, hidden, rtol=1e-3, atol=0.5)


def test_bias_that_all_but_cancels_the_maximum():
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(2000, 128, generator=generator)
    hidden = torch.randn(1, 12, 128, generator=generator)
    maxima = linear(hidden, weight).amax(dim=1)[0]
    offsets = torch.logspace(-6, 0, 2000) * torch.where(torch.arange(2000) % 2 == 0, 1, -1)
    assert_equal_to_reference(weight, -maxima + offsets, hidden, atol=2e-5)


@pytest.mark.parametrize("tiny", [1e-20, 1e-38, 1e-42])
def test_numbers_below_the_normal_range(tiny):
    generator = torch.Generator().manual_seed(6)
    weight = torch.randn(500, 64, generator=generator) * tiny
    hidden = torch.randn(2, 8, 64, generator=generator)
    bias = torch.linspace(-1e-3, 1e-3, 500)
    assert_equal_to_reference(weight, bias, hidden, atol=1e-7)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(value):
    weight, hidden = torch.randn(50, 16), torch.randn(3, 4, 16)
    hidden[1, 2, 3] = value
    found = TwoPassHead(Decoder(weight))(hidden, torch.tensor([4, 4, 4]))
    assert not found[1].isfinite().all()
    assert found[[0, 2]].isfinite().all()


def test_the_bound_is_tight_on_a_trained_model(model_folder, encoder, texts, qmax, monkeypatch):
    """There are not many more candidates than active terms.

    With many more candidates, the second pass would be as slow as the plain head.
    """
    model = splade_model(model_folder)
    assert isinstance(model.head, TwoPassHead)
    model.head, seen = TwoPassHead(model.model.decoder), []  # a new head with this number of bits
    counting = model.head.candidates
    monkeypatch.setattr(model.head, "candidates", lambda hidden: seen.append(counting(hidden)) or seen[-1])
    ids = encoder.tokenizer(texts[3:180:15], truncation=True, max_length=256)["input_ids"]
    active = model.encode(ids, lambda _: None).nnz
    # There are about 1.7 candidates per active term with 8 bits, and 2.1 with 7 bits. With 8 bits and the centre 0 in
    # place of the mean hidden state, there are 2.1.
    most = {QMAX_8BIT: 1.8, QMAX_7BIT: 2.3}[qmax]
    assert active <= sum(candidates.sum().item() for candidates in seen) < most * active


def test_the_mean_hidden_state_is_finite_or_zero(model_folder, monkeypatch):
    """If the mean were not finite, because the model overflows, every term would be a candidate in each batch."""
    model = loaded(model_folder)
    mean = mean_hidden(model)
    assert mean.shape == model.decoder.weight.shape[1:]
    assert mean.isfinite().all()
    assert mean.any()
    forward = type(model.network).forward

    def overflowing(self, *inputs, **options):
        return NetworkOutput(forward(self, *inputs, **options).logits * float("inf"))

    monkeypatch.setattr(type(model.network), "forward", overflowing)
    assert torch.equal(mean_hidden(model), torch.zeros_like(mean))


def test_many_candidates_fall_back_to_the_plain_head(monkeypatch):
    monkeypatch.setattr(two_pass, "MOST_CANDIDATES", 1 / 16)
    called = []
    plain = MaxPoolHead.__call__
    monkeypatch.setattr(MaxPoolHead, "__call__", lambda *arguments: called.append(1) or plain(*arguments))
    weight, hidden = torch.randn(500, 16), torch.randn(2, 40, 16)
    found = TwoPassHead(Decoder(weight))(hidden, torch.tensor([40, 40]))
    assert called
    torch.testing.assert_close(found, splade_pool(linear(hidden, weight), torch.ones(2, 40)))


def test_a_first_pass_that_never_pays_is_rarely_run(monkeypatch):
    weight = torch.randn(300, 16, generator=torch.Generator().manual_seed(1))
    hidden, lengths = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(2)), torch.tensor([8, 5, 1])
    head, passes, candidates = TwoPassHead(Decoder(weight)), [], TwoPassHead.candidates
    monkeypatch.setattr(TwoPassHead, "candidates", lambda *args: passes.append(1) or candidates(*args))
    monkeypatch.setattr(two_pass, "MOST_CANDIDATES", 0)  # every batch has too many candidates
    expected = MaxPoolHead(Decoder(weight))(hidden, lengths)
    for _ in range(31):
        torch.testing.assert_close(head(hidden, lengths), expected)
    assert len(passes) == 5  # the first pass ran for batches 1, 3, 6, 11 and 20
    monkeypatch.setattr(two_pass, "MOST_CANDIDATES", 2)  # no batch has too many candidates
    for _ in range(20):
        torch.testing.assert_close(head(hidden, lengths), expected)
    assert len(passes) > 10
