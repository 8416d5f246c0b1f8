"""Tests of the checks on small inputs: each check passes on correct input, and computes correct figures."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from checks import copies, explanations
from checks.frameworks import Embeddings, compare
from checks.quality import changed_top_terms, pruned, weight_differences
from splade_integrations import SpladeEncoder
from splade_integrations.evaluation import Dataset
from tests.support.server import milvus_lite_server


def embeddings(rng, count):
    sparse = np.where(rng.random((count, 200)) < 0.1, rng.random((count, 200)), 0).astype(np.float32)
    return Embeddings(rng.normal(size=(count, 16)).astype(np.float32), csr_array(sparse))


def test_frameworks_reproduce_exact_rankings():
    rng = np.random.default_rng(0)
    queries = [f"query {row}" for row in range(20)]
    qrels = {query: {str(row): 1 for row in rng.choice(300, 20, replace=False)} for query in queries}
    documents = [f"document {row}" for row in range(300)]
    collection = Dataset("made up", [str(row) for row in range(300)], documents, queries, queries, qrels)
    rows = list(compare(collection, embeddings(rng, 300), embeddings(rng, 20)))
    assert [row[:3] for row in rows] == [
        (framework, side, k)
        for framework in ("LangChain", "LlamaIndex")
        for side in ("sparse", "hybrid")
        for k in (4, 10)
    ]
    for row in rows:
        assert row[3] == pytest.approx(row[4], abs=0.002)
        assert row[4] > 0.01


def test_weight_differences_and_top_terms():
    found, expected = csr_array([[3.0, 0.0, 2.0, 0.0]]), csr_array([[3.0, 1.0, 0.0, 0.0]])
    assert weight_differences(found, expected) == {
        "largest_difference": 2.0,
        "mean_difference": 1.0,
        "mean_weight": 2.0,
    }
    assert changed_top_terms(found, expected, top=2) == 0.5
    assert changed_top_terms(expected, expected, top=2) == 0


def test_pruning_settings():
    rows = csr_array(np.array([[3.0, 1.0, 2.0]], np.float32))
    documents, queries = pruned(rows, rows, "document.max_active_dims=1,query.max_active_dims=2")
    assert (documents.nnz, queries.nnz) == (1, 2)
    for setting in ("max_active_dims=1", "document.unknown=1", "document.max_active_dims"):
        with pytest.raises(ValueError, match="--prune must be like"):
            pruned(rows, rows, setting)


def test_explanations_add_up_and_a_wrong_one_is_noticed(tmp_path, monkeypatch, capsys):
    texts = {"a": "Alan Turing broke the Enigma cipher.", "b": "Ada Lovelace wrote the first program."}
    (tmp_path / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": key, "title": "", "text": text}) + "\n" for key, text in texts.items())
    )
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "who cracked the Enigma code"}) + "\n")
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\nq\tb\t0\n")
    assert explanations.main([str(tmp_path)]) == 0
    assert "1 pairs" in capsys.readouterr().out
    explain = SpladeEncoder.explain
    monkeypatch.setattr(SpladeEncoder, "explain", lambda self, *texts: replace(explain(self, *texts), score=0.0))
    assert explanations.main([str(tmp_path)]) == 1


def test_a_copy_is_right_although_the_command_is_killed():
    with milvus_lite_server() as uri:
        assert copies.check("LangChain", uri, rows=100, kills=1, seed=0, beside=False) == []
