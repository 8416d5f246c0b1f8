"""Milvus: one collection of dense, SPLADE and BM25 vectors, and the drop-in encoder.

`SpladeEmbeddingFunction`, the drop-in for Milvus's own, needs no pymilvus; `collection`, which both stores, the
evaluation and the command line use, does.
"""

from splade_integrations.milvus.embedding_function import SparseRows, SpladeEmbeddingFunction

__all__ = ["SparseRows", "SpladeEmbeddingFunction"]
