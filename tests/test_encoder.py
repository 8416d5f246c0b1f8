"""The behaviour that users of the encoder rely on. The rows equal the plain formula on transformers' logits."""

import copy
import json
import logging
import os
import pickle
import platform
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from tokenizers import normalizers
from transformers import AutoModelForMaskedLM, AutoTokenizer

from splade_integrations import Pruning, SpladeEncoder, reference, to_dicts
from splade_integrations.encoding.tokenizer import TextTokenizer
from splade_integrations.engine.int8_gemm import int8_products_pay
from tests.support.loading import loaded
from tests.support.random_checkpoints import bpe_tokenizer

TOLERANCE = 1e-5


def plain_formula(folder: str, texts: list[str], max_length: int) -> np.ndarray:
    """Return the rows of the reference, (N, V)."""
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return reference.encode(model, tokenizer, texts, max_length=max_length).toarray()


@pytest.fixture(scope="module", params=["real", "random"])
def checked(request, texts):
    """Return (encoder, texts, rows by the plain formula) for the trained model and for a random BERT."""
    folder = request.getfixturevalue({"real": "model_folder", "random": "random_bert_folder"}[request.param])
    encoder = request.getfixturevalue({"real": "encoder", "random": "random_encoder"}[request.param])
    return encoder, texts, plain_formula(folder, texts, max_length=256)


def test_equals_the_plain_formula(checked):
    encoder, texts, expected = checked
    matrix = encoder.encode_documents(texts)
    np.testing.assert_allclose(matrix.toarray(), expected, atol=TOLERANCE)
    assert matrix.shape == (len(texts), encoder.dim)
    assert (matrix.dtype, matrix.indices.dtype) == (np.float32, np.int32)
    assert matrix.has_sorted_indices
    assert matrix.data.min() > 0


@pytest.mark.parametrize("budget", [{"max_batch_tokens": 1}, {"max_batch_tokens": 50_000}, {"batch_size": 3}])
def test_any_batching_and_order_gives_the_same_rows(checked, budget):
    encoder, texts, expected = checked
    other = SpladeEncoder(encoder.model_name, max_length=256, **budget)
    order = random.Random(3).sample(range(len(texts)), 60)
    np.testing.assert_allclose(
        other.encode_queries([texts[i] for i in order]).toarray(), expected[order], atol=TOLERANCE
    )


def test_a_neighbour_changes_nothing(checked):
    encoder, texts, expected = checked
    short, long = 0, 4
    beside = encoder.encode_documents([texts[short], texts[long]]).toarray()
    np.testing.assert_allclose(beside, expected[[short, long]], atol=TOLERANCE)
    np.testing.assert_allclose(encoder.encode_documents([texts[short]]).toarray()[0], beside[0], atol=TOLERANCE)


@contextmanager
def default_dtype(dtype):
    found = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(found)


@contextmanager
def matmul_precision(precision):
    torch.set_float32_matmul_precision(precision)
    found = torch.backends.mkldnn.matmul.fp32_precision
    try:
        yield
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.mkldnn.matmul.fp32_precision == found
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    "surroundings",
    [
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: default_dtype(torch.float64),
        lambda: default_dtype(torch.bfloat16),
        lambda: default_dtype(torch.float16),
        lambda: matmul_precision("medium"),
        torch.enable_grad,
    ],
    ids=["autocast", "float64 default", "bfloat16 default", "float16 default", "medium matmul", "grad"],
)
def test_what_the_process_has_switched_on_changes_nothing(checked, surroundings):
    encoder, texts, expected = checked
    with surroundings():
        made_outside = encoder.encode_documents(texts[:30]).toarray()
        inside = SpladeEncoder(encoder.model_name, max_length=256)
        made_inside = inside.encode_documents(texts[:30]).toarray()
    np.testing.assert_allclose(made_outside, expected[:30], atol=TOLERANCE)
    np.testing.assert_allclose(made_inside, expected[:30], atol=TOLERANCE)


def test_the_process_is_left_as_it_was_found_when_threads_overlap(encoder, texts):
    with matmul_precision("medium"), ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda text: encoder.encode_documents([text]), texts[:40]))


def test_threads_with_different_lengths(model_folder, texts):
    """Two encoders of one checkpoint with different max_length are used at the same time. Each keeps its own limit."""
    encoders = [SpladeEncoder(model_folder, max_length=length) for length in (8, 64)]
    alone = [encoder.encode_documents(texts[:50]).toarray() for encoder in encoders]
    with ThreadPoolExecutor(8) as pool:
        jobs = [(which, pool.submit(encoders[which].encode_documents, texts[:50])) for which in [0, 1] * 8]
        for which, job in jobs:
            np.testing.assert_allclose(job.result().toarray(), alone[which], atol=TOLERANCE)


def test_empty_list_and_generator(encoder):
    assert encoder.encode_documents([]).shape == (0, encoder.dim)
    assert encoder.encode_queries(iter(())).shape == (0, encoder.dim)
    from_generator = encoder.encode_documents(text for text in ["a", "b"])
    assert (from_generator != encoder.encode_documents(("a", "b"))).nnz == 0


def test_stream_gives_the_same_rows_in_order_and_reads_only_what_it_needs(encoder, texts):
    taken = []
    blocks = encoder.stream_documents((taken.append(text) or text for text in texts), block_rows=64)
    first = next(blocks)
    assert (len(taken), first.shape) == (128, (64, encoder.dim))  # it reads only one block ahead
    rows = np.concatenate([first.toarray(), *(block.toarray() for block in blocks)])
    np.testing.assert_allclose(rows, encoder.encode_documents(texts).toarray(), atol=TOLERANCE)


def test_stream_yields_blocks_that_are_small_unasked(encoder):
    assert [block.shape[0] for block in encoder.stream_documents(str(n) for n in range(600))] == [512, 88]


@pytest.mark.parametrize("encode", ["encode_documents", "encode_queries", "stream_documents"])
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a bare string", "texts must be a list .* got one str"),
        (b"bytes", "texts must be a list .* got one bytes"),
        (["a"] * 17 + [None], r"texts\[17\] must be a str, got NoneType"),
        (["a", 3], r"texts\[1\] must be a str, got int"),
        ([b"a"], r"texts\[0\] must be a str, got bytes"),
    ],
)
def test_bad_texts_are_named(encoder, encode, texts, message):
    with pytest.raises(TypeError, match=message):
        list(getattr(encoder, encode)(texts))


@pytest.mark.parametrize("encode", ["encode_documents", "stream_documents"])
@pytest.mark.parametrize("texts", [7, None, {"id": "text"}, {"a", "set"}])
def test_what_holds_no_texts_in_order(encoder, encode, texts):
    with pytest.raises(TypeError, match=rf"texts must be a list .* got {type(texts).__name__}"):
        getattr(encoder, encode)(texts)


def test_odd_texts_are_encoded(encoder):
    odd = ["", "  \n", "\x00", "😀", "\ud800", "a \udfff b", "\ud83d\ude00", "x" * 10_000]
    matrix = encoder.encode_documents(odd)
    assert matrix.shape[0] == len(odd)
    assert np.isfinite(matrix.data).all()
    assert to_dicts(matrix[[0]]) == to_dicts(matrix[[1]])  # neither "" nor whitespace has words


def test_five_megabytes_in_one_string(encoder):
    matrix = encoder.encode_documents(["long text " * 500_000, "short"])
    np.testing.assert_allclose(matrix[[1]].toarray(), encoder.encode_documents(["short"]).toarray(), atol=TOLERANCE)


def test_truncation_keeps_the_closing_token_and_warns_once(encoder, model_folder, caplog):
    short = SpladeEncoder(model_folder, max_length=12)
    text = "one two three four five six seven eight nine ten eleven twelve thirteen"
    kept = encoder.encode_documents(["one two three four five six seven eight nine ten"])
    found = short.encode_documents([text])
    np.testing.assert_allclose(found.toarray(), kept.toarray(), atol=TOLERANCE)  # [SEP] ends both texts
    caplog.clear()
    with caplog.at_level(logging.WARNING, "splade_integrations"):
        short.encode_documents(["short", text, text])
    assert len(caplog.records) == 1
    # Each long text has 13 words, of which 10 fit. The short text has 3 tokens, including special tokens. So 6 of the
    # 3 + 15 + 15 tokens are lost.
    assert "2 of 3 texts" in caplog.text
    assert f"{100 * 6 / 33:.1f} %" in caplog.text
    assert "into chunks of 10 tokens at most" in caplog.text
    assert "window" not in caplog.text
    caplog.clear()
    short.encode_documents(["short"])
    assert not caplog.records


def test_texts_that_the_vocabulary_lacks_warn_once(random_encoder, caplog):
    """The vocabulary of the random model has no Japanese characters. Each of them becomes [UNK]."""
    with caplog.at_level(logging.WARNING, "splade_integrations"):
        list(random_encoder.stream_documents(["日本語", "ab", "日本語 abc 日本", "日本 ab cd", "", " "], block_rows=2))
    [record] = caplog.records  # unknown tokens: 3 + 5 + 2 of 3 + 2 + 8 + 6
    assert "2 of 6 texts are mostly [UNK]" in record.getMessage()
    assert f"{100 * 10 / 19:.1f} %" in record.getMessage()
    caplog.clear()
    random_encoder.encode_documents(["日本 ab cd", ""])
    assert not caplog.records


def test_prompts_and_pruning_belong_to_their_role(model_folder, encoder):
    sided = SpladeEncoder(
        model_folder, max_length=256, query_prompt="query: ", document_pruning=Pruning(max_active_dims=5)
    )
    expected = encoder.encode_queries(["query: who was Turing?"])
    np.testing.assert_allclose(sided.encode_queries(["who was Turing?"]).toarray(), expected.toarray(), atol=TOLERANCE)
    text = "Turing was born in London"
    heaviest = {token for token, _ in encoder.decode(encoder.encode_documents([text]), top_k=5)[0]}
    assert {token for token, _ in sided.decode(sided.encode_documents([text]))[0]} == heaviest


def test_decode(encoder):
    rows = encoder.encode_documents(["Alan Turing was born in London.", "compilers"])
    decoded = encoder.decode(rows)
    assert [len(terms) for terms in decoded] == np.diff(rows.indptr).tolist()
    assert {"turing", "london", "born"} <= {token for token, _ in decoded[0][:5]}
    weights = [weight for _, weight in decoded[0]]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] == rows[[0]].max()
    assert encoder.decode(next(iter(rows)), top_k=2) == [decoded[0][:2]]
    assert encoder.decode(rows, top_k=0) == [[], []]
    with pytest.raises(ValueError, match="top_k must be an int of 0 or more"):
        encoder.decode(rows, top_k=-1)
    with pytest.raises(ValueError, match="embeddings must have 30522 columns"):
        encoder.decode(rows[:, :100])
    with pytest.raises(TypeError, match="must be a scipy sparse matrix, got list"):
        encoder.decode(to_dicts(rows))


def test_options_may_be_numbers_of_numpy(model_folder):
    limits = {"max_length": np.int64(64), "max_windows": np.int32(2), "batch_size": np.int64(8)}
    encoder = SpladeEncoder(model_folder, long_documents="max", **limits)
    assert json.loads(encoder.fingerprint.to_json())["max_windows"] == 2  # collections store this form
    assert type(encoder.max_length) is int
    assert encoder.encode_documents(["a text"]).nnz > 0


def test_an_encoder_is_shared_not_copied(encoder):
    assert copy.copy(encoder) is copy.deepcopy(encoder) is encoder
    with pytest.raises(TypeError, match="Pickle its model name and options"):
        pickle.dumps(encoder)


def test_a_consumer_that_stops_early_is_told_what_was_lost(model_folder, caplog):
    short = SpladeEncoder(model_folder, max_length=4)
    blocks = short.stream_documents(["more words than four"] * 9, block_rows=2)
    next(blocks)
    with caplog.at_level(logging.WARNING, "splade_integrations"):
        blocks.close()
    assert "2 of 2 texts are longer" in caplog.text


def test_sixteen_bits_stay_close(model_folder, encoder, texts):
    exact = encoder.encode_documents(texts[:20]).toarray()
    coarse = SpladeEncoder(model_folder, max_length=256, dtype="bfloat16").encode_documents(texts[:20]).toarray()
    assert coarse.dtype == np.float32
    assert 0 < np.abs(coarse - exact).max() < 0.1


def test_progress_bar_only_when_asked(encoder, capsys):
    encoder.encode_documents(["a", "b"])
    assert capsys.readouterr().err == ""
    encoder.encode_documents(["a", "b"], show_progress=True)
    assert "2/2" in capsys.readouterr().err


def test_a_head_without_a_plain_decoder_goes_through_its_own_forward(tmp_path, random_bert_folder, texts):
    """MobileBERT does not call its decoder, but uses the decoder's weights itself. The encoder must notice this."""
    from transformers import MobileBertConfig, MobileBertForMaskedLM

    AutoTokenizer.from_pretrained(random_bert_folder).save_pretrained(tmp_path)
    torch.manual_seed(1)
    config = MobileBertConfig(
        vocab_size=141, hidden_size=32, embedding_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, intra_bottleneck_size=32, initializer_range=0.5,
    )  # fmt: skip
    MobileBertForMaskedLM(config).save_pretrained(tmp_path)
    assert loaded(tmp_path).decoder is None
    encoder = SpladeEncoder(tmp_path, max_length=64)
    expected = plain_formula(str(tmp_path), texts[:40], max_length=64)
    np.testing.assert_allclose(encoder.encode_documents(texts[:40]).toarray(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "cuda:7"}, ValueError, "device must be one that this machine has"),
        ({"device": "tpu9"}, ValueError, "device must be auto, cpu"),
        ({"dtype": "float8"}, ValueError, "dtype must be one of auto, float32"),
        ({"dtype": torch.int32}, ValueError, "dtype must be one of auto, float32"),
        ({"max_length": 2}, ValueError, "max_length must be an int of at least 3"),
        ({"max_length": 1024}, ValueError, "max_length must be at most 512"),
        ({"max_batch_tokens": 0}, ValueError, "max_batch_tokens must be an int of at least 1"),
        ({"batch_size": -4}, ValueError, "batch_size must be an int of at least 1"),
        ({"no_such_option": 1}, TypeError, "no_such_option"),
        ({"max_length": True}, ValueError, "max_length must be an int of at least 1"),
        ({"query_prompt": 5}, TypeError, "query_prompt must be a str or None, got int"),
        ({"document_pruning": 5}, TypeError, "document_pruning must be a Pruning or None, got int"),
    ],
)
def test_bad_options(model_folder, options, error, message):
    with pytest.raises(error, match=message):
        SpladeEncoder(model_folder, **options)


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a folder, or a model repository that can be reached"):
        SpladeEncoder("no-such-organisation/no-such-model", local_files_only=True)
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        SpladeEncoder(tmp_path)


def test_repr_names_what_matters(encoder):
    assert "device='cpu', dtype='float32', max_length=256, dim=30522" in repr(encoder)
    assert "pruning" not in repr(encoder)
    pruned = Pruning(max_active_dims=7)
    changed = SpladeEncoder(encoder.model_name, document_pruning=pruned, long_documents="max", max_windows=3)
    assert f"document_pruning={pruned}" in repr(changed)
    assert "long documents in up to 3 windows" in repr(changed)


def test_tokenising_some_texts_at_a_time_changes_nothing(encoder, texts, monkeypatch):
    tokenize = TextTokenizer(encoder.tokenizer, 256)
    expected = tokenize(texts, max_windows=2)
    monkeypatch.setattr("splade_integrations.encoding.tokenizer.TEXTS_AT_ONCE", 3)
    assert tokenize(texts, max_windows=2) == expected


_PAGE_FAULTS = """
import resource, sys
import torch
from splade_integrations import SpladeEncoder

encoder = SpladeEncoder(sys.argv[1], device="cpu")
def activations():
    return [torch.ones(3 * 2**20) for _ in range(3)]  # 12 MiB each
activations()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    activations()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told to keep freed memory")
def test_freed_memory_is_kept_for_the_next_activations(model_folder):
    """If freed memory were not kept, 20 rounds of 36 MiB in pages of 4 KiB would cause 184 000 page faults."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    command = [sys.executable, "-c", _PAGE_FAULTS, model_folder]
    found = subprocess.run(command, env=settings, capture_output=True, text=True, check=True).stdout
    assert int(found) < 20_000


def test_stream_yields_what_came_before_an_error(encoder):
    blocks = encoder.stream_documents(["a", "b", "c", None, "d"], block_rows=2)
    assert next(blocks).shape[0] == 2
    with pytest.raises(TypeError, match=r"texts\[3\]"):
        next(blocks)


def test_stream_stops_cleanly_when_its_consumer_does(encoder):
    taken = []
    blocks = encoder.stream_documents((taken.append(1) or "a text" for _ in range(1000)), block_rows=2)
    next(blocks)
    blocks.close()
    assert len(taken) == 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("splade-prefetch")]


def test_windows_of_a_long_document(model_folder, encoder):
    """A long document's row is the maximum over the rows of its windows. A text that fits has its usual row."""
    long = SpladeEncoder(model_folder, max_length=32, long_documents="max", max_windows=3)
    short = SpladeEncoder(model_folder, max_length=32)
    words = [f"word{number} moon river" for number in range(40)]
    text, fits = " ".join(words), "a short text"
    ids = long.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > 3 * 30
    windows = [long.tokenizer.decode(ids[start : start + 30]) for start in (0, 26, 52)]
    expected = short.encode_documents(windows).toarray().max(axis=0)
    found = long.encode_documents([fits, text, fits]).toarray()
    np.testing.assert_allclose(found[1], expected, atol=TOLERANCE)
    np.testing.assert_allclose(found[[0, 2]], short.encode_documents([fits, fits]).toarray(), atol=TOLERANCE)
    np.testing.assert_allclose(
        long.encode_queries([text]).toarray(), short.encode_queries([text]).toarray(), atol=TOLERANCE
    )


def test_windows_lose_only_what_is_beyond_them(model_folder, caplog):
    text = " ".join(f"word{number}" for number in range(200))
    SpladeEncoder(model_folder, max_length=64, long_documents="max", max_windows=50).encode_documents([text])
    assert not caplog.records
    encoder = SpladeEncoder(model_folder, max_length=64, long_documents="max", max_windows=2)
    encoder.encode_documents([text])
    tokens = len(encoder.tokenizer(text)["input_ids"])
    lost = 100 * (tokens - 64 - (62 - 8)) / tokens
    assert f"{lost:.1f} % of all tokens were lost" in caplog.text
    assert "1 of 1 texts are longer than 2 windows of max_length=64 tokens" in caplog.text
    assert "or raise max_length if the model allows it, or raise max_windows" in caplog.text


def test_another_default_device_changes_nothing(encoder, texts):
    expected = encoder.encode_documents(texts[:8])
    explanation = encoder.explain("alan turing", "Alan Turing broke the Enigma cipher.")
    with torch.device("meta"):
        found = encoder.encode_documents(texts[:8])
        assert encoder.explain("alan turing", "Alan Turing broke the Enigma cipher.") == explanation
    assert abs(found - expected).max() == 0


def test_int8_is_close_to_float32_and_depends_on_no_neighbour(model_folder, encoder, texts):
    if not int8_products_pay(torch.device("cpu")):
        pytest.skip("this processor has no fast int8 product")
    quantised = SpladeEncoder(model_folder, max_length=256, dtype="int8")
    found, expected = quantised.encode_documents(texts), encoder.encode_documents(texts)
    assert abs(found - expected).max() < 0.3
    assert abs(found - expected).sum() < 0.05 * expected.sum()
    alone = quantised.encode_documents(texts[3:4])
    np.testing.assert_allclose(found[[3]].toarray(), alone.toarray(), atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"long_documents": "split"},
        {"max_windows": 0},
        {"max_windows": None},
        {"dtype": "int4"},
        {"dtype": "int8", "device": "meta"},
    ],
)
def test_options_out_of_range(model_folder, options):
    with pytest.raises(ValueError, match=next(iter(options)) if "device" not in options else "device"):
        SpladeEncoder(model_folder, **options)


def test_a_text_that_surely_fits_is_not_cut(model_folder):
    encoder = SpladeEncoder(model_folder, device="cpu", max_length=72)  # 70 tokens and two special tokens
    for text in ("walrus " * 5, "a" * 35, "エ", "\ufdfa", "", "ß!"):
        assert encoder.surely_fits("document", text)
        assert encoder.count_tokens("document", [text])[0].tokens_lost == 0
    assert not encoder.surely_fits("document", "a" * 36)
    assert not encoder.surely_fits("document", "エエ")


def test_no_character_makes_more_tokens_than_surely_fits_assumes():
    tokenizer = bpe_tokenizer().backend_tokenizer  # one token for each byte that it has not learned
    tokenizer.normalizer = normalizers.NFKD()  # the form that makes characters longest
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    counts = [len(encoding.ids) for encoding in tokenizer.encode_batch(characters, add_special_tokens=False)]
    assert max(counts[:128]) <= 2
    assert max(counts) == 33
