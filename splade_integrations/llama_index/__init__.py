"""LlamaIndex: its sparse embedding, and a hybrid vector store over a Milvus collection.

This package needs only llama-index-core and pymilvus. If llama-index-vector-stores-milvus is installed,
`SpladeSparseEmbedding` also works with its `MilvusVectorStore`. The encoder does the maths, and
`splade_integrations.milvus` handles the collection.
"""

from splade_integrations.dependencies import MILVUS, check_installed, require_extra

check_installed(*MILVUS)

with require_extra("llama-index", module=__name__):
    import llama_index.core  # noqa: F401
    import pymilvus  # noqa: F401

    from splade_integrations.llama_index.embedding import SpladeSparseEmbedding
    from splade_integrations.llama_index.store import HybridMilvusVectorStore

__all__ = ["HybridMilvusVectorStore", "SpladeSparseEmbedding"]
