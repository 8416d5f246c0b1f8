"""Tests of the embedding function: the code of Milvus's docs runs unchanged, and milvus-lite accepts the rows."""

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from scipy.sparse import csr_array, vstack

from splade_integrations import to_dicts
from splade_integrations.milvus import SparseRows, SpladeEmbeddingFunction
from splade_integrations.milvus.async_clients import AsyncClients
from splade_integrations.milvus.clients import open_client

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
    client = MilvusClient(str(tmp_path / "milvus.db"))
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    index = client.prepare_index_params()
    index.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection("documents", schema=schema, index_params=index)
    yield client
    client.close()


def test_the_page_of_milvus_runs(splade_ef, capsys):
    docs_embeddings = splade_ef.encode_documents(DOCUMENTS)
    print("Embeddings:", docs_embeddings)
    print("Sparse dim:", splade_ef.dim, list(docs_embeddings)[0].shape)  # noqa: RUF015, this is the code of Milvus's page
    queries_embeddings = splade_ef.encode_queries(QUERIES)
    print("Sparse dim:", splade_ef.dim, list(queries_embeddings)[0].shape)  # noqa: RUF015
    printed = capsys.readouterr().out
    assert printed.count("Sparse dim: 30522 (1, 30522)") == 2
    assert "(2, 28639)" in printed  # a coordinate of the third document as the page prints it
    assert isinstance(docs_embeddings, csr_array)


@pytest.mark.parametrize("rows_of", [list, lambda m: [m[i] for i in range(m.shape[0])], to_dicts])
def test_rows_go_straight_into_milvus(splade_ef, client, rows_of):
    documents, queries = splade_ef.encode_documents(DOCUMENTS), splade_ef.encode_queries(QUERIES)
    client.insert("documents", [{"id": i, "sparse": row} for i, row in enumerate(rows_of(documents))])
    hits = client.search("documents", data=rows_of(queries), anns_field="sparse", limit=3)
    scores = (queries @ documents.T).toarray()
    for found, expected in zip(hits, scores, strict=True):
        assert {hit["id"]: hit["distance"] for hit in found} == pytest.approx(dict(enumerate(expected)), abs=1e-4)
        assert found[0]["id"] == np.argmax(expected)


def test_what_keeps_two_dimensional_rows_and_what_loses_them(splade_ef):
    rows = splade_ef.encode_documents(DOCUMENTS)
    for kept in (rows[1:], rows[[2, 0]], rows.copy(), rows * 2, SparseRows(vstack([rows, rows]))):
        assert {row.shape for row in kept} == {(1, rows.shape[1])}
    assert rows[-1].shape == (1, rows.shape[1])
    assert rows[1, 2414] == rows.toarray()[1, 2414]  # a cell is a number
    lost = vstack([rows, rows])
    assert next(iter(lost)).ndim == 1
    assert to_dicts(lost) == to_dicts(rows) * 2
    assert len(list(rows)) == 3  # iteration ends


def test_parameters_reach_the_encoder(model_folder, splade_ef):
    pruned = SpladeEmbeddingFunction(
        model_folder, 2, "query: ", "passage: ", "cpu", k_tokens_query=4, k_tokens_document=8, max_length=16
    )
    assert np.diff(pruned.encode_queries(QUERIES).indptr).tolist() == [4, 4]
    assert np.diff(pruned.encode_documents(DOCUMENTS).indptr).tolist() == [8, 8, 8]
    assert pruned.encoder.max_length == 16
    prompted = SpladeEmbeddingFunction(model_folder, query_instruction="query: ", doc_instruction="passage: ")
    by_hand = splade_ef.encode_queries(["query: " + query for query in QUERIES])
    np.testing.assert_allclose(prompted.encode_queries(QUERIES).toarray(), by_hand.toarray(), atol=1e-5)
    by_hand = splade_ef.encode_documents(["passage: " + document for document in DOCUMENTS])
    np.testing.assert_allclose(prompted.encode_documents(DOCUMENTS).toarray(), by_hand.toarray(), atol=1e-5)


def test_what_milvus_class_has(model_folder, splade_ef):
    """pymilvus.model 0.3.4 has these parameters (in order, with these defaults), these attributes, and `__call__`."""
    parameters = list(inspect.signature(SpladeEmbeddingFunction).parameters.values())
    assert [(parameter.name, parameter.default) for parameter in parameters[:-1]] == [
        ("model_name", "naver/splade-cocondenser-ensembledistil"),
        ("batch_size", 32),
        ("query_instruction", ""),
        ("doc_instruction", ""),
        ("device", "cpu"),
        ("k_tokens_query", None),
        ("k_tokens_document", None),
    ]
    given = {
        "model_name": model_folder,
        "query_instruction": "query: ",
        "doc_instruction": "passage: ",
        "device": None,
        "k_tokens_query": 4,
        "k_tokens_document": 8,
    }
    made = SpladeEmbeddingFunction(**given)
    assert {name: getattr(made, name) for name in given} == given
    assert str(made.encoder.device) == "cpu"
    assert made.encode_documents(DOCUMENTS[:1]).nnz == 8
    np.testing.assert_allclose(made(DOCUMENTS).toarray(), splade_ef.encode_documents(DOCUMENTS).toarray(), atol=1e-5)
    with pytest.raises(AttributeError, match="k_tokens_query"):
        made.k_tokens_query = 5


def test_empty_list(splade_ef):
    assert splade_ef.encode_documents([]).shape == (0, 30522)
    assert list(splade_ef.encode_queries([])) == []


def test_loops_in_threads_each_get_a_client(tmp_path):
    client = open_client(uri=str(tmp_path / "a.db"))
    clients = AsyncClients(client, uri=str(tmp_path / "a.db"))

    async def ask():
        return await clients.current().has_collection("none")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: asyncio.run(ask()), range(64))) == [False] * 64
