"""Hybrid search through each adapter that this environment has: add, search each side, reopen. Every lane runs it.

tests/langchain and tests/llama_index hold the rest; some of it is about what milvus-lite 3 alone does.
"""

import importlib.metadata
import importlib.util

import pytest
from dense import MiniLM

TEXTS = {
    "turing": "Alan Turing broke the Enigma cipher.",
    "lovelace": "Ada Lovelace wrote the first program.",
    "hopper": "Grace Hopper made the first compiler.",
}
QUESTION = "Who cracked the Enigma code?"
# milvus-lite 2.5.1, and servers before 2.6, know fusion by its old name alone, which `hybrid_milvus` says.
OLD = importlib.metadata.version("milvus-lite").startswith("2.")
FUSION = {"ranker_type": "rrf", "ranker_params": {"k": 60}} if OLD else {}


def needs(module, reason):
    try:
        present = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        present = False
    return pytest.mark.skipif(not present, reason=reason)


@pytest.fixture(scope="module")
def minilm():
    return MiniLM()


@needs("langchain_milvus", "langchain-milvus is not installed in this lane")
def test_langchain(minilm, encoder, tmp_path):
    from langchain_core.embeddings import Embeddings

    from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus

    class Dense(Embeddings):
        embed_documents, embed_query = staticmethod(minilm.embed_documents), staticmethod(minilm.embed_query)

    def store():
        return hybrid_milvus(Dense(), SpladeSparseEmbedding(encoder=encoder), uri=tmp_path / "smoke.db")

    store().add_texts([*TEXTS.values(), ""], ids=[*TEXTS, "empty"])
    for opened in (store(), store()):
        for mode in ("sparse", "dense"):
            assert opened.similarity_search(QUESTION, k=1, mode=mode)[0].id == "turing"
        assert opened.similarity_search(QUESTION, k=4, **FUSION)[0].id == "turing"
        assert {found.id for found in opened.similarity_search(QUESTION, k=4, **FUSION)} == {*TEXTS, "empty"}


@needs("llama_index.core", "LlamaIndex is not installed in this lane")
def test_llama_index(minilm, encoder, tmp_path):
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

    from splade_integrations.llama_index import HybridMilvusVectorStore, SpladeSparseEmbedding

    def store():
        sparse = SpladeSparseEmbedding(encoder=encoder)
        return HybridMilvusVectorStore(tmp_path / "smoke.db", dim=384, sparse_embedding_function=sparse)

    store().add([TextNode(id_=name, text=text, embedding=minilm.embed_query(text)) for name, text in TEXTS.items()])
    for opened in (store(), store()):
        for mode in ("sparse", "default", "hybrid"):
            query = VectorStoreQuery(
                query_str=QUESTION,
                query_embedding=minilm.embed_query(QUESTION),
                similarity_top_k=1,
                mode=VectorStoreQueryMode(mode),
            )
            assert opened.query(query).ids == ["turing"]
