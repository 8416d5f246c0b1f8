"""Fused layers against transformers' own, and models that they do not fit."""

import pytest
import torch
from random_checkpoints import ARCHITECTURES, save_masked_lm
from transformers import AutoModelForMaskedLM

from splade_integrations.fused_layers import fuse_layers
from splade_integrations.rebuilding import rebuild


def load(folder, architecture, **config_options):
    save_masked_lm(folder, architecture, **config_options)
    return AutoModelForMaskedLM.from_pretrained(folder).eval().requires_grad_(False)


def logits(model, batch=3, length=11, padded=4):
    torch.manual_seed(1)
    ids = torch.randint(5, model.config.vocab_size, (batch, length))
    mask = torch.ones_like(ids)
    mask[1, length - padded :] = 0
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask).logits[mask.bool()]


def is_fused(model):
    return any(type(module).__module__.endswith("fused_layers") for module in model.base_model.modules())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("padded", [0, 4])
def test_fused_equals_transformers(tmp_path, architecture, padded):
    model = load(tmp_path, architecture)
    expected = logits(model, padded=padded)
    undo = fuse_layers(model.base_model)
    if architecture == "modernbert":  # no post-norm layers
        assert undo is None
        return
    assert is_fused(model)
    torch.testing.assert_close(logits(model, padded=padded), expected, atol=1e-5, rtol=1e-5)
    undo()
    assert not is_fused(model)
    torch.testing.assert_close(logits(model, padded=padded), expected, atol=0, rtol=0)


@pytest.mark.parametrize(("architecture", "fits"), [("bert", True), ("distilbert", True), ("roberta", True),
                                                    ("modernbert", False)])  # fmt: skip
def test_a_loaded_model_is_fused_where_it_can_be(tmp_path, architecture, fits):
    model = load(tmp_path, architecture)
    expected = logits(model)
    decoder, ignores_padding = rebuild("a model", model, torch.float32)
    assert is_fused(model) is fits
    assert ignores_padding
    found = torch.nn.functional.linear(logits(model), decoder.weight, decoder.bias)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_model_that_computes_something_else_keeps_its_own_layers(tmp_path):
    model = load(tmp_path, "bert", is_decoder=True)  # each token sees those before it only
    expected = logits(model)
    decoder, _ = rebuild("a model", model, torch.float32)
    assert not is_fused(model)
    found = torch.nn.functional.linear(logits(model), decoder.weight, decoder.bias)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
