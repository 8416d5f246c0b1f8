"""Tests of the embedding function with pymilvus's `MilvusClient`, without a framework.

These tests run in each environment of the Makefile, with pymilvus 2 and 3 and milvus-lite 2 and 3.
"""

import importlib.metadata

import numpy as np
import pytest
from pymilvus import AnnSearchRequest, DataType, MilvusClient, RRFRanker

from splade_integrations import OptionalDependencyError, to_dicts
from splade_integrations.milvus import SpladeEmbeddingFunction
from splade_integrations.milvus.lite import is_lite

DOCUMENTS = [
    "Artificial intelligence was founded as an academic discipline in 1956.",
    "Alan Turing was the first person to conduct substantial research in AI.",
    "Born in Maida Vale, London, Turing was raised in southern England.",
]
QUERIES = ["When was artificial intelligence founded", "Where was Alan Turing born?"]


@pytest.fixture(scope="module")
def splade_ef(model_folder):
    return SpladeEmbeddingFunction(model_name=model_folder, device="cpu")


@pytest.fixture
def client(tmp_path):
    uri = str(tmp_path / "raw.db")
    client = MilvusClient(uri)
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=3)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    index = client.prepare_index_params()
    index.add_index("dense", index_type="FLAT", metric_type="COSINE")
    index.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection("documents", schema=schema, index_params=index)
    yield client
    client.drop_collection("documents")
    client.close()


@pytest.mark.parametrize("rows_of", [list, lambda rows: [rows[i] for i in range(rows.shape[0])], to_dicts])
def test_score_of_milvus_is_the_dot_product(splade_ef, client, rows_of):
    documents, queries = splade_ef.encode_documents(DOCUMENTS), splade_ef.encode_queries(QUERIES)
    unit = np.eye(3, dtype=np.float32)
    rows = [{"id": i, "dense": unit[i].tolist(), "sparse": row} for i, row in enumerate(rows_of(documents))]
    client.insert("documents", rows)
    found = client.search("documents", data=rows_of(queries), anns_field="sparse", limit=3)
    expected = (queries @ documents.T).toarray()
    for hits, scores in zip(found, expected, strict=True):
        assert {hit["id"]: hit["distance"] for hit in hits} == pytest.approx(dict(enumerate(scores)), abs=1e-3)
        assert [hit["id"] for hit in hits] == np.argsort(-scores).tolist()


def test_hybrid_search_fuses_both_sides(splade_ef, client):
    rows = zip(range(3), np.eye(3).tolist(), splade_ef.encode_documents(DOCUMENTS), strict=True)
    client.insert("documents", [{"id": i, "dense": dense, "sparse": sparse} for i, dense, sparse in rows])
    query = list(splade_ef.encode_queries(QUERIES[1:]))
    sparse_order = [hit["id"] for hit in client.search("documents", data=query, anns_field="sparse", limit=3)[0]]
    dense_order = [1, 0, 2]
    requests = [
        AnnSearchRequest([[0.6, 0.7, 0.1]], "dense", {"params": {}}, limit=3),
        AnnSearchRequest(query, "sparse", {"params": {}}, limit=3),
    ]
    hits = client.hybrid_search("documents", requests, RRFRanker(60), limit=3)[0]
    expected = dict.fromkeys(range(3), 0.0)
    for order in (dense_order, sparse_order):
        for rank, row in enumerate(order, start=1):
            expected[row] += 1 / (60 + rank)
    assert {hit["id"]: hit["distance"] for hit in hits} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("version", ["3.1.0", "3.1.7", "3.2.0", "3.2.1"])
def test_a_milvus_lite_that_scores_wrongly_is_refused_with_the_pip_line(version, monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version if name == "milvus-lite" else real(name))
    with pytest.raises(OptionalDependencyError, match=rf"milvus-lite {version} .*pip install 'milvus-lite>=3.2.2,<4'"):
        is_lite("./some.db")
    assert not is_lite("http://localhost:19530")  # a server is not milvus-lite, even on this machine


def test_a_later_milvus_lite_is_not_taken_for_one_of_those(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "3.2.10")
    assert is_lite("./some.db")
