"""LlamaIndex: `SpladeSparseEmbedding` for its core and its Milvus store, and `HybridMilvusVectorStore`, that store.

Knows LlamaIndex; the maths is the encoder's.
"""

from splade_integrations.dependencies import MILVUS, check_installed, require_extra

check_installed("llama-index-vector-stores-milvus", *MILVUS)

with require_extra("llama-index", module=__name__):
    import llama_index.core
    import llama_index.vector_stores.milvus  # noqa: F401

    from splade_integrations.llama_index.embedding import SpladeSparseEmbedding
    from splade_integrations.llama_index.store import HybridMilvusVectorStore

__all__ = ["HybridMilvusVectorStore", "SpladeSparseEmbedding"]
