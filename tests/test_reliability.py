"""Quick versions of `make faults`, `make fuzz` and `make soak`, and a test of what is never logged."""

import json
import logging
import random
import time
from functools import reduce

import pytest

from checks import faults, fuzz, kills, soak
from checks.figures import Figures
from splade_integrations import SpladeEncoder
from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
from splade_integrations.milvus.filters import FilterError, from_dict
from splade_integrations.milvus.values import check_metadata
from splade_integrations.records import RecordError, Records
from splade_integrations.serving.answers import read_rows
from tests.support.adapters import HashEmbeddings
from tests.support.random_checkpoints import save_masked_lm


@pytest.fixture
def figures():
    found = Figures()
    yield found
    assert found.missed == []


def test_faults_of_an_encoder_and_a_store(figures, tmp_path):
    faults.encoder_faults(figures, tmp_path)
    faults.store_faults(figures, tmp_path)


def test_commands_that_are_killed_or_interrupted_lose_no_row(figures, tmp_path):
    save_masked_lm(tmp_path / "model", "bert")
    kills.kills(figures, tmp_path, 2, random.Random(0), rows=600)
    kills.interrupts(figures, tmp_path, 1, random.Random(0), rows=600)


def test_fuzzed_inputs_end_in_documented_errors(figures):
    fuzz.run(figures, 40, number=time.monotonic_ns() % 2**32)  # each run of the tests tries other inputs


def test_threads_and_memory(figures):
    soak.mixed_threads(figures, "float32", "torch", 8, 2, compare_speed=False)


DEEP = reduce(lambda inner, _: {"a": [inner]}, range(400), 5)


def test_values_that_are_nested_too_deeply(tmp_path):
    with pytest.raises(FilterError, match="nested at most"):
        from_dict(reduce(lambda inner, _: {"$and": [inner]}, range(400), {"a": 1}))
    with pytest.raises(ValueError, match=r"metadatas\[3\] must have values that are nested at most"):
        check_metadata(DEEP, "metadatas[3]")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a"}) + "\n" + json.dumps({"text": "b", "n": DEEP}))
    with pytest.raises(RecordError, match="line 2: must have fields that are nested at most"):
        list(Records(str(tmp_path / "a.jsonl"), "jsonl", keep=None))
    with pytest.raises(ValueError, match="must answer with rows"):
        read_rows("http://server", b"[" * 5000, 1, 10)
    with pytest.raises(ValueError, match="must answer with rows"):
        read_rows("http://server", b'[[{"index": 1e300, "value": 1}]]', 1, 10)


def test_a_missed_requirement_is_noticed(capsys):
    found = Figures()
    found.add("rows lost", False, "3 of 5")
    with found.expecting("a clear error", ValueError, "texts[3]"):
        raise ValueError("wrong")
    with found.expecting("an error", ValueError):
        pass
    assert found.exit_status() == 1
    assert found.missed == ["rows lost", "a clear error", "an error"]
    fuzz._try(found, "a function that fails", lambda value: 1 // (value is not None), fuzz._JSON, 20, 0)
    assert "MISS fuzzed a function that fails: ZeroDivisionError" in capsys.readouterr().out


def test_logs_hold_neither_texts_nor_tokens(random_bert_folder, tmp_path, caplog, capsys):
    caplog.set_level(logging.INFO)
    encoder = SpladeEncoder(random_bert_folder, device="cpu", max_length=8, token="hf_secrettoken")
    secret = "my password is swordfish " * 20
    store = hybrid_milvus(
        HashEmbeddings(),
        SpladeSparseEmbedding(encoder=encoder),
        uri=str(tmp_path / "a.db"),
        token="root:secrettoken",
    )
    store.add_texts([secret, "日本語 swordfish"], ids=["a", "b"])
    store.similarity_search(secret, k=1)
    encoder.encode_documents([secret] * 3, show_progress=True)
    written = caplog.text + repr(encoder) + repr(store) + "".join(capsys.readouterr())
    assert "were truncated" in caplog.text  # the package did log
    assert "swordfish" not in written
    assert "secrettoken" not in written
