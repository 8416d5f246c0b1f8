"""LangChain's standard suite for vector stores, over each choice of sides, on a milvus-lite file and on a server."""

import os

import pytest
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
from tests.support.adapters import server_options


class OverACollection(VectorStoreIntegrationTests):
    """The suite as it is: no property is overridden, no test is left out."""

    sides = ("dense", "sparse")

    @pytest.fixture(params=["milvus-lite", pytest.param("server", marks=pytest.mark.server)])
    def place(self, request, tmp_path):
        if request.param == "milvus-lite":
            return {"uri": str(tmp_path / "standard.db")}
        if not os.environ.get("MILVUS_URI"):
            pytest.skip("needs a Milvus server: set MILVUS_URI, and MILVUS_TOKEN where it asks for one")
        return server_options()

    @pytest.fixture
    def vectorstore(self, place, encoder):
        dense = self.get_embeddings() if "dense" in self.sides else None
        sparse = SpladeSparseEmbedding(encoder=encoder) if "sparse" in self.sides else None
        store = hybrid_milvus(dense, sparse, **place)
        yield store
        if store.collection.exists():
            store.client.drop_collection(store.collection_name)


class TestDense(OverACollection):
    sides = ("dense",)


class TestSparse(OverACollection):
    sides = ("sparse",)


class TestHybrid(OverACollection):
    pass
