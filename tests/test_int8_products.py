"""Integer products: exact as this processor makes them, and known not to be where they saturate."""

import pytest
import torch

from splade_integrations import int8_products
from splade_integrations.int8_products import (
    EIGHT_BITS,
    SEVEN_BITS,
    int8_weight_levels,
    multiply_int8,
    pack_int8,
    to_int8_grid,
    to_unsigned,
)

LEVELS = int8_weight_levels()
needs_int8 = pytest.mark.skipif(LEVELS is None, reason="this processor has no fast int8 product")


def some_integers(least, most, shape):
    return torch.randint(least, most + 1, shape, generator=torch.Generator().manual_seed(shape[1]))


def saturating(left, zero, packed, steps):
    """As AVX2 does it, on unpacked weights: each two products are added in 16 bits."""
    products = left[:, None].long() * packed[None].long()
    pairs = products.unflatten(-1, (-1, 2)).sum(dim=-1).clamp(-(2**15), 2**15 - 1)
    return (pairs.sum(dim=-1) - zero * packed.long().sum(dim=-1)) * steps


@needs_int8
@pytest.mark.parametrize("width", [2, 7, 129, 768, 4096])
@pytest.mark.parametrize("zero", [0, SEVEN_BITS, 128])
def test_sums_are_exact(width, zero):
    tokens = some_integers(0, 255, (37, width)).to(torch.uint8)
    weights = some_integers(-LEVELS, LEVELS, (70, width)).to(torch.int8)
    steps = torch.full((70,), 2.0**-20)
    expected = (tokens.long() - zero) @ weights.long().T
    found = multiply_int8(tokens, zero, pack_int8(weights), steps) * 2.0**20
    assert torch.equal(found, expected.float())


@needs_int8
@pytest.mark.parametrize("width", [2, 7, 129, 768, 4096])
def test_weights_on_the_left_are_exact(width):
    weights = some_integers(-SEVEN_BITS, SEVEN_BITS, (70, width)).to(torch.int8)
    tokens = some_integers(-EIGHT_BITS, EIGHT_BITS, (37, width)).to(torch.int8)
    found = multiply_int8(to_unsigned(weights), SEVEN_BITS, pack_int8(tokens), torch.ones(37))
    assert torch.equal(found, (weights.long() @ tokens.long().T).float())


def test_a_saturating_sum_of_eight_bits_is_found_and_one_of_seven_does_not_saturate(monkeypatch):
    monkeypatch.setattr(int8_products, "multiply_int8", saturating)
    monkeypatch.setattr(int8_products, "pack_int8", lambda integers: integers)
    assert not int8_products._is_exact(EIGHT_BITS)
    assert not int8_products._is_exact(SEVEN_BITS + 1)
    assert int8_products._is_exact(SEVEN_BITS)


@needs_int8
@pytest.mark.parametrize(("vnni", "capability"), [(True, "AVX512"), (False, "AVX2"), (False, "DEFAULT")])
def test_a_processor_has_no_int8_where_its_sums_are_not_exact(monkeypatch, vnni, capability):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    levels = int8_weight_levels.__wrapped__
    monkeypatch.setattr(int8_products, "_is_exact", lambda levels: True)
    assert levels() == (EIGHT_BITS if vnni else SEVEN_BITS if capability == "AVX2" else None)
    monkeypatch.setattr(int8_products, "_is_exact", lambda levels: False)
    assert levels() is None


@pytest.mark.parametrize("levels", [EIGHT_BITS, SEVEN_BITS])
def test_a_grid_reaches_from_end_to_end(levels):
    vectors = torch.tensor([[-3.0, 0.01, 3.0], [0.0, 0.0, 0.0], [1e-38, 0.0, 0.0]])
    integers, step = to_int8_grid(vectors, vectors.abs().amax(dim=1, keepdim=True), levels)
    assert integers[0].tolist() == [-levels, 0, levels]
    assert ((vectors - integers * step).abs() <= step / 2).all()
