"""Runs LangChain's standard tests for vector stores on stores with one, two and three sides.

Each store is tested on a milvus-lite file and, if MILVUS_URI is set, on a server.
"""

import pytest
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus


class OverACollection(VectorStoreIntegrationTests):
    """The whole standard suite. No property is overridden, and no test is left out."""

    sides = ("dense", "sparse")

    @pytest.fixture
    def vectorstore(self, place, encoder):
        dense = self.get_embeddings() if "dense" in self.sides else None
        sparse = SpladeSparseEmbedding(encoder=encoder) if "sparse" in self.sides else None
        store = hybrid_milvus(dense, sparse, bm25="bm25" in self.sides, **place)
        assert not store.collection.exists()
        return store


class TestDense(OverACollection):
    sides = ("dense",)


class TestSparse(OverACollection):
    sides = ("sparse",)


class TestHybrid(OverACollection):
    pass


class TestThreeSides(OverACollection):
    sides = ("dense", "sparse", "bm25")
