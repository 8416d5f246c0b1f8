"""BGE-M3's token weights equal FlagEmbedding's formula. Similar models are refused by name."""

import json
import shutil
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from splade_integrations import SpladeEncoder, UnsupportedModelError, to_dicts
from splade_integrations.models.repository import Repository
from splade_integrations.models.token_heads import describe_token_head
from tests.support.random_checkpoints import save_bge_m3

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a small random checkpoint with the files of BAAI/bge-m3."""
    folder = tmp_path_factory.mktemp("bge-m3-small")
    save_bge_m3(folder)
    return folder


@pytest.fixture(scope="module")
def bge_m3(folder) -> SpladeEncoder:
    return SpladeEncoder(folder)


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    """Return a copy of the checkpoint, for tests to change."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def short_texts() -> list[str]:
    """Return 100 texts: prose, repeated words, empty and long texts, unknown characters, and special tokens."""
    words = Path(string.__file__).read_text().split()
    prose = [" ".join(words[start : start + (1, 4, 15, 60)[start % 4]]) for start in range(90)]
    return [
        *prose, "", " ", "the the the", "naïve café", "日本語", "x" * 900,
        "<s> </s> <pad> <unk> a <mask> b", "string string", prose[0], prose[0],
    ]  # fmt: skip


def formula(folder: Path, texts: list[str]) -> tuple[list[dict[int, float]], np.ndarray]:
    """Return token weights and dense vectors as FlagEmbedding's BGEM3FlagModel computes them, one text at a time."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    state = torch.load(folder / "sparse_linear.pt", weights_only=True)
    unused = {tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    sparse, dense = [], []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=128, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state[0]
        weights = torch.relu(hidden @ state["weight"].float()[0] + state["bias"].float())
        found: dict[int, float] = {}
        for token, weight in zip(inputs["input_ids"][0].tolist(), weights.tolist(), strict=True):
            if token not in unused and weight > 0:
                found[token] = max(found.get(token, 0.0), weight)
        sparse.append(found)
        dense.append((hidden[0] / hidden[0].norm()).numpy())
    return sparse, np.stack(dense)


def assert_same_terms(rows, expected: list[dict[int, float]]) -> None:
    found = to_dicts(rows)
    assert [set(row) for row in found] == [set(row) for row in expected]
    for row, weights in zip(found, expected, strict=True):
        assert row == pytest.approx(weights, abs=TOLERANCE)


def test_equals_the_formula_of_flagembedding(folder, bge_m3, short_texts):
    sparse, dense = formula(folder, short_texts)
    assert sum(map(len, sparse)) > 500
    assert_same_terms(bge_m3.encode_documents(short_texts), sparse)
    assert_same_terms(bge_m3.encode_queries(short_texts), sparse)
    rows, vectors = bge_m3.encode_documents_with_dense(short_texts)
    assert_same_terms(rows, sparse)
    np.testing.assert_allclose(vectors, dense, atol=TOLERANCE)


def test_dense_vectors_are_those_of_sentence_transformers(folder, bge_m3, short_texts):
    oracle = SentenceTransformer(str(folder), device="cpu").encode(short_texts, show_progress_bar=False)
    np.testing.assert_allclose(bge_m3.encode_queries_with_dense(short_texts)[1], oracle, atol=TOLERANCE)


def test_one_pass_gives_both(folder, short_texts, monkeypatch):
    encoder = SpladeEncoder(folder)
    network = encoder._roles["document"].rows.model.network
    calls, forward = [], network.forward
    monkeypatch.setattr(network, "forward", lambda *args, **names: calls.append(1) or forward(*args, **names))
    encoder.encode_documents(short_texts)
    alone = len(calls)
    rows, dense = encoder.encode_documents_with_dense(short_texts)
    assert len(calls) == 2 * alone
    assert rows.shape == (100, encoder.dim)
    assert dense.shape == (100, 32)
    rows, dense = encoder.encode_documents_with_dense([])
    assert rows.shape == (0, encoder.dim)
    assert dense.shape == (0, 32)


def test_a_fine_tuned_checkpoint_has_no_modules(folder, copied, short_texts):
    """FlagEmbedding saves only the transformer, the tokenizer and the linear layers."""
    (copied / "modules.json").unlink()
    (copied / "sentence_bert_config.json").unlink()
    found = SpladeEncoder(copied).encode_documents(short_texts[:20])
    assert_same_terms(found, formula(folder, short_texts[:20])[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_narrow_types_are_near(folder, bge_m3, short_texts, dtype):
    exact = bge_m3.encode_documents(short_texts[:40]).toarray()
    near = SpladeEncoder(folder, dtype=dtype).encode_documents(short_texts[:40]).toarray()
    assert 0 < np.abs(near - exact).max() < 0.2


def test_windows_and_special_terms(folder, bge_m3):
    long_text = "the string " * 200
    windows = SpladeEncoder(folder, long_documents="max")
    assert windows.encode_documents([long_text]).nnz >= bge_m3.encode_documents([long_text]).nnz
    with pytest.raises(ValueError, match="long_documents must be 'truncate' for dense vectors"):
        windows.encode_documents_with_dense([long_text])
    keep = SpladeEncoder(folder, special_terms="keep")
    special = {keep.tokenizer.cls_token_id, keep.tokenizer.eos_token_id}
    kept = {token for row in to_dicts(keep.encode_documents(["the", "a string"])) for token in row}
    dropped = {token for row in to_dicts(bge_m3.encode_documents(["the", "a string"])) for token in row}
    assert kept & special
    assert not dropped & special


def test_explanations_name_the_heaviest_of_equal_tokens(bge_m3, folder):
    text = "string a string the string"
    explanation = bge_m3.explain("string", text)
    assert explanation.score == pytest.approx(
        (bge_m3.encode_queries(["string"]) @ bge_m3.encode_documents([text]).T).toarray()[0, 0], abs=1e-5
    )
    assert explanation.terms
    assert all(term.document_place.word in text for term in explanation.terms)


def test_settings_that_it_does_not_have(folder, encoder):
    with pytest.raises(ValueError, match="pooling_strategy and activation_function must be None"):
        SpladeEncoder(folder, pooling_strategy="sum")
    with pytest.raises(ValueError, match="pooling_strategy and activation_function must be None"):
        SpladeEncoder(folder, activation_function="log1p_relu")
    with pytest.raises(ValueError, match=r"the model must be BGE-M3, got .* Only BGE-M3 also gives dense vectors"):
        encoder.encode_documents_with_dense(["a"])


def test_the_fingerprint_includes_the_linear_layer(bge_m3, copied):
    state = torch.load(copied / "sparse_linear.pt", weights_only=True)
    torch.save({**state, "bias": state["bias"] + 1}, copied / "sparse_linear.pt")
    assert bge_m3.fingerprint.differences(SpladeEncoder(copied).fingerprint) == ["weights"]


def test_description(bge_m3):
    assert "texts: token weights, max of relu over equal tokens" in repr(bge_m3)
    assert bge_m3.max_length == 128


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({"weight": torch.ones(1, 16), "bias": torch.ones(1)}, r"\(1, 16\)"),
        ({"weight": torch.ones(2, 32), "bias": torch.ones(2)}, r"\(2, 32\)"),
        ({"weight": torch.ones(1, 32)}, r"got \{'weight': \(1, 32\)\}"),
        ([torch.ones(1)], "got list"),
        ({"weight": torch.full((1, 32), torch.nan), "bias": torch.ones(1)}, "NaN or infinity"),
    ],
)
def test_refuses_a_linear_layer_that_does_not_fit(copied, state, found):
    torch.save(state, copied / "sparse_linear.pt")
    with pytest.raises(UnsupportedModelError, match=found):
        SpladeEncoder(copied)


def test_refuses_a_linear_layer_that_runs_code(copied, tmp_path):
    class Malicious:
        def __reduce__(self):
            return Path.touch, (tmp_path / "it ran",)

    torch.save({"weight": Malicious()}, copied / "sparse_linear.pt")
    with pytest.raises(UnsupportedModelError, match="of plain tensors, got an error"):
        SpladeEncoder(copied)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("gte-multilingual-base", {"architectures": ["NewModel"], "model_type": "new"}, "an mGTE model.*BAAI/bge-m3"),
        (
            "renamed",
            {"architectures": ["NewModel"], "model_type": "new", "auto_map": {"AutoModelForTokenClassification": "x"}},
            "an mGTE model.*multilingual-v1",
        ),
        ("x", {"architectures": ["RoFormerForSparseEmbedding"], "model_type": "roformer"}, "inf-wse.*BAAI/bge-m3"),
        ("unicoil-msmarco-passage", {"architectures": ["BertModel"], "model_type": "bert"}, "a uniCOIL.*Splade_PP"),
        ("bm42-all-minilm-l6-v2", {"architectures": ["BertModel"]}, "a BM42 model.*BAAI/bge-m3"),
        ("x", {"architectures": ["UniCoil"]}, "a uniCOIL.*Splade_PP"),
        ("TILDEv2-TILDE200-exp", {"architectures": ["BertModel"]}, "a TILDE model.*BAAI/bge-m3"),
        ("x", {"architectures": ["TILDEv2"]}, "a TILDE model.*Splade_PP"),
        ("deepimpact-bert-base", {"architectures": ["BertModel"]}, "a DeepImpact model, which scores words.*BAAI"),
        ("x", {"architectures": ["DeepImpact"]}, "a DeepImpact model.*Splade_PP"),
        ("minicoil-v1", {}, r"a miniCOIL model.*\(no architecture\).*Splade_PP"),
        ("bge-m3-unsupervised", {"architectures": ["XLMRobertaModel"]}, "no token weights .*XLMRobertaModel.*BAAI"),
        ("bge-m3-retromae", {"architectures": ["XLMRobertaModel"]}, "the base model of BGE-M3.*Use BAAI/bge-m3"),
    ],
)
def test_models_of_this_kind_are_refused_by_name(tmp_path, name, config, message):
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match=message):
        SpladeEncoder(tmp_path / name)


def test_other_models_are_left_to_other_readers(random_bert_folder, monkeypatch):
    asked, path = [], Repository.path
    monkeypatch.setattr(Repository, "path", lambda self, file: asked.append(file) or path(self, file))
    assert describe_token_head(Repository(random_bert_folder)) is None
    assert "sparse_linear.pt" not in asked  # so a hub is not asked for this file either
