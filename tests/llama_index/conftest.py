"""Fixtures for LlamaIndex's store, on a milvus-lite file and, if MILVUS_URI is set, on a server."""

from pathlib import Path

import pytest

collect_ignore_glob = []
try:
    import llama_index.core  # noqa: F401
except ImportError:  # an environment without LlamaIndex
    collect_ignore_glob = ["test_*.py"]
else:
    from splade_integrations.llama_index import HybridMilvusVectorStore, SpladeSparseEmbedding
    from tests.llama_index.support import HashEmbedding
    from tests.support.adapters import DIM, WordCounts
    from tests.support.places import PLACES, new_place

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

    @pytest.fixture(params=PLACES)
    def place(request, tmp_path):
        """Return the keyword arguments that open a store, including the uri."""
        with new_place(request.param, tmp_path) as options:
            yield options

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
