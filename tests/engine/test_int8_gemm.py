"""Integer products are exact on this processor, and the check for exactness finds products that are not exact."""

import pytest
import torch
from torch.nn.functional import pad

from splade_integrations.engine import int8_gemm as int8_products
from splade_integrations.engine.int8_gemm import (
    QMAX_7BIT,
    QMAX_8BIT,
    int8_products_pay,
    int8_weight_qmax,
    multiply_int8,
    pack_int8,
    quantize,
    to_unsigned,
)

LEVELS = int8_weight_qmax()
needs_int8 = pytest.mark.skipif(LEVELS is None, reason="this processor has no fast int8 product")


def some_integers(least, most, shape):
    return torch.randint(least, most + 1, shape, generator=torch.Generator().manual_seed(shape[1]))


def saturating(left, zero, packed, steps):
    """Multiply as AVX2 does: add pairs of products in 16 bits, with saturation."""
    products = pad(left[:, None].long() * packed[None].long(), (0, left.shape[1] % 2))
    pairs = products.unflatten(-1, (-1, 2)).sum(dim=-1).clamp(-(2**15), 2**15 - 1)
    return (pairs.sum(dim=-1) - zero * packed.long().sum(dim=-1)).float() * steps


def rounding(left, zero, packed, steps):
    """Multiply with sums that are rounded to float32 before the zero point is subtracted."""
    sums = (left.long() @ packed.long().T).float()
    return (sums - (zero * packed.long().sum(dim=-1)).float()) * steps


def ignoring_steps(left, zero, packed, steps):
    return (left.long() - zero) @ packed.long().T * 1.0


def wrong_at_the_end(left, zero, packed, steps):
    whole = left.shape[1] // 4 * 4
    return saturating(left[:, :whole], zero, packed[:, :whole], steps)


@needs_int8
@pytest.mark.parametrize("width", [2, 7, 129, 768, 4096])
@pytest.mark.parametrize("zero", [0, QMAX_7BIT, 128])
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
    weights = some_integers(-QMAX_7BIT, QMAX_7BIT, (70, width)).to(torch.int8)
    tokens = some_integers(-QMAX_8BIT, QMAX_8BIT, (37, width)).to(torch.int8)
    found = multiply_int8(to_unsigned(weights), QMAX_7BIT, pack_int8(tokens), torch.ones(37))
    assert torch.equal(found, (weights.long() @ tokens.long().T).float())


@pytest.mark.parametrize(
    ("product", "exact"),
    [
        (saturating, [QMAX_7BIT]),
        (rounding, []),
        (ignoring_steps, []),
        (wrong_at_the_end, []),
    ],
)
def test_products_that_are_not_exact_are_found(monkeypatch, product, exact):
    monkeypatch.setattr(int8_products, "multiply_int8", product)
    monkeypatch.setattr(int8_products, "pack_int8", lambda integers: integers)
    assert [levels for levels in (QMAX_7BIT, QMAX_7BIT + 1, QMAX_8BIT) if int8_products.is_exact(levels)] == exact


@needs_int8
@pytest.mark.parametrize(
    ("vnni", "amx", "capability", "expected"),
    [
        (True, False, "AVX512", QMAX_8BIT),
        (False, True, "AVX512", QMAX_8BIT),
        (False, False, "AVX512", QMAX_7BIT),
        (False, False, "AVX2", QMAX_7BIT),
        (False, False, "DEFAULT", None),
    ],
)
def test_a_processor_has_int8_where_its_sums_are_exact(monkeypatch, vnni, amx, capability, expected):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    asked = int8_weight_qmax.__wrapped__  # bypasses the cache
    monkeypatch.setattr(int8_products, "is_exact", lambda levels: True)
    assert asked() == expected
    monkeypatch.setattr(int8_products, "is_exact", lambda levels: False)
    monkeypatch.setattr(torch, "_int_mm", lambda left, right: torch.zeros(64, 64, dtype=torch.int32))
    assert asked() is None


@needs_int8
def test_the_first_question_may_come_under_any_default():
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert int8_weight_qmax.__wrapped__() == LEVELS
    finally:
        torch.set_default_dtype(default)


def test_int8_is_for_a_cpu():
    assert not int8_products_pay(torch.device("cuda"))
    assert int8_products_pay(torch.device("cpu")) == (LEVELS is not None)


@pytest.mark.parametrize("levels", [QMAX_8BIT, QMAX_7BIT])
def test_a_grid_reaches_from_end_to_end(levels):
    vectors = torch.tensor([[-3.0, 0.01, 3.0], [0.0, 0.0, 0.0], [1e-38, 0.0, 0.0]])
    integers, step = quantize(vectors, vectors.abs().amax(dim=1, keepdim=True), levels)
    assert integers[0].tolist() == [-levels, 0, levels]
    assert ((vectors - integers * step).abs() <= step / 2).all()
