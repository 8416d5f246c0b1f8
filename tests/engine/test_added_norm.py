"""A kernel that adds and normalises equals two calls of torch. Without a GPU, Triton's interpreter runs the kernel."""

import copy
import importlib.util
import logging

import pytest
import torch
from torch import nn
from transformers import AutoModelForMaskedLM

from splade_integrations.engine.fusing import fuse_layers, use_norm_kernel
from splade_integrations.engine.layers import FusedLayers
from tests.support.loading import loaded

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="Triton is not installed (it exists for Linux only)"
    ),
]


def layer_norm(width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    norm = nn.LayerNorm(width, eps=1e-12).requires_grad_(False)
    norm.weight.copy_(torch.randn(width, generator=generator))
    norm.bias.copy_(torch.randn(width, generator=generator))
    return norm.to(DEVICE)


@pytest.mark.parametrize("width", [8, 100, 768, 4096])
@pytest.mark.parametrize("mean", [0.0, 300.0])  # with mean 300, E[x²] − E[x]² would lose digits
def test_equals_torch(width, mean):
    from splade_integrations.engine.kernels.added_norm import add_and_normalize_

    generator = torch.Generator().manual_seed(1)
    outputs, residual = torch.randn(2, 3, 5, width, generator=generator).to(DEVICE)
    outputs += mean
    norm = layer_norm(width)
    expected = copy.deepcopy(norm).double()(outputs.double() + residual.double()).float()
    found = add_and_normalize_(outputs, residual, norm)
    assert found is outputs
    torch.testing.assert_close(found, expected, atol=1e-5 if not mean else 1e-3, rtol=1e-5)


def test_sums_of_16_bits_are_not_rounded_before_they_are_normalised():
    from splade_integrations.engine.kernels.added_norm import add_and_normalize_

    generator = torch.Generator().manual_seed(2)
    outputs, residual = torch.randn(2, 7, 96, generator=generator).to(DEVICE, torch.float16)
    norm = layer_norm(96)
    expected = norm(outputs.float() + residual.float())
    found = add_and_normalize_(outputs, residual, norm.half())
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, atol=2e-3, rtol=1e-3)


def test_fused_layers_take_it_and_give_it_back(random_bert_folder, monkeypatch):
    from splade_integrations.engine.kernels import added_norm

    model = AutoModelForMaskedLM.from_pretrained(random_bert_folder).eval().requires_grad_(False).to(DEVICE)
    ids = torch.arange(5, 21, device=DEVICE).reshape(2, 8)
    assert use_norm_kernel(model.base_model) is None  # None, because the layers are not fused yet
    fuse_layers(model.base_model)
    expected = model(input_ids=ids).logits
    undo = use_norm_kernel(model.base_model)
    calls = []
    kernel = added_norm.add_and_normalize_
    monkeypatch.setattr(added_norm, "add_and_normalize_", lambda *parts: calls.append(parts) or kernel(*parts))
    torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert len(calls) == 2 * model.config.num_hidden_layers
    undo()
    torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=0, rtol=0)
    assert len(calls) == 2 * model.config.num_hidden_layers


def fails(*_):
    raise RuntimeError("no compiler")


def off_by_a_little(outputs, residual, norm):
    return norm(outputs + residual) * (1 + 2 * max(torch.finfo(outputs.dtype).eps, 1e-5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_check_takes_the_kernel(dtype):
    from splade_integrations.engine.kernels.added_norm import check_kernel

    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("numpy, which the interpreter computes with, has no bfloat16")
    check_kernel(layer_norm(96).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "words"), [(fails, "no compiler"), (off_by_a_little, "differs from torch's")])
def test_a_kernel_that_fails_or_differs_is_not_used(kernel, words, dtype, random_bert_folder, monkeypatch, caplog):
    """The layers stay fused even if the kernel is not used."""
    from splade_integrations.engine import optimize
    from splade_integrations.engine.compute import Compute
    from splade_integrations.engine.kernels import added_norm

    monkeypatch.setattr(added_norm, "add_and_normalize_", kernel)
    monkeypatch.setattr(optimize, "kernels_run", lambda device: True)
    model = AutoModelForMaskedLM.from_pretrained(random_bert_folder, dtype=dtype).eval().requires_grad_(False)
    with caplog.at_level(logging.INFO):
        optimize.optimize("random", model, Compute(model.device, str(dtype).removeprefix("torch.")))
    assert words in caplog.text
    assert isinstance(model.base_model.encoder, FusedLayers)
    assert not any(isinstance(module, added_norm.AddedNormKernel) for module in model.modules())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_gpu_takes_it(random_bert_folder, dtype):
    from splade_integrations.engine.kernels.added_norm import AddedNormKernel

    layer = loaded(random_bert_folder, device="cuda", dtype=dtype).network.base_model.encoder.layer[0]
    assert isinstance(layer.output_norm, AddedNormKernel)
