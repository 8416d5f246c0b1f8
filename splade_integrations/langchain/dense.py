"""Lets LangChain use the dense vectors of an encoder that makes dense and sparse vectors in one run of its model."""

from langchain_core.embeddings import Embeddings

from splade_integrations.one_pass import OnePassEncoder

__all__ = ["DenseEmbedding"]


class DenseEmbedding(Embeddings):
    """The dense embedding of BGE-M3, a model that makes a text's dense and sparse vectors in one run.

    `embed_documents` and `embed_query` return vectors of length 1. The async methods run in a thread.

    Args:
        encoder: The `OnePassEncoder` that the sparse embedding of the store also uses.
    Raises:
        TypeError: The encoder is not a `OnePassEncoder`.

    Example:
        >>> from splade_integrations import OnePassEncoder, SpladeEncoder
        >>> from splade_integrations.langchain import DenseEmbedding, SpladeSparseEmbedding, hybrid_milvus
        >>> def store_of_bge_m3(uri):
        ...     both = OnePassEncoder(SpladeEncoder("BAAI/bge-m3"))
        ...     return hybrid_milvus(DenseEmbedding(both), SpladeSparseEmbedding(encoder=both), uri=uri)
    """

    def __init__(self, encoder: OnePassEncoder) -> None:
        self.encoder = OnePassEncoder.checked(encoder)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed N documents. Returns N vectors as lists."""
        vectors: list[list[float]] = self.encoder.dense_documents(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Embed one query. Returns its vector as a list."""
        vectors: list[list[float]] = self.encoder.dense_queries([text]).tolist()
        return vectors[0]
