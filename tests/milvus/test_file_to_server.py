"""A copy of a milvus-lite file serves as the data of milvus-lite's server, as docs/servers.md says."""

import shutil

import pytest
from pymilvus import MilvusClient

from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
from tests.support.adapters import HashEmbeddings, WordCounts
from tests.support.server import milvus_lite_server


def test_a_files_collections_are_on_the_server(tmp_path):
    file, folder = tmp_path / "milvus.db", tmp_path / "milvus-data"

    def search(uri):
        store = hybrid_milvus(HashEmbeddings(), SpladeSparseEmbedding(encoder=encoder), uri=uri)
        return store, lambda: [found.id for found in store.similarity_search("dogs bark", k=1)]

    encoder = WordCounts()
    store, ask = search(str(file))
    store.add_texts(["dogs bark", "cats purr"], ids=["dog", "cat"])
    assert ask() == ["dog"]
    store.client.close()
    if file.is_file():
        pytest.skip("milvus-lite 2 keeps a database in one file, and has no server")
    shutil.copytree(file, folder)
    with milvus_lite_server(folder) as uri:
        client = MilvusClient(uri=uri)
        assert client.list_collections() == ["LangChainCollection"]
        client.close()
        _, ask = search(uri)
        assert ask() == ["dog"]
