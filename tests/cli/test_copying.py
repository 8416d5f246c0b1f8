"""`splade add-sparse` and `splade copy` say what they did, what they would do, and what to do next."""

import itertools
import json

import pytest
from pymilvus import MilvusClient

from splade_integrations.cli.app import run
from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
from splade_integrations.milvus.copying.table import Table
from tests.support.adapters import HashEmbeddings
from tests.support.collections import dump

TEXTS = {"cat": "Cats purr when they are content.", "dog": "Dogs bark at strangers.", "spider": "Spiders weave webs."}


@pytest.fixture
def uri(tmp_path):
    """Return a file with a collection of dense vectors. The collection has the alias "current"."""
    uri = str(tmp_path / "dense.db")
    store = hybrid_milvus(HashEmbeddings(), None, uri=uri, collection_name="animals")
    store.add_texts(list(TEXTS.values()), [{"legs": 4}, {"legs": 4}, {"legs": 8}], ids=list(TEXTS))
    store.client.create_alias("animals", "current")
    store.client.close()
    return uri


def test_a_dense_collection_becomes_hybrid(uri, model_folder, encoder, capsys):
    arguments = ["add-sparse", "--uri", uri, "-c", "current", "-m", model_folder, "--max-length", "256"]
    assert run([*arguments, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "'animals' has 3 rows. The collection 'animals_splade' would take about" in said
    assert "hours on this machine" in said
    assert run([*arguments, "--dry-run", "--resume"]) == 2
    assert "--dry-run must be given without --resume and --replace" in capsys.readouterr().err
    assert run(arguments) == 0
    said = capsys.readouterr().out
    assert "'animals_splade' of" in said
    assert "3 rows, SPLADE vectors in the field 'sparse'. 3 written and 0 deleted in 2 comparisons" in said
    line = said.splitlines()[-1].strip()
    assert line == f'MilvusClient("{uri}").alter_alias("animals_splade", "current")'
    assert run(arguments) == 2
    assert "the name of a copy of 'animals'" in capsys.readouterr().err
    assert run([*arguments, "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 0
    exec(line, {"MilvusClient": MilvusClient})  # runs the line that the command has printed
    store = hybrid_milvus(HashEmbeddings(), SpladeSparseEmbedding(encoder=encoder), uri=uri, collection_name="current")
    found = store.similarity_search("a barking dog", k=1, mode="sparse", filter={"legs": 4})
    assert [document.id for document in found] == ["dog"]
    assert store.add_texts(["Birds sing."], [{"legs": 2}], ids=["bird"]) == ["bird"]


def test_an_original_that_never_rests_ends_with_the_number_of_rows(uri, model_folder, capsys, monkeypatch):
    write, numbers = Table.write, itertools.count()

    def write_and_change(table, rows, partition):  # stands for a program that adds a row after each write
        write(table, rows, partition)
        new = {**strip(rows[0]), "pk": f"new {next(numbers)}"}
        table.connection.client.insert("animals", [new])

    monkeypatch.setattr(Table, "write", write_and_change)
    assert run(["add-sparse", "--uri", uri, "-c", "animals", "-m", model_folder]) == 2
    assert "'animals' must stop changing, got 1 changed rows in the last comparison" in capsys.readouterr().err


def strip(row):
    return {key: value for key, value in row.items() if key != "sparse"}


def test_a_collection_is_compacted(uri, tmp_path, capsys):
    MilvusClient(uri).delete("animals", ["cat"])
    before = dump(MilvusClient(uri), "animals")
    assert run(["compact", "--uri", uri, "-c", "current"]) == 0
    assert "'animals' of" in (said := capsys.readouterr().out)
    assert "2 rows" in said
    assert "alias" not in said
    assert dump(MilvusClient(uri), "animals") == before
    assert run(["compact", "--uri", uri, "-c", "missing"]) == 2
    assert "'missing'" in capsys.readouterr().err


def test_a_file_is_copied_to_another_place(uri, tmp_path, capsys):
    to = str(tmp_path / "other.db")
    arguments = ["copy", "--uri", uri, "-c", "animals", "--to", to]
    assert run([*arguments, "--dry-run"]) == 0
    assert "'animals' has 3 rows" in capsys.readouterr().out
    assert run([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 3
    assert dump(MilvusClient(to), "animals") == dump(MilvusClient(uri), "animals")
    assert run(["copy", "--uri", str(tmp_path / "none.db"), "--to", to]) == 2
    assert "none.db must be a Milvus file, but it does not exist" in capsys.readouterr().err
