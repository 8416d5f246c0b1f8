"""Milvus: one collection of dense, SPLADE and BM25 vectors, and the drop-in encoder.

`SpladeEmbeddingFunction` is the drop-in for Milvus's class of the same name, and needs no pymilvus. The module
`collection`, which both stores, the evaluation and the command line use, needs pymilvus.
"""

from splade_integrations.milvus.embedding_function import SparseRows, SpladeEmbeddingFunction

__all__ = ["SparseRows", "SpladeEmbeddingFunction"]
