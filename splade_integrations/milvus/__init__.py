"""Milvus: collections of dense, SPLADE and BM25 vectors, and an encoder for `MilvusClient`.

`SpladeEmbeddingFunction` replaces Milvus's class of the same name, and does not need pymilvus. The module `collection`
needs pymilvus. The LangChain store, the LlamaIndex store, the evaluation and the command line use that module.
"""

from splade_integrations.milvus.embedding_function import SparseRows, SpladeEmbeddingFunction

__all__ = ["SparseRows", "SpladeEmbeddingFunction"]
