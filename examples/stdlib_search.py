"""Fill and search the demo's two stores, one through LangChain and one through LlamaIndex, with the same models."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from dense import MiniLM
from langchain_core.embeddings import Embeddings
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from pymilvus import MilvusClient
from scipy.sparse import csr_array
from stdlib_corpus import Entry

from splade_integrations import SpladeEncoder
from splade_integrations.langchain import SpladeSparseEmbedding as LangChainSparse
from splade_integrations.langchain import hybrid_milvus
from splade_integrations.llama_index import HybridMilvusVectorStore
from splade_integrations.llama_index import SpladeSparseEmbedding as LlamaIndexSparse
from splade_integrations.sparse import concatenate

__all__ = ["Models", "Search", "Side", "langchain_search", "llama_index_search"]

Side = Literal["dense", "sparse", "hybrid"]


class Search(Protocol):
    """A function that searches one store."""

    def __call__(self, question: str, side: Side, k: int) -> list[str]:
        """Return the names of the k best entries, best first."""
        ...


class EncodedOnce:
    """Encodes the corpus at the first call, and keeps the rows for both stores. Each call returns some texts' rows."""

    def __init__(self, encode: Callable[..., Any], corpus: Sequence[str]) -> None:
        self._encode = encode
        self._corpus = corpus
        self._row_of = {text: row for row, text in enumerate(corpus)}
        self._rows: Any = None
        self.seconds = 0.0  # how long encoding took

    def __call__(self, texts: Sequence[str]) -> Any:
        if self._rows is None:
            started = time.perf_counter()
            self._rows = self._encode(self._corpus, show_progress=True)
            self.seconds = time.perf_counter() - started
        return self._rows[[self._row_of[text] for text in texts]]


class Models:
    """One SPLADE encoder and one dense model, for both frameworks.

    This class has the methods `encode_documents` and `encode_queries`, so the adapters accept its instances as
    encoders.

    Args:
        encoder: The SPLADE encoder.
        dense: The dense model.
        entries: The corpus.
    """

    def __init__(self, encoder: SpladeEncoder, dense: MiniLM, entries: Sequence[Entry]) -> None:
        pages = [entry.page for entry in entries]
        self.encoder = encoder
        self.dense = dense
        self.sparse_rows = EncodedOnce(encoder.encode_documents, pages)
        self.dense_rows = EncodedOnce(dense.encode, pages)
        # {question: its dense and its sparse row}. Rows are kept, because two stores use them, each in three searches.
        self._queries: dict[str, tuple[list[float], csr_array]] = {}

    def encode_documents(self, texts: Sequence[str]) -> csr_array:
        rows: csr_array = self.sparse_rows(texts)
        return rows

    def encode_queries(self, texts: Sequence[str]) -> csr_array:
        self.encode_queries_together(texts)
        return concatenate([self._queries[text][1] for text in texts], self.encoder.dim)

    def embed_query(self, text: str) -> list[float]:
        self.encode_queries_together([text])
        return self._queries[text][0]

    def encode_queries_together(self, texts: Sequence[str]) -> None:
        """Encode the questions that are new, with both models, and keep their rows."""
        new = [text for text in dict.fromkeys(texts) if text not in self._queries]
        if new:
            dense, sparse = self.dense.embed_documents(new), self.encoder.encode_queries(new)
            self._queries |= {text: (dense[row], sparse[[row]]) for row, text in enumerate(new)}


class LangChainDense(Embeddings):
    """The dense model as one of LangChain's embeddings."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        rows: list[list[float]] = self._models.dense_rows(texts).tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        return self._models.embed_query(text)


class LlamaIndexDense(BaseEmbedding):
    """The dense model as one of LlamaIndex's embeddings. It encodes only queries: nodes already have vectors."""

    _models: Models = PrivateAttr()

    def __init__(self, models: Models) -> None:
        super().__init__(model_name="all-MiniLM-L6-v2")
        self._models = models

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._models.embed_query(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._models.embed_query(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._models.embed_query(text)


def langchain_search(entries: Sequence[Entry], models: Models, uri: str, token: str = "") -> Search:
    """Open LangChain's collection, fill it if it does not hold all entries, and return a search function."""
    name = "stdlib_langchain"
    sparse = LangChainSparse(encoder=models)
    store = hybrid_milvus(LangChainDense(models), sparse, uri=uri, token=token or None, collection_name=name)
    if _count(store.client, name) != len(entries):
        store.add_texts([entry.page for entry in entries], ids=[entry.name for entry in entries])

    def search(question: str, side: Side, k: int) -> list[str]:
        return [str(document.id) for document in store.similarity_search(question, k=k, mode=side)]

    return search


def llama_index_search(entries: Sequence[Entry], models: Models, uri: str, token: str = "") -> Search:
    """Open LlamaIndex's collection, fill it if it does not hold all entries, and return a search function."""
    name = "stdlib_llama_index"
    sparse = LlamaIndexSparse(encoder=models)
    store = HybridMilvusVectorStore(
        uri=uri, token=token, collection_name=name, dim=models.dense.dim, sparse_embedding_function=sparse
    )
    if _count(store.client, name) != len(entries):
        embeddings = models.dense_rows([entry.page for entry in entries]).tolist()
        store.add(
            [
                TextNode(id_=entry.name, text=entry.page, embedding=embedding)
                for entry, embedding in zip(entries, embeddings, strict=True)
            ]
        )
    index = VectorStoreIndex.from_vector_store(store, embed_model=LlamaIndexDense(models))
    modes = {
        "dense": VectorStoreQueryMode.DEFAULT,
        "sparse": VectorStoreQueryMode.SPARSE,
        "hybrid": VectorStoreQueryMode.HYBRID,
    }

    def search(question: str, side: Side, k: int) -> list[str]:
        retriever = index.as_retriever(vector_store_query_mode=modes[side], similarity_top_k=k)
        return [hit.node.node_id for hit in retriever.retrieve(question)]

    return search


def _count(client: MilvusClient, collection: str) -> int:
    """Return the number of rows in a collection, or 0 if the collection does not exist."""
    if not client.has_collection(collection):
        return 0
    return int(client.query(collection, output_fields=["count(*)"])[0]["count(*)"])
