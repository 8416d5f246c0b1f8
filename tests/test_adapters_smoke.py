"""Hybrid search through each adapter that is installed here: add texts, search each vector field, reopen the store.

This file also runs with milvus-lite 2. The other tests of the adapters are in tests/langchain and tests/llama_index.
Some of them pass only on milvus-lite 3.
"""

import importlib.metadata
import importlib.util
import re
import zlib

import numpy as np
import pytest

TEXTS = {
    "turing": "Alan Turing broke the Enigma cipher.",
    "lovelace": "Ada Lovelace wrote the first program.",
    "hopper": "Grace Hopper made the first compiler.",
}
QUESTION = "Who cracked the Enigma code?"
# With milvus-lite 2, the LangChain test names the default fusion and its parameter explicitly.
OLD = importlib.metadata.version("milvus-lite").startswith("2.")
FUSION = {"ranker_type": "rrf", "ranker_params": {"k": 60}} if OLD else {}


def needs(module, reason):
    try:
        present = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        present = False
    return pytest.mark.skipif(not present, reason=reason)


def word_vector(text):
    """Return a dense embedding that counts words. Texts that share words get vectors that are close."""
    counts = np.full(64, 0.01)  # more than 0, because a text without words must also have a direction
    for word in re.findall(r"\w+", text.lower()):
        counts[zlib.crc32(word.encode()) % 64] += 1
    return (counts / np.linalg.norm(counts)).tolist()


@needs("langchain_milvus", "langchain-milvus is not installed in this environment")
def test_langchain(encoder, tmp_path):
    from langchain_core.embeddings import Embeddings

    from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus

    class Dense(Embeddings):
        def embed_documents(self, texts):
            return [word_vector(text) for text in texts]

        def embed_query(self, text):
            return word_vector(text)

    def store():
        return hybrid_milvus(Dense(), SpladeSparseEmbedding(encoder=encoder), uri=tmp_path / "smoke.db")

    store().add_texts([*TEXTS.values(), ""], ids=[*TEXTS, "empty"])
    for opened in (store(), store()):
        for mode in ("sparse", "dense"):
            assert opened.similarity_search(QUESTION, k=1, mode=mode)[0].id == "turing"
        assert opened.similarity_search(QUESTION, k=4, **FUSION)[0].id == "turing"
        assert {found.id for found in opened.similarity_search(QUESTION, k=4, **FUSION)} == {*TEXTS, "empty"}


@needs("llama_index.core", "LlamaIndex is not installed in this environment")
def test_llama_index(encoder, tmp_path):
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

    from splade_integrations.llama_index import HybridMilvusVectorStore, SpladeSparseEmbedding

    def store():
        sparse = SpladeSparseEmbedding(encoder=encoder)
        return HybridMilvusVectorStore(tmp_path / "smoke.db", dim=64, sparse_embedding_function=sparse)

    store().add([TextNode(id_=name, text=text, embedding=word_vector(text)) for name, text in TEXTS.items()])
    for opened in (store(), store()):
        for mode in ("sparse", "default", "hybrid"):
            query = VectorStoreQuery(
                query_str=QUESTION,
                query_embedding=word_vector(QUESTION),
                similarity_top_k=1,
                mode=VectorStoreQueryMode(mode),
            )
            assert opened.query(query).ids == ["turing"]
