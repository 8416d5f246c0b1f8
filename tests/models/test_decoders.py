"""For SPLADE models on decoders, we return the rows of sentence-transformers without running the repository's code."""

import json
import shutil
import string
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SparseEncoder

from splade_integrations import SpladeEncoder, UnsupportedModelError
from tests.support.random_checkpoints import save_decoder

TOLERANCE = 1e-5
# A sum over 128 tokens reaches 150. Neighbouring float32 numbers of this size differ by 1.5e-5.
RELATIVE = 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a small random checkpoint with the files of naver/splade-code-06B."""
    folder = tmp_path_factory.mktemp("splade-code-small")
    save_decoder(folder)
    return folder


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    """Return a copy of the checkpoint, for tests to change."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def short_texts() -> list[str]:
    """Return 100 texts: code of mixed length, empty and long texts, odd characters, and special tokens."""
    words = Path(string.__file__).read_text().split()
    code = [" ".join(words[start : start + (1, 4, 15, 60)[start % 4]]) for start in range(92)]
    return [
        *code,
        "",
        " ",
        "naïve café",
        "日本語",
        "x" * 900,
        "<|im_start|>a<|im_end|> <|endoftext|> b",
        code[0],
        code[0],
    ]


def rewrite(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def expected_rows(folder: Path, texts: list[str]) -> np.ndarray:
    """Return the rows of sentence-transformers, which runs the repository's code. The code fails on empty texts."""
    oracle = SparseEncoder(str(folder), trust_remote_code=True, device="cpu")
    present = [text for text in texts if text]
    found = oracle.encode_document(
        present, convert_to_sparse_tensor=False, show_progress_bar=False, batch_size=8
    ).numpy()
    rows = np.zeros((len(texts), found.shape[1]), np.float32)
    rows[[bool(text) for text in texts]] = found
    return rows


@pytest.mark.parametrize("pooling", [("max", "relu"), ("sum", "log1p_relu")])
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_equals_sentence_transformers(architecture, attention, pooling, short_texts, tmp_path):
    save_decoder(tmp_path, architecture, bidirectional=attention == "bidirectional")
    strategy, activation = pooling
    rewrite(tmp_path / "1_SpladePooling/config.json", pooling_strategy=strategy, activation_function=activation)
    encoder = SpladeEncoder(tmp_path)
    assert encoder.spec.document.transformer.attention == attention
    assert len(short_texts) == 100
    expected = expected_rows(tmp_path, short_texts)
    assert (expected > 0).mean() > 0.2
    np.testing.assert_allclose(encoder.encode_documents(short_texts).toarray(), expected, atol=TOLERANCE, rtol=RELATIVE)
    np.testing.assert_allclose(
        encoder.encode_queries(short_texts[:8]).toarray(), expected[:8], atol=TOLERANCE, rtol=RELATIVE
    )


def test_heads_that_are_not_tied_to_the_embeddings(short_texts, tmp_path):
    save_decoder(tmp_path, tie_word_embeddings=False)
    found = SpladeEncoder(tmp_path).encode_documents(short_texts[:20]).toarray()
    np.testing.assert_allclose(found, expected_rows(tmp_path, short_texts[:20]), atol=TOLERANCE)


def test_attention_is_as_the_repository_says(copied, folder, short_texts):
    bidirectional = SpladeEncoder(folder)
    rewrite(copied / "config.json", is_causal=None, bidirectional=True)  # as in naver's early revisions
    same = SpladeEncoder(copied)
    np.testing.assert_array_equal(
        same.encode_documents(short_texts[:9]).toarray(), bidirectional.encode_documents(short_texts[:9]).toarray()
    )
    rewrite(copied / "config.json", is_causal=True, bidirectional=None)
    causal = SpladeEncoder(copied)
    assert "language model with causal attention" in repr(causal)
    assert "language model with bidirectional attention, max of log(1 + relu)" in repr(bidirectional)
    assert causal.fingerprint.differences(bidirectional.fingerprint) == ["document_attention", "query_attention"]
    assert (
        np.abs((causal.encode_documents(short_texts[:9]) - same.encode_documents(short_texts[:9])).toarray()).max()
        > 0.1
    )


def test_top_terms_prompts_and_sixteen_bits(copied, folder, short_texts):
    rewrite(
        copied / "config_sentence_transformers.json", max_active_dims=20, prompts={"query": "find: ", "document": ""}
    )
    encoder, plain = SpladeEncoder(copied), SpladeEncoder(folder)
    assert np.diff(encoder.encode_documents(short_texts).indptr).max() == 20
    expected = plain.encode_queries(["find: x"]).toarray()[0]
    found = encoder.encode_queries(["x"]).toarray()[0]
    np.testing.assert_allclose(found[found > 0], expected[found > 0], atol=TOLERANCE)
    narrow = SpladeEncoder(folder, dtype="bfloat16").encode_documents(short_texts[:20]).toarray()
    assert 0 < np.abs(narrow - plain.encode_documents(short_texts[:20]).toarray()).max() < 0.3


def test_explanations_name_words(folder):
    encoder = SpladeEncoder(folder)
    explanation = encoder.explain("string", "a string of letters")
    assert explanation.score == pytest.approx(sum(term.contribution for term in explanation.terms))
    assert {term.document_place.word for term in explanation.terms} <= {"a", "string", "of", "letters"}


def test_the_code_of_the_repository_does_not_run(copied, caplog):
    with (copied / "splade.py").open("a") as code:
        code.write("\nfrom pathlib import Path\nPath(__file__).with_name('it ran').touch()\n")
    SpladeEncoder(copied)
    SpladeEncoder(copied, trust_remote_code=True)  # transformers' own class computes the model
    assert not list(copied.rglob("it ran"))


def test_refuses_statements_that_contradict_each_other(copied):
    rewrite(copied / "config.json", is_causal=True, bidirectional=True)
    with pytest.raises(UnsupportedModelError, match="must state one kind of attention, got"):
        SpladeEncoder(copied)
    rewrite(copied / "config.json", is_causal="no", bidirectional=None)
    with pytest.raises(UnsupportedModelError, match="must state is_causal as true or false, got 'no'"):
        SpladeEncoder(copied)


def test_refuses_a_transformers_that_ignores_the_attention(copied, monkeypatch):
    """transformers releases that lack `is_causal` compute causal attention, whatever the repository states."""
    from transformers.models.qwen3 import modeling_qwen3

    own = modeling_qwen3.create_causal_mask

    def causal(config, *args, **names):
        stated, config.is_causal = config.is_causal, True
        try:
            return own(config, *args, **{**names, "allow_is_causal_skip": False})
        finally:
            config.is_causal = stated

    monkeypatch.setattr(modeling_qwen3, "create_causal_mask", causal)
    with pytest.raises(UnsupportedModelError, match=r"must compute bidirectional attention.*got causal.*newer transf"):
        SpladeEncoder(copied)


def test_refuses_a_decoder_that_only_writes_text(copied):
    (copied / "modules.json").unlink()
    with pytest.raises(UnsupportedModelError, match=r"got a Qwen3ForCausalLM without.*Most decoders only write"):
        SpladeEncoder(copied)


def test_refuses_an_early_revision_of_naver(copied):
    (copied / "modules.json").unlink()
    rewrite(copied / "config.json", architectures=["Splade"], model_type="splade", model_name_or_path="Qwen/Qwen3-0.6B")
    with pytest.raises(UnsupportedModelError, match=r"early revision .* 'Qwen/Qwen3-0\.6B'. Use a revision"):
        SpladeEncoder(copied)


def test_refuses_an_adapter_in_a_subfolder(copied):
    """naver/splade-code-8B holds only an adapter for Qwen3-8B."""
    (copied / "model.safetensors").unlink()
    (copied / "lora").mkdir()
    (copied / "lora/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "Qwen/Qwen3-8B"}))
    with pytest.raises(UnsupportedModelError, match=r"only a LoRA adapter for 'Qwen/Qwen3-8B' \(in lora/\)\. Merge"):
        SpladeEncoder(copied)


def test_an_architecture_of_its_own_name(copied, folder, short_texts):
    rewrite(copied / "config.json", architectures=["Splade"])
    found = SpladeEncoder(copied).encode_documents(short_texts[:5]).toarray()
    np.testing.assert_array_equal(found, SpladeEncoder(folder).encode_documents(short_texts[:5]).toarray())
