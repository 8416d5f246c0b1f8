"""Re-indexing behind an alias works on a real milvus-lite file."""

import importlib.metadata

import pytest
from pymilvus import MilvusClient

pytestmark = pytest.mark.skipif(
    importlib.metadata.version("milvus-lite").startswith("2."), reason="milvus-lite 2.5.1 has no aliases"
)


def texts_of(client, name):
    return sorted(row["text"] for row in client.query(name, filter="", output_fields=["text"], limit=10))


def filler(client, text):
    def fill(collection):
        client.create_collection(collection, dimension=2)
        client.insert(collection, [{"id": 1, "vector": [1.0, 0.0], "text": text}])

    return fill


def test_the_alias_names_the_new_collection_when_it_is_full(tmp_path, import_example):
    reindex_behind_alias = import_example("reindex_behind_alias").reindex_behind_alias
    client = MilvusClient(str(tmp_path / "alias.db"))
    reindex_behind_alias(client, "docs", "docs_1", filler(client, "old"))
    assert texts_of(client, "docs") == ["old"]

    def fails(collection):
        filler(client, "half")(collection)
        raise RuntimeError("the machine went away")

    with pytest.raises(RuntimeError):
        reindex_behind_alias(client, "docs", "docs_2", fails)
    assert texts_of(client, "docs") == ["old"]
    assert client.list_collections() == ["docs_1"]

    reindex_behind_alias(client, "docs", "docs_2", filler(client, "new"), drop_old=False)
    assert texts_of(client, "docs") == ["new"]
    assert sorted(client.list_collections()) == ["docs_1", "docs_2"]
    with pytest.raises(ValueError, match="docs_1"):
        reindex_behind_alias(client, "docs", "docs_1", filler(client, "again"))
    with pytest.raises(ValueError, match="alias must not be the name of a collection"):
        reindex_behind_alias(client, "docs_1", "docs_3", filler(client, "again"))
    client.close()


def test_the_example_runs(tmp_path, import_example, capsys):
    import_example("reindex_behind_alias").main(str(tmp_path / "example.db"))
    assert capsys.readouterr().out.splitlines() == [
        "first:  ['turing']",
        "second: ['bletchley']",
        "collections: ['docs_2']",
    ]
