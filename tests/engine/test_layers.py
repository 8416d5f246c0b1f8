"""Fused layers equal those of transformers. If the layers cannot be fused, a model keeps its own layers."""

import pytest
import torch
from transformers import AutoModelForMaskedLM

from splade_integrations.engine.compute import Compute
from splade_integrations.engine.fusing import fuse_layers
from splade_integrations.engine.layers import FusedLayers
from splade_integrations.engine.optimize import optimize
from tests.support.random_checkpoints import ARCHITECTURES, save_masked_lm


def load(folder, architecture, **config_options):
    save_masked_lm(folder, architecture, **config_options)
    return AutoModelForMaskedLM.from_pretrained(folder).eval().requires_grad_(False)


def logits(model, batch=3, length=11, padded=4):
    torch.manual_seed(1)
    ids = torch.randint(5, model.config.vocab_size, (batch, length))
    mask = torch.ones_like(ids)
    mask[1, length - padded :] = 0
    mask[2, length - padded // 2 :] = 0
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask).logits[mask.bool()]


def is_fused(model):
    return any(isinstance(module, FusedLayers) for module in model.base_model.modules())


@pytest.mark.parametrize("padded", [0, 4, 10])  # with 10, the layers leave padding out
@pytest.mark.parametrize(
    ("architecture", "config_options"),
    [
        *((architecture, {}) for architecture in ARCHITECTURES),
        ("camembert", {}),
        ("electra", {"embedding_size": 16}),
        ("bert", {"hidden_act": "relu"}),
        ("bert", {"hidden_act": "gelu_new"}),
        ("distilbert", {"activation": "relu"}),
        ("bert", {"attn_implementation": "eager"}),
        ("bert", {"output_hidden_states": True, "output_attentions": True, "attn_implementation": "eager"}),
    ],
)
def test_fused_equals_transformers(tmp_path, architecture, config_options, padded):
    model = load(tmp_path, architecture, **config_options)
    expected = logits(model, padded=padded)
    undo = fuse_layers(model.base_model)
    if architecture == "modernbert":  # its layers normalise first, so they are not fused
        assert undo is None
        return
    assert is_fused(model)
    torch.testing.assert_close(logits(model, padded=padded), expected, atol=1e-5, rtol=1e-5)
    undo()
    assert not is_fused(model)
    torch.testing.assert_close(logits(model, padded=padded), expected, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_loaded_model_is_fused_where_it_can_be(tmp_path, architecture, dtype):
    model = load(tmp_path, architecture).to(dtype)
    expected = logits(model)
    decoder, ignores_padding = optimize("a model", model, Compute(model.device, str(dtype).removeprefix("torch.")))
    assert is_fused(model) is (architecture != "modernbert")
    assert ignores_padding
    found = torch.nn.functional.linear(logits(model), decoder.weight, decoder.bias)
    tolerance = 1e-4 if dtype == torch.float32 else 0.02 * expected.abs().max().item()
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("config_options", [{"is_decoder": True}, {"is_decoder": True, "attn_implementation": "eager"}])
def test_a_model_of_tokens_that_see_no_later_ones_keeps_its_layers(tmp_path, config_options):
    model = load(tmp_path, "bert", **config_options)
    expected = logits(model)
    decoder, _ = optimize("a model", model, Compute(model.device, "float32"))
    assert not is_fused(model)
    found = torch.nn.functional.linear(logits(model), decoder.weight, decoder.bias)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_layers_with_code_of_a_repositorys_own_stay(tmp_path):
    model = load(tmp_path, "bert")

    class OwnAttention(torch.nn.Module):  # it might differ on long texts, which the probe does not contain
        def __init__(self, attention):
            super().__init__()
            self.query, self.key, self.value = attention.query, attention.key, attention.value
            self.num_attention_heads = attention.num_attention_heads

    layer = model.base_model.encoder.layer[1].attention
    layer.self = OwnAttention(layer.self)
    assert fuse_layers(model.base_model) is None


def test_a_probe_that_fails_in_any_way_undoes_the_change(tmp_path, monkeypatch):
    model = load(tmp_path, "bert")
    expected = logits(model)

    def wrong(self, *_):
        raise IndexError("of hidden states, say")

    monkeypatch.setattr("splade_integrations.engine.layers.FusedLayer.forward", wrong)
    decoder, _ = optimize("a model", model, Compute(model.device, "float32"))
    assert not is_fused(model)
    found = torch.nn.functional.linear(logits(model), decoder.weight, decoder.bias)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("real", "rows"), [([16, 9, 8, 3], 36), ([16, 15, 15, 15], 64), ([16] * 4, 64)])
def test_linear_layers_compute_no_padding_if_there_is_much(tmp_path, real, rows):
    model = load(tmp_path, "bert")
    fuse_layers(model.base_model)
    found = []
    for layer in model.base_model.encoder.layer:
        for linear in (layer.projections, layer.attention_output, layer.intermediate, layer.output):
            linear.register_forward_pre_hook(lambda _, inputs: found.append(len(inputs[0])))
    mask = torch.tensor([[1] * length + [0] * (16 - length) for length in real])
    with torch.inference_mode():
        model(input_ids=torch.full_like(mask, 7), attention_mask=mask)
    assert found == [rows] * 4 * model.config.num_hidden_layers
