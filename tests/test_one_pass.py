"""One pass of BGE-M3 fills both sides of a store, through both frameworks."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode

from splade_integrations import OnePassEncoder, SpladeEncoder, langchain, llama_index
from tests.support.random_checkpoints import save_bge_m3

TEXTS = ["Alan Turing was born in London.", "the the cat", "", "Alan Turing was born in London.", "naïve café"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> SpladeEncoder:
    folder = tmp_path_factory.mktemp("bge-m3-small")
    save_bge_m3(folder)
    return SpladeEncoder(folder)


class Counting:
    """An encoder that counts the texts that it encodes."""

    def __init__(self, encoder: SpladeEncoder) -> None:
        self._encoder, self.fingerprint, self.texts = encoder, encoder.fingerprint, 0

    def encode_documents_with_dense(self, texts):
        self.texts += len(texts)
        return self._encoder.encode_documents_with_dense(texts)

    def encode_queries_with_dense(self, texts):
        self.texts += len(texts)
        return self._encoder.encode_queries_with_dense(texts)


@pytest.fixture
def counting(encoder) -> Counting:
    return Counting(encoder)


@pytest.mark.parametrize("role", ["documents", "queries"])
@pytest.mark.parametrize("first", ["sparse", "dense"])
def test_both_sides_equal_the_encoders(encoder, counting, role, first):
    both = OnePassEncoder(counting)
    calls = {"sparse": getattr(both, f"encode_{role}"), "dense": getattr(both, f"dense_{role}")}
    order = [first, *(side for side in calls if side != first)]
    found = {side: calls[side](TEXTS) for side in order}
    rows, dense = getattr(encoder, f"encode_{role}_with_dense")(TEXTS)
    np.testing.assert_allclose(found["sparse"].toarray(), rows.toarray(), atol=1e-5)
    np.testing.assert_allclose(found["dense"], dense, atol=1e-5)
    assert found["dense"].dtype == found["sparse"].dtype == np.float32
    assert counting.texts == len(set(TEXTS))
    calls[first](TEXTS)  # a side's rows are not kept after the side has got them
    assert counting.texts == 2 * len(set(TEXTS))


def test_no_texts(encoder):
    both = OnePassEncoder(encoder)
    assert both.encode_documents([]).shape == (0, encoder.dim)
    assert both.dense_queries([]).shape == (0, 32)


def test_queries_and_documents_are_kept_apart(counting):
    both = OnePassEncoder(counting)
    both.encode_documents(["a"])
    both.dense_queries(["a"])
    assert counting.texts == 2


def test_the_oldest_texts_are_forgotten_and_encoded_again(encoder, counting):
    both = OnePassEncoder(counting, remembered=2)
    both.encode_documents(["a", "b", "c"])
    assert len(both._kept) == 2
    dense = both.dense_documents(["a", "b", "c"])
    assert counting.texts == 4
    np.testing.assert_allclose(dense, encoder.encode_documents_with_dense(["a", "b", "c"])[1], atol=1e-5)


def test_threads_share_it(encoder):
    both = OnePassEncoder(encoder)
    texts = [[f"text {number} of {thread % 3}" for number in range(20)] for thread in range(12)]
    sides = [both.encode_documents, both.dense_documents]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda at: sides[at % 2](texts[at]), range(12)))
    for at, vectors in enumerate(found):
        expected = encoder.encode_documents_with_dense(texts[at])[at % 2]
        dense = vectors if at % 2 else vectors.toarray()
        np.testing.assert_allclose(dense, expected if at % 2 else expected.toarray(), atol=1e-5)


def test_langchain_encodes_each_text_once(counting, tmp_path):
    both = OnePassEncoder(counting)
    dense, sparse = langchain.DenseEmbedding(both), langchain.SpladeSparseEmbedding(encoder=both)
    assert isinstance(dense, Embeddings)
    store = langchain.hybrid_milvus(dense, sparse, uri=str(tmp_path / "l.db"))
    counting.texts = 0  # forget the text with which the store has asked for the dense dimension
    store.add_texts(["Alan Turing was born in London.", "Cats purr."])
    assert counting.texts == 2
    assert store.similarity_search("Alan Turing", k=1)[0].page_content == "Alan Turing was born in London."
    assert counting.texts == 3
    assert asyncio.run(store.asimilarity_search("Cats", k=1))[0].page_content == "Cats purr."
    assert counting.texts == 4


def test_llama_index_encodes_each_text_once(counting, tmp_path):
    both = OnePassEncoder(counting)
    sparse, dense = llama_index.SpladeSparseEmbedding(encoder=both), llama_index.DenseEmbedding(both)
    store = llama_index.HybridMilvusVectorStore(str(tmp_path / "i.db"), dim=32, sparse_embedding_function=sparse)
    nodes = [TextNode(text=text, id_=text) for text in ("Alan Turing was born in London.", "Cats purr.")]
    index = VectorStoreIndex(nodes, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=dense)
    assert counting.texts == 2
    [best] = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=1).retrieve(
        "Alan Turing was born in London."
    )
    assert best.node.get_content() == "Alan Turing was born in London."
    assert counting.texts == 3


def test_both_sides_may_be_asked_for_at_the_same_time(encoder):
    class Slow(Counting):
        def encode_queries_with_dense(self, texts):
            asked.wait(10)  # until the other side has asked, too
            return super().encode_queries_with_dense(texts)

    asked, slow = Event(), Slow(encoder)
    both = OnePassEncoder(slow)
    with ThreadPoolExecutor(2) as pool:
        rows = pool.submit(both.encode_queries, ["a"])
        while not both._kept:
            pass
        dense = pool.submit(both.dense_queries, ["a"])
        asked.set()
        assert rows.result().shape == (1, encoder.dim)
        assert dense.result().shape == (1, 32)
    assert slow.texts == 1


def test_an_error_is_not_kept(encoder, counting):
    both, encode = OnePassEncoder(counting), counting.encode_queries_with_dense
    counting.encode_queries_with_dense = lambda texts: 1 / 0
    with pytest.raises(ZeroDivisionError):
        both.dense_queries(["a"])
    counting.encode_queries_with_dense = encode
    assert both.encode_queries(["a"]).nnz == encoder.encode_queries(["a"]).nnz
    assert both.dense_queries(["a"]).shape == (1, 32)
    assert counting.texts == 1


def test_bad_arguments(counting):
    with pytest.raises(TypeError, match=r"must have encode_documents_with_dense.*got object\. Pass a SpladeEncoder of"):
        OnePassEncoder(object())
    with pytest.raises(ValueError, match="remembered must be at least 1, got 0"):
        OnePassEncoder(counting, remembered=0)
    with pytest.raises(TypeError, match="texts must be a list"):
        OnePassEncoder(counting).encode_documents("a")
    for adapter in (langchain.DenseEmbedding, llama_index.DenseEmbedding):
        with pytest.raises(TypeError, match=r"must be a OnePassEncoder, got Counting\. Wrap the encoder once"):
            adapter(counting)
