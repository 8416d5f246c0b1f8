"""Tests of the arithmetic of the benchmarks. No test asserts a time."""

import argparse
import os
import sys

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from transformers import AutoTokenizer

from benchmarks.contestants import best_batch_sizes, check_results, contest, headlines, largest_difference
from benchmarks.ingest import MadeUpSparse, measure_time
from benchmarks.measuring import Spread, interleave, ratio, spread, timed
from benchmarks.peers import UnavailableError, in_this_process
from benchmarks.workload import evenly_spaced, flops_per_token, made_up_queries, model_flops_per_token, token_lengths
from splade_integrations import SpladeEncoder
from tests.support.random_checkpoints import save_masked_lm

TEXTS = ["a", "alan turing was born in london", "", "word " * 100]


def test_ratio_is_of_medians_and_spreads_over_rounds():
    assert ratio([1.0, 10.0, 3.0], [1.0, 2.0, 3.0]) == Spread(median=1.5, least=1.0, most=5.0)
    assert spread([3, 1, 2]) == Spread(median=2, least=1, most=3)
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0], [1.0, 2.0])


def test_rounds_are_interleaved():
    made: list[str] = []
    contestants = {name: timed(lambda name=name: made.append(name), calls=2) for name in "AB"}
    seconds = interleave(contestants, 2, before_round=made.append)
    assert made == ["round 1 of 2", "A", "A", "B", "B", "round 2 of 2", "A", "A", "B", "B"]
    assert {name: len(values) for name, values in seconds.items()} == {"A": 2, "B": 2}


def test_flops_are_the_models_weights_twice(model_folder):
    # BERT-base has 85 M weights in the layers' matrices, 0.6 M in the head's transform, and 23.4 M in its decoder.
    assert flops_per_token(layers=12, hidden=768, intermediate=3072, vocabulary=30522) == 2 * (
        12 * 12 * 768**2 + 768**2 + 768 * 30522
    )
    assert model_flops_per_token(model_folder) == 2 * (2 * 12 * 128**2 + 128**2 + 128 * 30522)


def test_tokens_are_counted_without_padding_and_after_the_cut(model_folder):
    assert token_lengths(model_folder, TEXTS, max_length=16) == [3, 8, 2, 16]


def test_texts_are_evenly_spaced():
    assert evenly_spaced([str(n) for n in range(100)], 4) == ["0", "25", "50", "75"]
    assert evenly_spaced(["a", "b"], 5) == ["a", "b"]


def test_a_random_model_has_as_many_active_terms_as_it_was_asked_for(model_folder, tmp_path):
    texts = made_up_queries(40)
    assert len(set(texts)) == 40
    assert all(6 <= length <= 14 for length in token_lengths(model_folder, texts, max_length=256))
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    for terms in (50, 200):
        folder = tmp_path / str(terms)
        save_masked_lm(folder, "bert", tokenizer=tokenizer, typical_texts=texts[:20], active_terms=terms)
        rows = SpladeEncoder(folder, device="cpu").encode_documents(texts[20:])
        assert 0.5 < rows.nnz / 20 / terms < 2


def contestant(name, matrix, *, backend=None, exact=True, keep=False, encode=None):
    encode = encode or (lambda texts: matrix)
    return in_this_process(name, encode, lambda rows: rows, backend=backend, exact=exact, keep=keep)


def test_unlike_results_are_not_compared():
    right, wrong = csr_array([[1.0, 0.0]]), csr_array([[1.0, 0.5]])
    assert largest_difference(wrong, right) == 0.5
    others = [contestant("same", right), contestant("rough", wrong, exact=False)]
    assert check_results([contestant("ours", right), *others], TEXTS) == {"ours": 0.0, "same": 0.0, "rough": 0.5}
    with pytest.raises(SystemExit, match=r"wrong must give .* got a difference of 0\.5"):
        check_results([contestant("ours", right), contestant("wrong", wrong)], TEXTS)


def test_nan_is_not_an_equal_result():
    right, broken = csr_array([[1.0, 0.0]]), csr_array([[np.nan, 0.0]])
    with pytest.raises(SystemExit, match="broken must give"):
        check_results([contestant("ours", right), contestant("broken", broken)], TEXTS)


def test_best_batch_size_and_the_default_are_kept():
    def slow(texts):
        return sum(range(300_000))

    rivals = [contestant(f"b{size}", None, backend="b", encode=encode, keep=keep) for size, encode, keep in
              ((1, slow, False), (4, len, False), (8, slow, False), (32, slow, True))]  # fmt: skip
    kept, seconds = best_batch_sizes([contestant("ours", None, encode=slow), *rivals], TEXTS)
    assert [peer.name for peer in kept] == ["ours", "b4", "b32"]
    assert set(seconds) == {"b1", "b4", "b8"}


def test_headlines_compare_with_the_fastest_of_each_kind():
    names = {"ours float32": 2.0, "ours int8": 1.0, "s-t torch, batch 4": 8.0, "s-t torch, batch 32": 10.0}
    exact = [
        contestant(name, None, backend=name.partition(",")[0], keep="batch 32" in name, exact="int8" not in name)
        for name in names
    ]
    rough = contestant("s-t ONNX int8, batch 8", None, exact=False)
    seconds = {name: [value] * 3 for name, value in names.items()} | {rough.name: [3.0] * 3}
    found = headlines([*exact, rough], seconds)
    assert {question: line["ratio"].median for question, line in found.items()} == {
        "float32 against its torch at the default batch": 5.0,
        "float32 against its torch": 4.0,
        "float32 against its fastest at equal results": 4.0,
        "fastest against its fastest": 3.0,
    }
    assert found["fastest against its fastest"]["theirs"] == rough.name


def test_peers_agree_with_ours_each_in_a_process_of_its_own(model_folder):
    options = argparse.Namespace(max_length=16, dtypes=["bfloat16", "int7"], threads=1, only=["torch"])
    with contest(model_folder, options) as field:
        assert "int7" in field.skipped["ours int7"]
        assert [peer.name for peer in field.contestants][:3] == ["ours float32", "ours bfloat16", "s-t torch, batch 1"]
        differences = check_results(field.contestants, TEXTS)  # exits if torch's results differ
        assert 0 < differences["ours bfloat16"] < 0.5
        assert all(peer.seconds(TEXTS, 2) > 0 for peer in field.contestants)
        assert field.ours.call(os.getpid) != os.getpid()
        assert field.ours.call(torch.get_num_threads) == 1
        with pytest.raises(UnavailableError, match="its process ended"):
            field.ours.call(sys.exit)


def test_documents_are_added_through_both_frameworks_and_by_hand():
    """`benchmarks.ingest time` also inserts by hand, so its rows must fit the collections that our stores make."""
    results = measure_time(MadeUpSparse(), documents=5, repeats=1)
    assert [(one["framework"], one["calls_of_the_encoder"]) for one in results] == [
        ("LangChain", [5]),
        ("LlamaIndex", [5]),
    ]
