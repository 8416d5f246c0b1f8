"""Tests of hostile model folders. They ask for code, packages, memory or other folders, or hold wrong types."""

import json
import os

import pytest
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.modules import SpladePooling
from sentence_transformers.sparse_encoder.modules import Transformer as MLMTransformer
from transformers import AutoModelForMaskedLM

from splade_integrations import SpladeEncoder, UnsupportedModelError
from splade_integrations.models.repository import Repository
from tests.support.random_checkpoints import save_masked_lm


@pytest.fixture
def plain_folder(tmp_path):
    save_masked_lm(tmp_path / "plain", "bert")
    return tmp_path / "plain"


@pytest.fixture
def sharded(plain_folder):
    model = AutoModelForMaskedLM.from_pretrained(plain_folder)
    (plain_folder / "model.safetensors").unlink()
    model.save_pretrained(plain_folder, max_shard_size="20KB")
    return plain_folder


@pytest.fixture
def symmetric(plain_folder, tmp_path):
    transformer = MLMTransformer(str(plain_folder), transformer_task="fill-mask")
    prompts = {"query": "q: ", "document": "d: "}
    SparseEncoder(modules=[transformer, SpladePooling()], prompts=prompts).save_pretrained(str(tmp_path / "symmetric"))
    return tmp_path / "symmetric"


def rewrite(file, **values):
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | values))


def refusal(folder):
    """Load a folder, which must be refused, and return the message."""
    with pytest.raises((UnsupportedModelError, FileNotFoundError)) as refused:
        SpladeEncoder(folder, device="cpu").encode_documents(["a"])
    return str(refused.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        ("quantization_config", {}),
        ("attn_implementation", "flash_attention_2"),
        ("_attn_implementation", "org/kernels"),
        ("num_hidden_layers", 10**9),
        ("max_position_embeddings", 10**12),
        ("hidden_size", 10**10),
        ("vocab_size", [{}]),
        ("max_position_embeddings", float("inf")),
    ],
)
def test_config(plain_folder, key, value):
    rewrite(plain_folder / "config.json", **{key: value})
    message = refusal(plain_folder)
    assert "config.json" in message
    assert key in message


@pytest.mark.parametrize(
    "index",
    [{}, [], 5, {"metadata": {}, "weight_map": {}}, {"metadata": {}, "weight_map": {"a": 5}}, "without metadata"],
)
def test_index_of_weights(sharded, index):
    file = sharded / "model.safetensors.index.json"
    if index == "without metadata":
        index = {"weight_map": json.loads(file.read_text())["weight_map"]}
    file.write_text(json.dumps(index))
    message = refusal(sharded)
    assert "model.safetensors.index.json" in message
    assert "weight_map" in message


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/passwd", "a/" * 3000])
def test_index_that_names_other_files(sharded, shard):
    file = sharded / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    name = next(iter(index["weight_map"]))
    index["weight_map"][name] = shard
    (sharded.parent / "other.safetensors").write_bytes((sharded / index["weight_map"].popitem()[1]).read_bytes())
    file.write_text(json.dumps(index))
    assert shard[:20] in refusal(sharded)


def test_index_that_names_a_missing_file(sharded):
    next(sharded.glob("model-00002*")).unlink()
    assert "model-00002" in refusal(sharded)


@pytest.mark.parametrize(
    ("key", "value"), [("default_prompt_name", ["query"]), ("default_prompt_name", {}), ("max_active_dims", "12")]
)
def test_sentence_transformers_settings(symmetric, key, value):
    rewrite(symmetric / "config_sentence_transformers.json", **{key: value})
    message = refusal(symmetric)
    assert "config_sentence_transformers.json" in message
    assert key in message


def test_infinite_numbers_and_integers_that_are_too_long(symmetric):
    file = symmetric / "config_sentence_transformers.json"
    content = file.read_text()
    rewrite(file, max_active_dims=float("inf"))
    assert "Infinity under 'max_active_dims'" in refusal(symmetric)
    file.write_text(content.replace("{", '{"max_active_dims": ' + "1" * 5000 + ",", 1))
    assert "config_sentence_transformers.json" in refusal(symmetric)
    file.write_text("[" * 100_000)
    assert "config_sentence_transformers.json" in refusal(symmetric)
    file.write_text(content)
    modules = json.loads((symmetric / "modules.json").read_text())
    modules[0]["idx"] = 1e400
    (symmetric / "modules.json").write_text(json.dumps(modules))
    assert "modules.json" in refusal(symmetric)


def test_links_lead_only_to_the_same_file_elsewhere(plain_folder, tmp_path):
    expected = SpladeEncoder(plain_folder).encode_documents(["a b"])
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in plain_folder.iterdir():
        (linked / file.name).symlink_to(file)
    assert (SpladeEncoder(linked).encode_documents(["a b"]) != expected).nnz == 0
    secret = tmp_path / "secret"
    secret.write_text("my password")
    for name in ("idf.json", "tokenizer.json", "model.safetensors.index.json"):
        (linked / name).unlink(missing_ok=True)
        (linked / name).symlink_to(os.path.relpath(secret, linked))
        message = refusal(linked)
        assert name in message
        assert "password" not in message
        (linked / name).unlink()


def test_a_link_of_the_hubs_cache(plain_folder, tmp_path):
    cache = tmp_path / "models--org--name"
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for number, file in enumerate(plain_folder.iterdir()):
        file.rename(cache / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert SpladeEncoder(snapshot).encode_documents(["a b"]).nnz > 0


def test_no_code_runs_unless_it_is_allowed(plain_folder, tmp_path):
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w').close()\nclass A: pass\n"
    for name in ("evil.py", "modeling_bert.py", "sitecustomize.py"):
        (plain_folder / name).write_text(code)
    names = {"AutoConfig": "evil.A", "AutoModelForMaskedLM": "evil.A", "AutoTokenizer": ["evil.A", "evil.A"]}
    rewrite(plain_folder / "tokenizer_config.json", auto_map=names, tokenizer_class="A")
    rewrite(plain_folder / "config.json", auto_map=names)
    for model_type in ("bert", "evil"):
        rewrite(plain_folder / "config.json", model_type=model_type)
        try:
            SpladeEncoder(plain_folder).encode_documents(["a"])
        except (UnsupportedModelError, FileNotFoundError):
            assert model_type == "evil"
        assert not mark.exists()


class Pickled:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "idf.bin", "sparse_linear.pt", "training_args.bin"])
def test_no_pickle_is_loaded(plain_folder, tmp_path, name):
    import torch

    mark = tmp_path / "ran"
    weights = {"weight": torch.ones(3), "more": Pickled(mark)}
    torch.save(weights, plain_folder / name)
    if name == "pytorch_model.bin":
        (plain_folder / "model.safetensors").unlink()
    if name == "sparse_linear.pt":
        rewrite(plain_folder / "config.json", architectures=["BertModel"])
    if name == "idf.bin":
        (plain_folder / "model.safetensors").rename(tmp_path / "away")
        (plain_folder / name).rename(plain_folder / "pytorch_model.bin")
        modules = [{"idx": 0, "name": "0", "path": "", "type": "a.SparseStaticEmbedding"}]
        (plain_folder / "modules.json").write_text(json.dumps(modules))
    try:
        SpladeEncoder(plain_folder).encode_documents(["a"])
    except (UnsupportedModelError, FileNotFoundError):
        assert name != "training_args.bin"
    assert not mark.exists()


def test_model_cards_are_read_in_linear_time(plain_folder):
    card = plain_folder / "README.md"
    card.write_text("---\nlicense: mit\n---\n# Text\n---\n")
    assert Repository(str(plain_folder)).model_card() == "license: mit"
    card.write_text("---" + "\n" * 2_000_000)  # a regular expression took hours for this file
    assert Repository(str(plain_folder)).model_card() == ""
