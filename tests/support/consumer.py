"""A user's program. `make types` checks its types strictly, with mypy and pyright. The program is never run."""

from collections.abc import Iterator

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from llama_index.core.schema import TextNode
from scipy.sparse import csr_array

from splade_integrations import (
    Pruning,
    RemoteEncoder,
    SparseTextEncoder,
    SpladeEncoder,
    UnsupportedModelError,
    to_dicts,
)
from splade_integrations.errors import OptionalDependencyError
from splade_integrations.langchain import HybridMilvus, SpladeSparseEmbedding, hybrid_milvus
from splade_integrations.llama_index import HybridMilvusVectorStore
from splade_integrations.llama_index import SpladeSparseEmbedding as LlamaIndexEmbedding
from splade_integrations.milvus import SpladeEmbeddingFunction
from splade_integrations.records import Record, Records


def encode(folder: str) -> list[dict[int, float]]:
    """Encode texts in each way."""
    try:
        encoder = SpladeEncoder(folder, dtype="float32", document_pruning=Pruning(max_active_dims=64))
    except (UnsupportedModelError, OptionalDependencyError, FileNotFoundError) as err:
        raise SystemExit(str(err)) from err
    rows: csr_array = encoder.encode_documents(["a"], show_progress=True)
    blocks: Iterator[csr_array] = encoder.stream_documents(iter(["a", "b"]), block_rows=2)
    shares: list[list[tuple[str, float]]] = encoder.decode(rows, top_k=3)
    explanation = encoder.explain("a", "b")
    score: float = explanation.score
    dim: int = encoder.dim
    assert shares or score or dim
    for block in blocks:
        rows = block
    remote: SparseTextEncoder = RemoteEncoder("http://localhost:8080")
    return to_dicts(remote.encode_queries(["a"])) + to_dicts(rows)


def with_langchain(dense: Embeddings, encoder: SpladeEncoder) -> list[Document]:
    """Fill and search LangChain's store."""
    store: HybridMilvus = hybrid_milvus(dense, SpladeSparseEmbedding(encoder=encoder), uri="a.db", bm25=True)
    ids: list[str] = store.add_texts(["a"], metadatas=[{"year": 1936}])
    found: list[Document] = store.similarity_search("a", k=3, filter={"year": {"$gte": 1900}})
    pairs: list[tuple[Document, float]] = store.similarity_search_with_score("a")
    store.delete(ids)
    return found + [document for document, _ in pairs]


def with_llama_index(encoder: SpladeEncoder) -> list[str]:
    """Fill LlamaIndex's store."""
    sparse = LlamaIndexEmbedding(encoder=encoder)
    store = HybridMilvusVectorStore(uri="a.db", dim=3, sparse_embedding_function=sparse)
    return store.add([TextNode(text="a", embedding=[1.0, 0.0, 0.0])])


def with_milvus(folder: str) -> int:
    """Use the class that replaces Milvus's own, and read records."""
    function = SpladeEmbeddingFunction(model_name=folder, device="cpu")
    records: list[Record] = list(Records("texts.jsonl", "jsonl"))
    return function.dim + len(records)
