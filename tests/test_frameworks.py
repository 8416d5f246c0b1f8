"""`make evaluate-frameworks` on made-up embeddings: both stores give the exact rankings, at any k."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from benchmarks.frameworks import Embeddings, compare
from splade_integrations.evaluation import Dataset


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
