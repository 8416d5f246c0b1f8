"""Tests of folders with an adapter beside a checkpoint, with an adapter alone, and with only ONNX files."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM

from splade_integrations import OptionalDependencyError, SpladeEncoder, UnsupportedModelError
from tests.models.test_layouts import TOLERANCE
from tests.support.layouts import symmetric

# Module names per architecture. The last one is the decoder. Its base weights are tied to the embeddings.
TARGETS = {
    "bert": ["query", "value", "word_embeddings", "decoder"],
    "distilbert": ["q_lin", "ffn.lin1", "vocab_projector"],
    "modernbert": ["Wqkv", "decoder"],
}


def add_adapter(folder, settings) -> None:
    """Save a random adapter in a checkpoint's folder. peft's own initial weights would not change the rows."""
    model = get_peft_model(AutoModelForMaskedLM.from_pretrained(folder), settings)
    torch.manual_seed(1)
    for name, value in model.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(value, std=0.15)
    model.save_pretrained(folder)


@pytest.fixture
def adapted(plain, tmp_path):
    """Return a function that saves a checkpoint with a LoRA adapter beside it, and returns the folder."""

    def make(architecture: str = "bert"):
        folder = tmp_path / "model"
        shutil.copytree(plain(architecture), folder)
        add_adapter(folder, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS[architecture]))
        return folder

    return make


def rows_of_peft(folder, encoder, texts) -> np.ndarray:
    """Return the term weights of the checkpoint with peft's own layers, one text at a time."""
    model = PeftModel.from_pretrained(
        AutoModelForMaskedLM.from_pretrained(folder, adapter_kwargs={"subfolder": "none"}), folder
    ).eval()
    rows = []
    with torch.inference_mode():
        for text in texts:
            inputs = encoder.tokenizer(text, truncation=True, max_length=encoder.max_length, return_tensors="pt")
            rows.append(torch.log1p(torch.relu(model(**inputs).logits)).amax(1)[0].numpy())
    return np.stack(rows)


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings")
@pytest.mark.parametrize("architecture", TARGETS)
def test_an_adapter_is_merged(adapted, plain, odd_texts, architecture):
    folder = adapted(architecture)
    encoder, bare = SpladeEncoder(folder), SpladeEncoder(plain(architecture))
    texts = [text for text in odd_texts if "\x00" not in text][-100:]
    ours = encoder.encode_documents(texts).toarray()
    np.testing.assert_allclose(ours, rows_of_peft(folder, encoder, texts), atol=TOLERANCE)
    assert np.abs(ours - bare.encode_documents(texts).toarray()).max() > 0.1
    assert encoder.fingerprint.differences(bare.fingerprint) == ["weights"]


def test_the_layout_of_sentence_transformers_has_an_adapter_too(adapted, plain, tmp_path):
    rows = SpladeEncoder(adapted()).encode_documents(["ab c", "x"]).toarray()
    folder = tmp_path / "st"
    symmetric(plain, "bert").save_pretrained(str(folder))
    for file in (tmp_path / "model").glob("adapter_*"):
        shutil.copy(file, folder)
    np.testing.assert_array_equal(SpladeEncoder(folder).encode_documents(["ab c", "x"]).toarray(), rows)


def test_the_strength_of_an_adapter_is_part_of_the_fingerprint(adapted):
    folder = adapted()
    before = SpladeEncoder(folder).fingerprint
    rewrite(folder / "adapter_config.json", lora_alpha=16)
    assert SpladeEncoder(folder).fingerprint.differences(before) == ["weights"]


def test_an_adapter_needs_peft(adapted, monkeypatch):
    folder = adapted()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(OptionalDependencyError, match=r"The LORA adapter for .* needs peft\. .*integrations\[peft\]"):
        SpladeEncoder(folder)


@pytest.mark.parametrize("layout", ["plain", "sentence-transformers"])
def test_an_adapter_alone_names_what_is_missing(adapted, plain, tmp_path, layout):
    folder = adapted()
    rewrite(folder / "adapter_config.json", base_model_name_or_path="org/base")
    if layout != "plain":
        symmetric(plain, "bert").save_pretrained(str(tmp_path / "st"))
        folder = shutil.copytree(folder, tmp_path / "st", dirs_exist_ok=True)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match=r"only a LORA adapter for 'org/base'\. Copy the weights of 'org/b"):
        SpladeEncoder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UnsupportedModelError, match=r"Copy the config\.json and weights of 'org/base' beside it"):
        SpladeEncoder(folder)


def test_refuses_an_adapter_of_another_checkpoint(adapted):
    folder = adapted()
    rewrite(folder / "adapter_config.json", target_modules=["no_such_layer"])
    with pytest.raises(
        UnsupportedModelError, match="must have an adapter that fits the checkpoint beside it, got a LO"
    ):
        SpladeEncoder(folder)
    rewrite(folder / "adapter_config.json", target_modules=["query"])
    with pytest.raises(UnsupportedModelError, match=r"that has the unknown weight .*\. Use the checkpoint"):
        SpladeEncoder(folder)


def test_refuses_an_adapter_that_lacks_weights(adapted):
    folder = adapted()
    weights = load_file(folder / "adapter_model.safetensors")
    weights.pop(min(weights))
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"that lacks base_model\.model\.bert.*lora_"):
        SpladeEncoder(folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match=r"must have adapter_model\.safetensors or adapter_model\.bin"):
        SpladeEncoder(folder)


def test_refuses_an_adapter_that_changes_no_weights(plain, tmp_path):
    shutil.copytree(plain("bert"), tmp_path, dirs_exist_ok=True)
    add_adapter(
        tmp_path,
        PromptTuningConfig(
            task_type="FEATURE_EXTRACTION",
            num_virtual_tokens=2,
            num_layers=2,
            token_dim=32,
            num_attention_heads=2,
            num_transformer_submodules=1,
        ),
    )
    with pytest.raises(UnsupportedModelError, match=r"got a PROMPT_TUNING adapter for .*, which adds tokens instead"):
        SpladeEncoder(tmp_path)


@pytest.fixture
def onnx_alone(plain, tmp_path):
    folder = tmp_path / "Splade_PP_en_v1"
    shutil.copytree(plain("bert"), folder)
    (folder / "model.safetensors").rename(folder / "model.onnx")
    return folder


def test_onnx_files_alone_name_the_original(onnx_alone, tmp_path):
    with pytest.raises(
        UnsupportedModelError,
        match=r"got only ONNX files \(model.onnx\).* Use the original repository, 'prithivida/Spl",
    ):
        SpladeEncoder(onnx_alone)
    (onnx_alone / "onnx").mkdir()
    (onnx_alone / "model.onnx").rename(onnx_alone / "onnx" / "model.onnx")
    unknown = onnx_alone.rename(tmp_path / "unknown")
    with pytest.raises(UnsupportedModelError, match=r"ONNX files \(onnx/model.onnx\).* Use the original model\."):
        SpladeEncoder(unknown)
    (unknown / "README.md").write_text("---\nlicense: mit\nbase_model:\n- org/original\n---\n")
    with pytest.raises(UnsupportedModelError, match="Use the original repository, 'org/original'"):
        SpladeEncoder(unknown)


def test_onnx_files_beside_weights_do_no_harm(plain, tmp_path):
    shutil.copytree(plain("bert"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").touch()
    assert SpladeEncoder(tmp_path).encode_documents(["a"]).nnz > 0


def rewrite(file, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
