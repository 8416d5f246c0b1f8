"""One interface for all embeddings and one for both stores, so that one test suite covers all adapters."""

import asyncio
import hashlib

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from scipy.sparse import csr_array

from splade_integrations import to_dicts
from splade_integrations.langchain import SpladeSparseEmbedding as LangChainEmbedding
from splade_integrations.langchain import hybrid_milvus
from splade_integrations.milvus import SpladeEmbeddingFunction

DIM = 16


def unit_vector(text):
    """Return a vector of length 1 that depends only on the text and has no meaning."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    vector = np.random.default_rng(seed).normal(size=DIM)
    return (vector / np.linalg.norm(vector)).tolist()


class HashEmbeddings(Embeddings):
    def embed_query(self, text):
        return unit_vector(text)

    def embed_documents(self, texts):
        return [unit_vector(text) for text in texts]


class WordCounts:
    """An encoder with one dimension per word, so that "" has no active term. It records its batch sizes."""

    def __init__(self):
        self.vocabulary, self.batches = {}, []

    def encode_documents(self, texts):
        self.batches.append(len(texts))
        rows = [
            (row, self.vocabulary.setdefault(w, len(self.vocabulary))) for row, t in enumerate(texts) for w in t.split()
        ]
        row_ids, term_ids = zip(*rows, strict=True) if rows else ((), ())
        return csr_array((np.ones(len(rows), np.float32), (row_ids, term_ids)), shape=(len(texts), 2000))

    encode_queries = encode_documents


# The adapters for embeddings. They are opened with an encoder or with a model's name, and return rows as dicts.


class LangChain:
    of_encoder, by_name = LangChainEmbedding, LangChainEmbedding
    documents = staticmethod(lambda made, texts: made.embed_documents(texts))
    queries = staticmethod(lambda made, texts: [made.embed_query(text) for text in texts])
    adocuments = staticmethod(lambda made, texts: made.aembed_documents(texts))

    @staticmethod
    async def aqueries(made, texts):
        return list(await asyncio.gather(*map(made.aembed_query, texts)))


class DropIn:
    of_encoder, aqueries, adocuments = None, None, None

    @staticmethod
    def by_name(model_name, **options):
        return SpladeEmbeddingFunction(model_name, **options)

    documents = staticmethod(lambda made, texts: to_dicts(made.encode_documents(texts)))
    queries = staticmethod(lambda made, texts: to_dicts(made.encode_queries(texts)))


EMBEDDINGS = {"LangChain": LangChain, "drop-in": DropIn}


# The adapters for stores. They are opened with an encoder. A document is a tuple (id, text, metadata).


class LangChainStore:
    @staticmethod
    def open(encoder, uri, collection_name="contract", **options):
        # With this option, a search for a word in the metadata finds the document.
        options = {"embed_metadata": ["author"]} | options
        sparse = LangChainEmbedding(encoder=encoder)
        return hybrid_milvus(HashEmbeddings(), sparse, uri=uri, collection_name=collection_name, **options)

    @staticmethod
    def add(store, documents):
        return store.add_documents([Document(text, id=key, metadata=metadata) for key, text, metadata in documents])

    @staticmethod
    def aadd(store, documents):
        return store.aadd_documents([Document(text, id=key, metadata=metadata) for key, text, metadata in documents])

    @staticmethod
    def search(store, text, mode="hybrid", k=4, where=None):
        expr = None if where is None else f"{where[0]} == '{where[1]}'"
        return [document.id for document in store.similarity_search(text, k=k, mode=mode, expr=expr)]

    @staticmethod
    async def asearch(store, text, mode="hybrid", k=4):
        return [document.id for document in await store.asimilarity_search(text, k=k, mode=mode)]

    @staticmethod
    def embedded(key, text, metadata):
        return f"author: {metadata['author']}\n\n{text}"

    @staticmethod
    def delete(store, keys):
        store.delete(ids=keys)


STORES = {"LangChain": LangChainStore}

try:
    from llama_index.core.schema import MetadataMode, TextNode
    from llama_index.core.vector_stores.types import (
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
    )

    from splade_integrations.llama_index import HybridMilvusVectorStore
    from splade_integrations.llama_index import SpladeSparseEmbedding as LlamaIndexEmbedding
except ImportError:  # in the test environment with pymilvus 3, which LlamaIndex's store does not support yet
    pass
else:

    class LlamaIndexCore:
        of_encoder, by_name = LlamaIndexEmbedding, LlamaIndexEmbedding
        documents = staticmethod(lambda made, texts: made.get_text_embedding_batch(texts))
        queries = staticmethod(lambda made, texts: [made.get_query_embedding(text) for text in texts])
        adocuments = staticmethod(lambda made, texts: made.aget_text_embedding_batch(texts))

        @staticmethod
        async def aqueries(made, texts):
            return list(await asyncio.gather(*map(made.aget_query_embedding, texts)))

    class LlamaIndexMilvus:
        of_encoder, by_name = LlamaIndexEmbedding, LlamaIndexEmbedding
        documents = staticmethod(lambda made, texts: made.encode_documents(texts))
        queries = staticmethod(lambda made, texts: made.encode_queries(texts))
        adocuments = staticmethod(lambda made, texts: made.async_encode_documents(texts))
        aqueries = staticmethod(lambda made, texts: made.async_encode_queries(texts))

    EMBEDDINGS |= {"LlamaIndex core": LlamaIndexCore, "LlamaIndex Milvus": LlamaIndexMilvus}

    class LlamaIndexStore:
        @staticmethod
        def open(encoder, uri, collection_name="contract", **options):
            sparse = LlamaIndexEmbedding(encoder=encoder)
            options = {"dim": DIM} | options
            overwrite = {"overwrite": True} if options.pop("drop_old", False) else {}
            return HybridMilvusVectorStore(
                uri, collection_name=collection_name, sparse_embedding_function=sparse, **options, **overwrite
            )

        @staticmethod
        def nodes(documents):
            nodes = [TextNode(id_=key, text=text, metadata=metadata) for key, text, metadata in documents]
            for node in nodes:
                node.embedding = unit_vector(node.get_content(metadata_mode=MetadataMode.EMBED))
            return nodes

        @staticmethod
        def embedded(*document):
            return LlamaIndexStore.nodes([document])[0].get_content(metadata_mode=MetadataMode.EMBED)

        @staticmethod
        def add(store, documents):
            return store.add(LlamaIndexStore.nodes(documents))

        @staticmethod
        def aadd(store, documents):
            return store.async_add(LlamaIndexStore.nodes(documents))

        @staticmethod
        def query(text, mode, k, where=None):
            filters = where and MetadataFilters(filters=[MetadataFilter(key=where[0], value=where[1])])
            mode = VectorStoreQueryMode({"dense": "default"}.get(mode, mode))
            return VectorStoreQuery(
                query_embedding=unit_vector(text), query_str=text, mode=mode, similarity_top_k=k, filters=filters
            )

        @staticmethod
        def search(store, text, mode="hybrid", k=4, where=None):
            return store.query(LlamaIndexStore.query(text, mode, k, where)).ids

        @staticmethod
        async def asearch(store, text, mode="hybrid", k=4):
            return (await store.aquery(LlamaIndexStore.query(text, mode, k))).ids

        @staticmethod
        def delete(store, keys):
            store.delete_nodes(keys)

    STORES["LlamaIndex"] = LlamaIndexStore


def count(store):
    rows = store.client.query(store.collection_name, filter="", output_fields=["count(*)"], consistency_level="Strong")
    return rows[0]["count(*)"]
