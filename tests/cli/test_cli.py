"""The console command reads and writes files, prints each error in one line, and keeps a collection after Ctrl-C."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import typer
from langchain_core.embeddings import DeterministicFakeEmbedding
from pymilvus import DataType, MilvusClient
from scipy.sparse import csr_array, load_npz

from splade_integrations import Pruning, to_dicts
from splade_integrations.cli import milvus_store
from splade_integrations.cli.app import app, run
from splade_integrations.cli.blocks import encode_blocks
from splade_integrations.cli.interrupting import was_interrupted
from splade_integrations.cli.writing import WriteError, whole_file
from splade_integrations.fusion import Fusion
from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
from splade_integrations.llama_index import HybridMilvusVectorStore
from splade_integrations.llama_index import SpladeSparseEmbedding as LlamaSparse
from splade_integrations.milvus.defaults import cut_text
from splade_integrations.models.offline import dense_model_path
from splade_integrations.records import Record, RecordError, Records, format_of

ROWS = [
    {"_id": "cat", "title": "Cats", "text": "They purr, and sleep all day."},
    {"_id": "dog", "title": "", "text": "Dogs bark at the postman."},
    {"_id": "empty", "text": ""},
    {"_id": "bird", "text": "naïve birds sing 😀"},
]
TEXTS = ["Cats They purr, and sleep all day.", "Dogs bark at the postman.", "", "naïve birds sing 😀"]


@pytest.fixture
def corpus(tmp_path):
    return write_as(tmp_path / "corpus.jsonl")


def write_as(path, rows=ROWS):
    """Write the rows in the format that the file's name ends in."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\ufeff" + "\r\n\n".join(json.dumps(row) for row in rows))
    else:
        mark = "," if path.suffix == ".csv" else "\t"
        lines = [mark.join(("_id", "title", "text"))]
        lines += [mark.join(f'"{row.get(name, "")}"' for name in ("_id", "title", "text")) for row in rows]
        path.write_text("\n".join(lines) + "\n")
    return path


class TestRecords:
    @pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
    def test_every_format_gives_the_same(self, tmp_path, suffix):
        path = str(write_as(tmp_path / f"texts.{suffix}"))
        records = Records(path, format_of(path))
        expected = list(zip([row["_id"] for row in ROWS], TEXTS, strict=True))
        assert [(record.id, record.text) for record in records] == expected
        assert records.count() == 4

    def test_lines(self, tmp_path):
        (tmp_path / "texts.txt").write_text("one\n\ntwo")
        records = Records(str(tmp_path / "texts.txt"), "lines")
        assert [(record.id, record.text) for record in records] == [("1", "one"), ("2", ""), ("3", "two")]

    def test_a_quoted_text_of_several_lines(self, tmp_path):
        (tmp_path / "a.csv").write_text('id,text\n\n1,"first\n\nsecond"\n  \n2,"' + "x" * 200_000 + '"\n')
        records = list(Records(str(tmp_path / "a.csv"), "csv"))
        assert records[0].text == "first\n\nsecond"
        assert len(records[1].text) == 200_000

    def test_other_fields(self, tmp_path):
        corpus = write_as(tmp_path / "corpus.jsonl", ROWS[:2])
        records = list(Records(str(corpus), "jsonl", text_field="_id", title_field=None, id_field="text"))
        assert (records[0].id, records[0].text) == (ROWS[0]["text"], "cat")


BROKEN_ON_17 = b"".join(b'{"_id": "%d", "text": "a"}\n' % n for n in range(16)) + b'{"_id": "16", "text": \n'
BAD_FILES = [
    ("texts.jsonl", None, "texts.jsonl cannot be read: No such file or directory"),
    ("texts.jsonl", b"", "texts.jsonl must have at least one line, but is empty"),
    ("texts.jsonl", b"\n\n", "texts.jsonl must have at least one line, but is empty"),
    ("texts.jsonl", BROKEN_ON_17, "texts.jsonl, line 17: must be one JSON object"),
    ("texts.jsonl", b'{"_id": "1", "body": "a"}', "line 1: must have the text under 'text', got the fields _id, body"),
    ("texts.jsonl", b'{"_id": "1", "text": null}', "line 1: must have the text under 'text'"),
    ("texts.jsonl", b'["a"]', "line 1: must have the text under 'text', got [\"a\"]"),
    ("texts.jsonl", b'{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}', "line 2: id '1' must be unique"),
    (
        "texts.jsonl",
        b'{"id": 1, "text": "a"}\n{"id": "b\\ud800", "text": "b"}',
        r"line 2: the id must be valid Unicode, got '\ud800'",
    ),
    ("texts.jsonl", b'{"text": "caf\xc3\xa9"}\n{"text": "caf\xe9"}', "line 2: must be UTF-8, but has the byte 0xe9"),
    ("texts.txt", "café".encode("utf-16"), "got 1 not UTF-8 (texts.txt). Add a text file."),
    ("texts.txt", b"", "got 1 empty (texts.txt). Add a text file."),
    ("texts.txt", None, "texts.txt cannot be read: No such file or directory"),
    ("texts.csv", b"id,body\n1,a\n", "line 2: must have the text under 'text', got the fields id, body"),
    ("texts.csv", b"id,text\n1,a\n2,b,c\n", "line 3: must have 2 columns, like the header, but has more"),
    ("texts.csv", b"id,text\n1\n", "line 2: must have 2 columns, like the header, but has fewer"),
    ("texts.csv", b'id,text\n1,"a\n', "must be CSV, but does not parse (unexpected end of data)"),
    ("texts.csv", b"id,text\n", "texts.csv must have at least one row below its header"),
    ("texts.parquet", b"PAR1 no", "texts.parquet must be a Parquet file, but is not"),
    ("texts.doc", b"a", "texts.doc must be a folder, or end in .md, .rst, .jsonl"),
]


class TestBadInput:
    @pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
    def test_a_bad_file_gives_one_clear_line(self, tmp_path, capsys, model_folder, name, content, message):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        for command, target in (("encode", ["-o", "out.jsonl"]), ("index", ["--uri", "out.db"])):
            target = [target[0], str(tmp_path / target[1])]
            assert run([command, str(tmp_path / name), "-m", model_folder, *target]) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert message in err
            assert err.count("\n") == 1
            assert "Traceback" not in err
        assert not {path.name for path in tmp_path.iterdir()} - {name, "out.db"}

    def test_a_parquet_file_of_other_columns(self, tmp_path, capsys, model_folder):
        path = write_as(tmp_path / "a.parquet", [{"body": "a"}])
        assert run(["encode", str(path), "-m", model_folder]) == 2
        assert "must have a column 'text', but has body" in capsys.readouterr().err

    @pytest.mark.parametrize("suffix", ["jsonl", "parquet", "npz"])
    def test_a_full_disk(self, corpus, tmp_path, capsys, model_folder, suffix):
        output = tmp_path / f"full.{suffix}"
        output.symlink_to("/dev/full")
        assert run(["encode", str(corpus), "-m", model_folder, "-o", str(output)]) == 2
        err = capsys.readouterr().err
        assert f"{output} cannot be written: No space left on device. Nothing was kept" in err
        assert err.count("\n") == 1

    @pytest.mark.parametrize(
        ("output", "message"),
        [
            ("/no/such/folder/a.jsonl", "cannot be written: No such file or directory"),
            ("/proc/a.jsonl", "cannot be written: No such file or directory"),
            ("a.docx", "--output must end in .jsonl, .parquet, .npz"),
        ],
    )
    def test_a_place_that_cannot_be_written(self, corpus, capsys, model_folder, output, message):
        assert run(["encode", str(corpus), "-m", model_folder, "-o", output]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1

    def test_an_older_file_outlives_an_error(self, tmp_path, model_folder):
        (tmp_path / "texts.jsonl").write_bytes(BROKEN_ON_17)
        older = tmp_path / "out.parquet"
        older.write_text("older")
        assert run(["encode", str(tmp_path / "texts.jsonl"), "-m", model_folder, "-o", str(older)]) == 2
        assert older.read_text() == "older"
        assert len(list(tmp_path.iterdir())) == 2

    def test_ctrl_c_leaves_no_half_file(self, tmp_path):
        def write_half():
            with whole_file(str(tmp_path / "a")) as file:
                file.write(b"half")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_half()
        with pytest.raises(WriteError, match="it is a folder"), whole_file(str(tmp_path)):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_sigterm_leaves_no_file(self, model_folder, tmp_path):
        command = [str(Path(sys.executable).parent / "splade"), "encode", "-", "-m", model_folder]
        target = tmp_path / "out.npz"
        with subprocess.Popen(
            [*command, "-o", str(target)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            while not any(tmp_path.iterdir()) and process.poll() is None:  # until its temporary file exists
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 143
            assert process.stderr.read() == f"splade: interrupted; {target} was not written.\n"
        assert list(tmp_path.iterdir()) == []

    def test_ctrl_c_says_so(self, corpus, tmp_path, capsys, monkeypatch):
        def interrupt(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr("splade_integrations.cli.loading.load_encoder", interrupt)
        assert run(["encode", str(corpus), "-m", "any", "-o", str(tmp_path / "out.npz")]) == 130
        assert f"splade: interrupted; {tmp_path}/out.npz was not written." in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    @pytest.mark.parametrize("error", [ImportError, SystemError, SystemExit])
    def test_a_signal_is_reported_also_if_a_library_makes_another_error_of_it(
        self, corpus, tmp_path, capsys, monkeypatch, number, code, error
    ):
        def importing(*_, **__):
            with contextlib.suppress(KeyboardInterrupt):
                os.kill(os.getpid(), number)
                time.sleep(5)
            raise error("initialization failed")

        monkeypatch.setattr("splade_integrations.cli.loading.load_encoder", importing)
        assert run(["encode", str(corpus), "-m", "any", "-o", str(tmp_path / "out.npz")]) == code
        assert capsys.readouterr().err == f"splade: interrupted; {tmp_path}/out.npz was not written.\n"
        uri = str(tmp_path / "a.db")
        assert run(["index", str(corpus), "-m", "any", "--uri", uri]) == code
        assert capsys.readouterr().err == f"splade: interrupted; 0 documents were added to 'splade' of {uri}.\n"
        assert run(["info", "/no/such/model"]) == 2  # the next run starts anew
        assert "interrupted" not in capsys.readouterr().err
        assert not was_interrupted(ValueError())

    def test_debug_shows_the_traceback(self, model_folder):
        with pytest.raises(RecordError):
            run(["encode", "/no/such.jsonl", "-m", model_folder, "--debug"])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["encode"], "Missing argument"),
            (["encode", "-", "--no-such"], "No such option"),
            (["nonsense"], "No such command"),
            (["info", "/no/such/model"], "'/no/such/model' must be a folder, or a model repository"),
            (["search", "a", "--uri", "/no/such.db"], "/no/such.db must be a Milvus file, but it does not exist"),
        ],
    )
    def test_bad_arguments(self, capsys, arguments, message):
        assert run(arguments) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1

    @pytest.mark.parametrize("package", ["typer", "rich"])
    def test_a_missing_extra_names_the_pip_line(self, package):
        code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["splade", "encode", "texts.txt", "-m", "a"]
from splade_integrations.cli import main
main()
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert line.endswith(f"needs {package}. Install it with: pip install 'splade-integrations[cli]'.")


def read_vectors(path, dim):
    """Return (ids, matrix) from a file that `splade encode` wrote."""
    if path.suffix == ".npz":
        return np.load(path)["ids"].tolist(), load_npz(path)
    if path.suffix == ".parquet":
        rows = pyarrow.parquet.read_table(path).to_pylist()
        pairs = [dict(zip(row["sparse"]["indices"], row["sparse"]["values"], strict=True)) for row in rows]
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        pairs = [{int(term): weight for term, weight in row["sparse"].items()} for row in rows]
    matrix = np.zeros((len(rows), dim), np.float32)
    for place, terms in enumerate(pairs):
        matrix[place, list(terms)] = list(terms.values())
    return [row["id"] for row in rows], csr_array(matrix)


class TestEncode:
    @pytest.mark.parametrize("suffix", ["jsonl", "parquet", "npz"])
    def test_rows_are_the_encoders(self, corpus, tmp_path, encoder, suffix):
        output = tmp_path / f"vectors.{suffix}"
        assert run(["encode", str(corpus), "-m", encoder.model_name, "--max-length", "256", "-o", str(output)]) == 0
        ids, matrix = read_vectors(output, encoder.dim)
        assert ids == [row["_id"] for row in ROWS]
        np.testing.assert_allclose(matrix.toarray(), encoder.encode_documents(TEXTS).toarray(), atol=1e-6)

    def test_kept_texts(self, corpus, tmp_path, capsys, model_folder):
        output = tmp_path / "vectors.parquet"
        assert run(["encode", str(corpus), "-m", model_folder, "--keep-text", "-o", str(output)]) == 0
        table = pyarrow.parquet.read_table(output)
        assert (table["id"].to_pylist(), table["text"].to_pylist()) == ([row["_id"] for row in ROWS], TEXTS)
        capsys.readouterr()
        assert run(["encode", str(corpus), "-m", model_folder, "--keep-text", "-o", str(tmp_path / "a.npz")]) == 2
        assert ".npz cannot hold texts. Leave --keep-text out" in capsys.readouterr().err
        assert not (tmp_path / "a.npz").exists()

    def test_options(self, corpus, tmp_path, encoder, capsys):
        output = tmp_path / "vectors.jsonl"
        arguments = ["--queries", "--keep-text", "--max-active-dims", "3", "--title-field", "", "--json"]
        assert run(["encode", str(corpus), "-m", encoder.model_name, "-o", str(output), *arguments]) == 0
        summary = json.loads(capsys.readouterr().out)
        assert (summary["texts"], summary["active_dims"]) == (4, 3.0)
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        assert [row["text"] for row in rows] == [row["text"] for row in ROWS]
        assert all(len(row["sparse"]) == 3 for row in rows)

    def test_milvus_takes_the_lines(self, corpus, tmp_path, encoder):
        output = tmp_path / "vectors.jsonl"
        assert run(["encode", str(corpus), "-m", encoder.model_name, "-o", str(output)]) == 0
        client = MilvusClient(str(tmp_path / "a.db"))
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
        indexes = client.prepare_index_params()
        indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP", params={})
        client.create_collection("a", schema=schema, index_params=indexes, consistency_level="Strong")
        client.insert("a", [json.loads(line) for line in output.read_text().splitlines()])
        query = to_dicts(encoder.encode_queries(["barking dogs"]))
        assert client.search("a", query, anns_field="sparse", limit=1)[0][0]["id"] == "dog"

    @pytest.mark.parametrize("queries", [False, True])
    def test_ids_stay_with_their_rows_over_blocks(self, encoder, queries):
        records = [Record(str(n), f"text number {n}") for n in range(11)]
        told = []
        blocks = list(encode_blocks(encoder, iter(records), queries=queries, advance=told.append, block_rows=4))
        assert [block.ids for block in blocks] == [["0", "1", "2", "3"], ["4", "5", "6", "7"], ["8", "9", "10"]]
        assert sum(told) == 11
        encode = encoder.encode_queries if queries else encoder.encode_documents
        expected = encode([record.text for record in records]).toarray()
        found = np.concatenate([block.weights.toarray() for block in blocks])
        np.testing.assert_allclose(found, expected, atol=1e-5)


class TestIndexAndSearch:
    def test_all_modes(self, corpus, tmp_path, model_folder, capsys):
        uri = ["--uri", str(tmp_path / "a.db")]
        assert run(["index", str(corpus), "-m", model_folder, "--dense", dense_model_path(), *uri, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["added"] == 4
        for mode in ("hybrid", "dense", "sparse"):
            assert run(["search", "who barks", *uri, "--mode", mode, "-k", "2", "--json"]) == 0
            hits = json.loads(capsys.readouterr().out)
            assert hits[0]["id"] == "dog"
            assert hits[0]["text"] == TEXTS[1]
        assert run(["search", "who barks", *uri, "--filter", 'id != "dog"', "--json"]) == 0
        assert {hit["id"] for hit in json.loads(capsys.readouterr().out)} == {"cat", "bird", "empty"}
        assert run(["search", "who barks", *uri, "--mode", "sparse", "--explain", "--json"]) == 0
        hit = json.loads(capsys.readouterr().out)[0]
        total = sum(term["contribution"] for term in hit["explanation"]["terms"])
        assert total == pytest.approx(hit["score"], abs=1e-4)
        assert run(["search", "who barks", *uri]) == 0
        assert "Dogs bark" in capsys.readouterr().out

    def test_a_fitted_fusion_is_stored_and_followed(self, corpus, tmp_path, model_folder, capsys):
        uri = ["--uri", str(tmp_path / "a.db")]
        assert run(["index", str(corpus), "-m", model_folder, "--dense", dense_model_path(), "--bm25", *uri]) == 0
        folder = tmp_path / "beir"
        folder.mkdir()
        write_as(folder / "corpus.jsonl")
        asked = {"cat": "who purrs and sleeps", "dog": "a barking dog", "bird": "birds that sing"}
        queries = [(f"{key}{number}", key, f"{text} {number}") for key, text in asked.items() for number in range(15)]
        lines = [json.dumps({"_id": name, "text": text}) for name, _, text in queries]
        (folder / "queries.jsonl").write_text("\n".join(lines))
        (folder / "qrels.tsv").write_text("\n".join(f"{name}\t{key}\t1" for name, key, _ in queries))
        fit = ["evaluate", str(folder), "--fit", "--write", str(tmp_path / "a.db")]
        capsys.readouterr()
        assert run([*fit, "--json"]) == 0
        fitted = json.loads(capsys.readouterr().out)
        assert run(["evaluate", str(folder), "--write", str(tmp_path / "a.db")]) == 2
        assert "--write must be given with --fit" in capsys.readouterr().err
        assert run(["evaluate", str(folder), "-c", "mine"]) == 2
        assert "--collection must be given with --write" in capsys.readouterr().err
        for wrong, message in [
            (["--plot", "a.png"], "--plot must not be given with --write"),
            (["--write", str(tmp_path / "none.db")], "--write must name a Milvus server, or a file that exists"),
        ]:
            assert run([*fit, *wrong]) == 2
            assert message in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "none.db").exists()
        again = ["index", str(corpus), "-m", model_folder, "--dense", dense_model_path(), "--resume", *uri]
        assert run([*again, "--bm25", "--language", "german"]) == 2
        assert "--language english, got german" in " ".join(capsys.readouterr().err.split())
        assert run([*again, "--language", "english"]) == 2
        assert "--language must be given with --bm25" in capsys.readouterr().err
        assert run(["search", "who barks", *uri, "--filter", 'id != "cat"', "-k", "1", "--json"]) == 0
        [hit] = json.loads(capsys.readouterr().out)
        assert hit["id"] == "dog"
        assert run(["info", *uri, "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["documents"] == 4
        assert facts["fusion"] == str(Fusion.from_dict(fitted["fusion"]))
        assert facts["bm25_side"] == "SPARSE_INVERTED_INDEX, BM25, in the field 'bm25'"
        assert facts["bm25_language"] == "english"
        for wrong in ([], [model_folder, *uri]):
            assert run(["info", *wrong]) == 2
            assert "a model or --uri must be given" in capsys.readouterr().err
        sparse = SpladeSparseEmbedding(model_name=model_folder)
        dense = DeterministicFakeEmbedding(size=384)
        place = {"uri": str(tmp_path / "a.db"), "collection_name": "splade"}
        store = hybrid_milvus(dense, sparse, bm25=True, **place)
        assert store.fusion == Fusion.from_dict(fitted["fusion"])
        chosen = Fusion(sides=("bm25", "sparse"), method="scores", weights=(0.9, 0.1), depth=20)
        store.collection.record_fusion(chosen)
        found = store.similarity_search_with_score("who barks", k=2)
        assert run(["search", "who barks", *uri, "-k", "2", "--json"]) == 0
        hits = json.loads(capsys.readouterr().out)
        assert [(hit["id"], round(hit["score"], 5)) for hit in hits] == [
            (document.id, round(score, 5)) for document, score in found
        ]
        assert run(["search", "who barks", *uri, "-k", "1", "--json", "--explain"]) == 0
        [hit] = json.loads(capsys.readouterr().out)
        assert hit["sides"].keys() == {"bm25", "sparse"}
        assert all(side is None or side["rank"] == 1 for side in hit["sides"].values())
        with pytest.raises(ValueError, match="Open the collection with its bm25 side as well"):
            hybrid_milvus(dense, sparse, **place).similarity_search("who barks")
        assert run(["search", "who barks", *uri, "--mode", "bm25", "--json"]) == 0
        assert [hit["id"] for hit in json.loads(capsys.readouterr().out)] == ["dog"]

    def test_explanations_of_pruned_documents_sum_to_the_score(self, corpus, tmp_path, model_folder, capsys):
        uri = ["--uri", str(tmp_path / "a.db")]
        assert run(["index", str(corpus), "-m", model_folder, "--max-active-dims", "3", *uri]) == 0
        capsys.readouterr()
        assert run(["search", "dogs bark at cats", *uri, "--explain", "--json"]) == 0
        for hit in json.loads(capsys.readouterr().out):
            total = sum(term["contribution"] for term in hit["explanation"]["terms"])
            assert total == pytest.approx(hit["score"], abs=1e-4)

    def test_a_text_that_milvus_cannot_hold_is_cut(self):
        assert cut_text("é" * 40_000) == "é" * 32_767
        assert cut_text("a\ud800b") == "a?b"

    def test_ctrl_c_and_resume(self, tmp_path, model_folder, capsys, monkeypatch):
        corpus = tmp_path / "many.jsonl"
        corpus.write_text("".join(json.dumps({"_id": f"d{n}", "text": f"thing {n}"}) + "\n" for n in range(10)))
        monkeypatch.setattr("splade_integrations.cli.filling.CHUNK_ROWS", 4)
        add, calls = milvus_store.Store.add, []

        def interrupted(self, *arguments):
            if len(calls) == 2:
                raise KeyboardInterrupt
            calls.append(1)
            add(self, *arguments)

        uri = ["--uri", str(tmp_path / "a.db")]
        command = ["index", str(corpus), "-m", model_folder, *uri]
        monkeypatch.setattr(milvus_store.Store, "add", interrupted)
        monkeypatch.setattr(sys, "argv", ["splade", *command, "--token", "root:secret", "--token=root:secret"])
        assert run(command) == 130
        err = capsys.readouterr().err
        assert "8 documents are in 'splade'" in err
        assert f"Continue with this command, adding --token: splade index {corpus}" in err
        assert err.rstrip().endswith("--resume")
        assert "secret" not in err
        monkeypatch.setattr(milvus_store.Store, "add", add)
        assert run(["search", "thing 3", *uri, "--json", "-k", "20"]) == 0
        assert len(json.loads(capsys.readouterr().out)) == 8
        assert run(command) == 2
        assert "must be new, but" in capsys.readouterr().err
        assert run([*command, "--resume", "--json"]) == 0
        summary = json.loads(capsys.readouterr().out)
        assert (summary["added"], summary["already_there"]) == (2, 8)
        assert run([*command, "--resume", "--max-length", "32"]) == 2
        assert "must be continued with the models that it was made with" in capsys.readouterr().err
        assert run([*command, "--resume", "--max-active-dims", "8"]) == 2
        assert "document_max_active_dims 8" in capsys.readouterr().err
        assert run([*command, "--resume", "--dense", dense_model_path()]) == 2
        assert "the dense model None" in capsys.readouterr().err
        assert run([*command, "--replace", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["added"] == 10

    @pytest.mark.parametrize(
        ("failure", "message"),
        [
            (
                milvus_store.StoreError(message="[Errno 28] No space left on device"),
                "Milvus: [Errno 28] No space left on device.",
            ),
            (ConnectionResetError("the peer is gone."), "the peer is gone."),
            (
                UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no such."),
                r"'utf-8' codec can't encode character '\ud800' in position 0: no such.",
            ),
        ],
    )
    def test_a_store_that_fails_part_way_says_what_it_kept(
        self, corpus, tmp_path, model_folder, capsys, monkeypatch, failure, message
    ):
        monkeypatch.setattr("splade_integrations.cli.filling.CHUNK_ROWS", 2)
        add, calls = milvus_store.Store.add, []

        def failing(self, *arguments):
            if calls:
                raise failure
            calls.append(1)
            add(self, *arguments)

        command = ["index", str(corpus), "-m", model_folder, "--uri", str(tmp_path / "a.db")]
        monkeypatch.setattr(milvus_store.Store, "add", failing)
        assert run(command) == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("splade: ")]
        assert line == f"splade: {message} 2 documents were stored before this error. Fix its cause and use --resume."
        monkeypatch.setattr(milvus_store.Store, "add", add)
        assert run([*command, "--resume", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["added"] == 2

    def test_what_was_indexed_opens_in_langchain(self, corpus, tmp_path, model_folder, random_bert_folder, capsys):
        uri = str(tmp_path / "a.db")
        arguments = ["-m", model_folder, "--dense", dense_model_path(), "--uri", uri, "--max-length", "64"]
        assert run(["index", str(corpus), *arguments]) == 0
        sparse = SpladeSparseEmbedding(model_name=model_folder, max_length=64)
        store = hybrid_milvus(DeterministicFakeEmbedding(size=384), sparse, uri=uri, collection_name="splade")
        [found] = store.similarity_search("who barks", k=1, mode="sparse")
        assert (found.id, found.page_content) == ("dog", TEXTS[1])
        llama = HybridMilvusVectorStore(
            uri, collection_name="splade", sparse_embedding_function=LlamaSparse(model_name=model_folder, max_length=64)
        )
        [node] = llama.get_nodes(["dog"])
        assert (node.node_id, node.text, len(node.embedding)) == ("dog", TEXTS[1], 384)
        other = SpladeSparseEmbedding(model_name=model_folder, max_length=32)
        with pytest.raises(ValueError, match="must be used with the encoder that it was made with"):
            hybrid_milvus(DeterministicFakeEmbedding(size=384), other, uri=uri, collection_name="splade")
        capsys.readouterr()
        assert run(["search", "who barks", "--uri", uri, "-m", random_bert_folder]) == 2
        assert "the query's encoder must be the one that the collection was made with" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("options", "difference"),
        [
            ({"query_prompt": "query: "}, "query_prompt 'query: '"),
            ({"activation_function": "log1p_relu"}, "query_activation_function 'log1p_relu'"),
        ],
    )
    def test_a_collection_made_in_python_for_other_queries(self, tmp_path, model_folder, capsys, options, difference):
        uri = str(tmp_path / "a.db")
        sparse = SpladeSparseEmbedding(model_name=model_folder, **options)
        store = hybrid_milvus(DeterministicFakeEmbedding(size=8), sparse, uri=uri, collection_name="splade")
        store.add_texts(TEXTS[:2])
        assert run(["search", "who barks", "--uri", uri, "--mode", "sparse"]) == 2
        err = capsys.readouterr().err
        assert difference in err
        assert "Search from Python with the same options, or index again" in err

    def test_documents_cut_and_pruned_in_python_are_searched(self, tmp_path, model_folder, capsys):
        uri = str(tmp_path / "a.db")
        options = {
            "max_length": 64,
            "document_prompt": "document: ",
            "special_terms": "drop",
            "document_pruning": Pruning(max_active_dims=8, max_ratio=0.1),
        }
        sparse = SpladeSparseEmbedding(model_name=model_folder, **options)
        store = hybrid_milvus(DeterministicFakeEmbedding(size=8), sparse, uri=uri, collection_name="splade")
        store.add_texts(TEXTS[:2])
        assert run(["search", "who barks", "--uri", uri, "--mode", "sparse", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["text"] == TEXTS[1]

    def test_no_dense_side(self, corpus, tmp_path, model_folder, capsys):
        uri = ["--uri", str(tmp_path / "a.db")]
        assert run(["index", str(corpus), "-m", model_folder, *uri]) == 0
        assert run(["search", "cats", *uri, "--mode", "dense"]) == 2
        assert "needs dense vectors" in capsys.readouterr().err
        assert run(["search", "cats", *uri, "-c", "other"]) == 2
        assert "the collection 'other' must be in" in capsys.readouterr().err


class TestExplainAndInfo:
    def test_explain(self, model_folder, tmp_path, capsys):
        arguments = ["explain", "who cracked enigma", "Turing broke the Enigma cipher.", "-m", model_folder]
        outputs = ["--plot", str(tmp_path / "a.svg"), "--html", str(tmp_path / "a.html")]
        assert run([*arguments, *outputs]) == 0
        assert "Score" in capsys.readouterr().out
        assert (tmp_path / "a.svg").read_text().startswith("<?xml")
        assert "Enigma</span>" in (tmp_path / "a.html").read_text()
        assert run([*arguments, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["terms"][0]["token"] == "enigma"
        (tmp_path / "d.txt").write_text("The Enigma was broken.")
        assert run(["explain", "enigma", f"@{tmp_path / 'd.txt'}", "-m", model_folder, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["document"] == "The Enigma was broken."
        assert run([*arguments, "--plot", str(tmp_path / "a.gif")]) == 2

    def test_info(self, model_folder, tmp_path, capsys):
        assert run(["info", model_folder, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["architecture"], found["vocabulary"]) == ("BertForMaskedLM", 30522)
        for file in Path(model_folder).iterdir():
            (tmp_path / file.name).symlink_to(file)
        (tmp_path / "README.md").unlink(missing_ok=True)
        assert run(["info", str(tmp_path)]) == 0
        assert "not stated" in capsys.readouterr().out
        (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n")
        assert run(["info", str(tmp_path)]) == 0
        assert "apache-2.0" in capsys.readouterr().out
        (tmp_path / "my notes.db").mkdir()
        assert run(["info", str(tmp_path / "my notes.db")]) == 2
        assert f"splade info --uri '{tmp_path}/my notes.db'" in " ".join(capsys.readouterr().err.split())

    def test_info_says_what_applies_and_what_would_be_refused(self, model_folder, tmp_path, capsys, monkeypatch):
        def facts(folder):
            assert run(["info", str(folder), "--json"]) == 0
            return json.loads(capsys.readouterr().out)

        plain = facts(model_folder)
        expected = {"document_pruning": "all terms", "special_terms": "kept", "adapter": "none"}
        assert expected | {"would_be_refused": "no", "lower_case": "left to the tokenizer"} == {
            name: plain[name] for name in [*expected, "would_be_refused", "lower_case"]
        }
        v3 = tmp_path / "opensearch-neural-sparse-encoding-doc-v3-distill"
        shutil.copytree(model_folder, v3)
        (v3 / "idf.json").write_text("{}")
        assert facts(v3)["document_pruning"] == "terms with at least 0.1 of the largest weight"
        assert facts(v3)["query_pruning"] == "all terms"
        assert facts(v3)["special_terms"] == "dropped"
        (v3 / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "org/base"}')
        assert facts(v3)["adapter"] == "LORA adapter for 'org/base', merged into the weights"
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "peft" else find_spec(name))
        assert "pip install 'splade-integrations[peft]'" in facts(v3)["would_be_refused"]
        (v3 / "adapter_config.json").unlink()
        config = json.loads((v3 / "config.json").read_text())
        (v3 / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))
        assert facts(v3)["would_be_refused"].startswith("yes: a BertModel has no masked-LM head")
        (v3 / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": {"AutoConfig": "a.B"}}))
        assert "trust_remote_code=True" in facts(v3)["would_be_refused"]
        for weights in v3.glob("*.safetensors"):
            weights.rename(v3 / "model.onnx")
        assert run(["info", str(v3)]) == 2
        assert "got only ONNX files (model.onnx)" in capsys.readouterr().err


COMMANDS = ["encode", "index", "search", "explain", "evaluate", "info", "add-sparse", "copy", "compact", "serve"]
MODEL_OPTIONS = ["--device", "--dtype", "--backend", "--threads", "--max-active-dims", "--max-ratio", "--max-length"]


class TestHelp:
    @pytest.mark.parametrize("command", ["", *COMMANDS])
    def test_it_fits_80_columns(self, command, capsys):
        assert run([*command.split(), "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"Usage: splade {command}")
        assert max(map(len, lines)) <= 80
        assert not any("..." in line or "[bold]" in line for line in lines[1:])  # nothing is cut off or marked up

    @pytest.mark.parametrize(
        ("command", "options"),
        [
            ("encode", MODEL_OPTIONS),
            ("index", MODEL_OPTIONS),
            ("explain", MODEL_OPTIONS),
            ("evaluate", MODEL_OPTIONS),
            ("search", MODEL_OPTIONS[:4]),
            ("serve", MODEL_OPTIONS),
        ],
    )
    def test_model_options_have_a_section(self, command, options, capsys):
        assert run([command, "--help"]) == 0
        section = capsys.readouterr().out.partition("\nModel:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in section.splitlines() if line.startswith("  --")] == options

    def test_json_means_the_same_in_every_command(self):
        commands = typer.main.get_command(app).commands
        found = {name: [one for one in command.params if "--json" in one.opts] for name, command in commands.items()}
        assert found.keys() == set(COMMANDS)
        assert found.pop("serve") == []  # it runs until it is stopped, and has no result
        assert all(len(options) == 1 and options[0].is_flag for options in found.values())
        assert len({options[0].help for options in found.values()}) == 1

    def test_encode_prints_either_vectors_or_a_summary(self, corpus, model_folder, capsys):
        assert run(["encode", str(corpus), "-m", model_folder, "--json"]) == 2
        assert "--json must be given with --output" in capsys.readouterr().err

    def test_help_version_and_mistakes_load_nothing_heavy(self):
        code = f"""
import sys
from splade_integrations.cli.app import run
for command in {COMMANDS}:
    assert run([command, "--help"]) == 0
assert run(["--help"]) == run(["--version"]) == 0
assert run(["nonsense"]) == run(["encode", "--no-such"]) == run(["search", "a", "--uri", "/no/such.db"]) == 2
heavy = {{"torch", "transformers", "numpy", "scipy", "pyarrow", "pymilvus", "rich"}}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
        assert done.stderr.splitlines()[-1] == "[]"
