"""Tests of our embedding in LlamaIndex's own Milvus store, which needs pymilvus 2."""

import asyncio

import pytest

from tests.llama_index.support import animals, ask, node
from tests.support.adapters import DIM

stock = pytest.importorskip("llama_index.vector_stores.milvus", reason="LlamaIndex's own store is not installed")


@pytest.fixture
def stock_store(sparse, uri):
    return stock.MilvusVectorStore(
        uri, dim=DIM, enable_sparse=True, sparse_embedding_function=sparse, use_async_client=False
    )


def test_hybrid_search(stock_store):
    stock_store.add([*animals(), node("blank", "   ")])
    found = stock_store.query(ask("a dog that barks", k=5))
    assert set(found.ids) == {"cat", "dog", "sparrow", "spider", "blank"}
    assert max(found.similarities) <= 2 / 61


def test_async(sparse, uri):
    async def use_it():
        store = stock.MilvusVectorStore(uri, dim=DIM, enable_sparse=True, sparse_embedding_function=sparse)
        await store.async_add(animals())
        return (await store.aquery(ask("a dog that barks", k=4))).ids

    assert set(asyncio.run(use_it())) == {"cat", "dog", "sparrow", "spider"}
