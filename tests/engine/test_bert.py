"""BERT, RoBERTa and DistilBERT that are built without transformers compute what transformers computes.

tests/test_reference.py compares the rows of whole encoders, and tests/models/ tests damaged checkpoints.
"""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM

from splade_integrations.engine.bert import read_bert
from splade_integrations.models.repository import Repository
from tests.support.loading import loaded
from tests.support.random_checkpoints import save_masked_lm

ARCHITECTURES = ("bert", "distilbert", "roberta", "xlm-roberta")
BERT_LAYER = "bert.encoder.layer.0.output.LayerNorm"


def read(folder, dtype=torch.float32, **options):
    return read_bert(Repository(str(folder), **options), "", dtype)


def change_config(folder, **changes):
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))


def change_weights(folder, change):
    """Call `change` with {name: tensor}, and save what it leaves there."""
    file = folder / "model.safetensors"
    weights = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(weights)
    save_file(weights, file, {"format": "pt"})


def rename(old, new):
    def change(weights):
        for name in [name for name in weights if old in name]:
            weights[name.replace(old, new)] = weights.pop(name)

    return change


def batch(vocabulary, padding_id):
    """Return two texts of 40 tokens, the second one padded after 23. It contains the padding id in the middle, too."""
    ids = torch.arange(80).reshape(2, 40) * 7 % (vocabulary - 5) + 5
    ids[0, 4] = padding_id
    mask = torch.ones_like(ids)
    ids[1, 23:], mask[1, 23:] = padding_id, 0
    return {"input_ids": ids, "attention_mask": mask}


def assert_equals_transformers(folder, dtype=torch.float32):
    expected = AutoModelForMaskedLM.from_pretrained(folder, dtype=dtype).eval()
    model = read(folder, dtype).requires_grad_(False)
    inputs = batch(expected.config.vocab_size, expected.config.pad_token_id)
    for given in (inputs, {name: part[:1] for name, part in inputs.items()}):  # with and without padding
        real = given["attention_mask"].bool()
        with torch.inference_mode():
            found, logits = model(**given).logits[real], expected(**given).logits[real]
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(found, logits, atol=16 * eps * logits.abs().max().item(), rtol=16 * eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_equal_those_of_transformers(tmp_path, architecture, dtype):
    save_masked_lm(tmp_path, architecture)
    assert_equals_transformers(tmp_path, dtype)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_other_sizes(tmp_path, architecture):
    sizes = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4}
    save_masked_lm(tmp_path, architecture, **sizes, layer_norm_eps=1e-3, type_vocab_size=3)
    assert_equals_transformers(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_checkpoint_in_16_bits(tmp_path, dtype):
    save_masked_lm(tmp_path, "bert")
    change_weights(tmp_path, lambda weights: weights.update({name: part.to(dtype) for name, part in weights.items()}))
    assert_equals_transformers(tmp_path)


def test_weights_in_several_files(tmp_path):
    save_masked_lm(tmp_path, "bert")
    model = AutoModelForMaskedLM.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_equals_transformers(tmp_path)


def add(name, of):
    return lambda weights: weights.update({name: weights[of].clone()})


@pytest.mark.parametrize(
    "change",
    [
        rename("LayerNorm.weight", "LayerNorm.gamma"),
        rename("LayerNorm.bias", "LayerNorm.beta"),
        add("bert.pooler.dense.weight", BERT_LAYER + ".weight"),
        add("cls.seq_relationship.bias", BERT_LAYER + ".weight"),
        add("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        add("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ],
)
def test_weights_under_names_of_older_checkpoints(tmp_path, change):
    save_masked_lm(tmp_path, "bert")
    if change.__qualname__.startswith("rename"):  # both halves are renamed together
        change_weights(tmp_path, rename("LayerNorm.weight", "LayerNorm.gamma"))
        change_weights(tmp_path, rename("LayerNorm.bias", "LayerNorm.beta"))
    else:
        change_weights(tmp_path, change)
    assert_equals_transformers(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu"},
        {"is_decoder": True},
        {"tie_word_embeddings": None},
        {"is_decoder": 0},
        {"pad_token_id": 10_000},
        {"num_attention_heads": 3},
        {"num_attention_heads": True},
        {"transformers_weights": "other.safetensors"},
        {"per_layer_config": {"0": {"num_attention_heads": 1}}},
        {"architectures": {"BertForMaskedLM": 1}},
        {"tie_word_embeddings": False},
        {"position_embedding_type": "relative_key"},
        {"num_hidden_layers": 1},
        {"layer_norm_eps": "absent"},
        {"type_vocab_size": "absent"},
        {"model_type": "electra"},
        {"architectures": ["BertForPreTraining", "BertForMaskedLM"]},
    ],
    ids=str,
)
def test_other_configurations_are_left_to_transformers(tmp_path, changes):
    save_masked_lm(tmp_path, "bert")
    change_config(tmp_path, **changes)
    assert read(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop(BERT_LAYER + ".bias"),
        lambda weights: weights[BERT_LAYER + ".bias"].fill_(torch.nan),
        lambda weights: weights.update({BERT_LAYER + ".bias": torch.zeros(31)}),
        lambda weights: weights.update({BERT_LAYER + ".bias": torch.zeros(32, dtype=torch.int64)}),
        lambda weights: weights.update({BERT_LAYER + ".bias": torch.zeros(32, dtype=torch.float8_e4m3fn)}),
        lambda weights: weights.update({"cls.predictions.decoder.bias": torch.zeros(1)}),
        lambda weights: weights.update({"cls.predictions.decoder.weight": torch.zeros(3, 32)}),
        add("bert.encoder.layer.2.output.LayerNorm.weight", BERT_LAYER + ".weight"),
        add("bert.encoder.layer.0.adapter.weight", BERT_LAYER + ".weight"),
    ],
)
def test_other_weights_are_left_to_transformers(tmp_path, change):
    save_masked_lm(tmp_path, "bert")
    change_weights(tmp_path, change)
    assert read(tmp_path) is None


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("distilbert", {"num_attention_heads": 4}),  # in transformers, it counts more than n_heads
        ("roberta", {"pad_token_id": None}),
        ("roberta", {"pad_token_id": 131}),  # the last position, so no text has any
    ],
)
def test_configurations_of_other_families_are_left_to_transformers(tmp_path, architecture, changes):
    save_masked_lm(tmp_path, architecture)
    change_config(tmp_path, **changes)
    assert read(tmp_path) is None


@pytest.mark.parametrize(("architecture", "norm"), [("distilbert", "sa_layer_norm"), ("roberta", "lm_head.layer_norm")])
def test_only_a_norm_called_layernorm_may_have_gamma_and_beta(tmp_path, architecture, norm):
    save_masked_lm(tmp_path, architecture)
    change_weights(tmp_path, rename(f"{norm}.weight", f"{norm}.gamma"))
    change_weights(tmp_path, rename(f"{norm}.bias", f"{norm}.beta"))
    assert read(tmp_path) is None


def test_weights_that_16_bits_cannot_hold_are_left_to_transformers(tmp_path):
    save_masked_lm(tmp_path, "bert")
    change_weights(tmp_path, lambda weights: weights[BERT_LAYER + ".bias"].fill_(1e5))
    assert read(tmp_path, torch.float32) is not None
    assert read(tmp_path, torch.float16) is None


@pytest.mark.parametrize("content", [b"", b"\x08" * 40])
def test_a_damaged_file_is_left_to_transformers(tmp_path, content):
    save_masked_lm(tmp_path, "bert")
    (tmp_path / "model.safetensors").write_bytes(content)
    assert read(tmp_path) is None


def test_bin_files_and_own_code_are_left_to_transformers(tmp_path):
    save_masked_lm(tmp_path, "bert")
    assert read(tmp_path, trust_remote_code=True) is None
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert read(tmp_path) is None
    assert loaded(tmp_path).network.cls  # the fused layers in a model of transformers


@pytest.mark.parametrize(
    ("architecture", "module"),
    [("bert", "transformers"), ("distilbert", "transformers"), ("roberta", "transformers.modeling_utils")],
)
def test_encoding_imports_no_model_of_transformers(tmp_path, architecture, module):
    save_masked_lm(tmp_path, architecture)
    code = f"""
import sys
from splade_integrations import SpladeEncoder
encoder = SpladeEncoder(sys.argv[1])
heavy = {{{module!r}, "sympy", "torch._dynamo"}} & sys.modules.keys()
print(encoder.encode_documents(["a b"]).nnz, encoder.explain("b", "a b").score, *heavy)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    terms, score, *heavy = done.stdout.split()
    assert (int(terms) > 0, float(score) > 0, heavy) == (True, True, [])
