"""Fixtures for LlamaIndex's store, on a milvus-lite file and, if MILVUS_URI is set, on a server."""

import os
from pathlib import Path

import pytest

collect_ignore_glob = []
try:
    import llama_index.core  # noqa: F401
except ImportError:  # an environment without LlamaIndex
    collect_ignore_glob = ["test_*.py"]
else:
    from pymilvus import MilvusClient

    from splade_integrations.llama_index import HybridMilvusVectorStore, SpladeSparseEmbedding
    from tests.llama_index.support import HashEmbedding
    from tests.support.adapters import DIM, WordCounts, server_options

    @pytest.fixture(scope="session")
    def dense():
        return HashEmbedding()

    @pytest.fixture(scope="session")
    def sparse(encoder):
        return SpladeSparseEmbedding(encoder=encoder)

    @pytest.fixture
    def word_counts():
        """Return a sparse embedding with one dimension for each word."""
        return SpladeSparseEmbedding(encoder=WordCounts())

    @pytest.fixture
    def uri(tmp_path):
        return str(tmp_path / "test.db")

    @pytest.fixture(params=["milvus-lite", pytest.param("server", marks=pytest.mark.server)])
    def place(request, tmp_path):
        """Return the keyword arguments that open a store, including the uri."""
        if request.param == "milvus-lite":
            yield {"uri": str(tmp_path / "test.db")}
            return
        if not os.environ.get("MILVUS_URI"):
            pytest.skip("needs a Milvus server: set MILVUS_URI, and MILVUS_TOKEN if the server needs a token")
        options = server_options()
        yield options
        client = MilvusClient(uri=options["uri"], token=options["token"])
        client.drop_collection(options["collection_name"])
        client.close()

    @pytest.fixture
    def store(sparse, place):
        """Return an empty store that uses the trained model."""
        return HybridMilvusVectorStore(**place, dim=DIM, sparse_embedding_function=sparse)

    @pytest.fixture
    def words(word_counts, place):
        """Return an empty store that uses counts of words."""
        return HybridMilvusVectorStore(**place, dim=DIM, sparse_embedding_function=word_counts)

    @pytest.fixture(scope="session")
    def prose() -> list[str]:
        """Return 150 texts of nine words each."""
        import asyncio

        found = Path(asyncio.__file__).with_name("base_events.py").read_text().split()
        return [" ".join(found[start : start + 9]) for start in range(0, 9 * 150, 9)]
