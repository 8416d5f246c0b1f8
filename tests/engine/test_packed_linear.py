"""Linear layers with weights packed for the processor equal torch's layers. Layers in int8 are close to these."""

import sys

import pytest
import torch
from torch import nn

from splade_integrations import SpladeEncoder
from splade_integrations.engine.int8_gemm import int8_products_pay
from splade_integrations.engine.int8_linear import Int8Linear
from splade_integrations.engine.layers import PackedLinear, pad_rows, rounded_up
from splade_integrations.engine.optimize import Linears, packing_pays
from tests.support.loading import loaded

CPU = torch.device("cpu")
needs_packing = pytest.mark.skipif(not packing_pays(CPU, torch.float32), reason="this processor cannot use packing")
needs_int8 = pytest.mark.skipif(not int8_products_pay(CPU), reason="this processor has no fast int8 product")


@needs_packing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64,), (0, 64), (1, 64), (3, 7, 64), (2, 3, 300, 64)])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_equals_plain(dtype, shape, bias):
    if not packing_pays(CPU, dtype):
        pytest.skip(f"this processor has no kernels for {dtype}")
    torch.manual_seed(0)
    linear, inputs = nn.Linear(64, 40, bias=bias, dtype=dtype), torch.randn(shape, dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(PackedLinear(linear)(inputs), linear(inputs).detach(), atol=tolerance, rtol=tolerance)


def test_few_numbers_of_rows_none_much_larger():
    numbers = {rows: rounded_up(rows) for rows in range(8192)}
    assert all(rows <= number <= rows * 17 / 16 for rows, number in numbers.items())
    assert all(rounded_up(number) == number for number in numbers.values())
    assert len(set(numbers.values())) < 170


@pytest.mark.parametrize(
    "kind",
    [pytest.param(PackedLinear, marks=needs_packing), pytest.param(Int8Linear, marks=needs_int8)],
)
def test_rows_are_rounded_up_within_a_layer_too(monkeypatch, kind):
    rows = []
    module = sys.modules[kind.__module__]
    monkeypatch.setattr(module, "pad_rows", lambda tokens, number: rows.append(number) or pad_rows(tokens, number))
    layer = kind(nn.Linear(64, 40).requires_grad_(False))
    assert [layer(torch.ones(2, 50, 64)).shape, layer(torch.ones(25, 64)).shape] == [(2, 50, 40), (25, 40)]
    assert rows == [rounded_up(100), 25]


@needs_packing
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_an_encoders_products_have_few_numbers_of_rows(model_folder, monkeypatch, dtype):
    kind = PackedLinear
    if dtype == "int8":
        kind = Int8Linear
        if not int8_products_pay(CPU):
            pytest.skip("this processor has no fast int8 product")
    forward, rows = kind.forward, []

    def recorded(self, inputs):
        if inputs.dim() == 2:  # a layer of the backbone; the head's layer rounds its number of rows itself
            rows.append(len(inputs))
        return forward(self, inputs)

    monkeypatch.setattr(kind, "forward", recorded)
    encoder = SpladeEncoder(model_folder, dtype=dtype)
    for words in range(1, 100):
        encoder.encode_documents(["word " * words] * 3)
    assert 20 < len(set(rows)) < 60
    assert {rounded_up(number) for number in rows} == set(rows)


@needs_packing
def test_an_encoders_layers_are_packed(model_folder):
    model = loaded(model_folder).network
    kinds = {type(module) for module in model.modules()}
    assert PackedLinear in kinds
    assert nn.Linear not in kinds


@needs_packing
@needs_int8
def test_int8_is_for_the_backbone_and_its_head_is_packed(model_folder):
    model = loaded(model_folder, dtype="int8").network
    kinds = [{type(module) for module in part.modules()} for part in (model.base_model, model.head)]
    assert [kind & {nn.Linear, PackedLinear, Int8Linear} for kind in kinds] == [{Int8Linear}, {PackedLinear}]


def test_a_layer_in_two_places_stays_one_and_all_can_be_put_back():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(nn.ReLU(), shared), "c": nn.Linear(4, 2)})
    linears = Linears(model)
    linears.replace(lambda linear: nn.Identity())
    assert model["a"] is model["b"][1] is not model["c"]
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    linears.put_back()
    assert model["a"] is model["b"][1] is shared


def test_a_layer_that_cannot_be_made_leaves_all_as_they_were():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 0))

    def refuse_empty(linear):
        if linear.out_features == 0:
            raise RuntimeError("empty")
        return nn.Identity()

    with pytest.raises(RuntimeError):
        Linears(model).replace(refuse_empty)
    assert all(isinstance(layer, nn.Linear) for layer in model)


@needs_int8
@pytest.mark.parametrize(("wide", "narrow"), [(64, 128), (128, 64)])
@pytest.mark.parametrize(
    "inputs",
    [
        lambda shape: torch.randn(shape),
        lambda shape: nn.functional.gelu(3 * torch.randn(shape)),
        lambda shape: 100 + 1e-3 * torch.randn(shape),
        lambda shape: torch.full(shape, 5.0),
        lambda shape: torch.zeros(shape),
        lambda shape: 1e30 * torch.randn(shape),
        lambda shape: 1e-38 * torch.randn(shape),
    ],
    ids=["normal", "gelu", "far from 0", "constant", "zero", "huge", "tiny"],
)
def test_int8_is_near_and_a_token_depends_on_no_other(wide, narrow, inputs):
    torch.manual_seed(0)
    linear = nn.Linear(wide, narrow).requires_grad_(False)
    layer, tokens = Int8Linear(linear), inputs((2, 300, wide))
    found, expected = layer(tokens), linear(tokens)
    assert (found - expected).abs().max() <= 0.015 * expected.abs().max()
    torch.testing.assert_close(layer(tokens[1, 37:38]), found[1, 37:38], atol=0, rtol=0)


@needs_int8
def test_int8_under_another_default_dtype_and_device():
    linear, tokens = nn.Linear(64, 32).requires_grad_(False), torch.randn(3, 64)
    expected = Int8Linear(linear)(tokens)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = Int8Linear(linear)(tokens)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


@needs_int8
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("wide", "narrow"), [(64, 128), (128, 64)])
def test_int8_shows_what_is_not_finite(value, wide, narrow):
    tokens = torch.randn(3, wide)
    tokens[1, 2] = value
    found = Int8Linear(nn.Linear(wide, narrow).requires_grad_(False))(tokens)
    assert not found[1].isfinite().any()
    assert found[[0, 2]].isfinite().all()
