"""LangChain: `SpladeSparseEmbedding` for its `Milvus` store, and `hybrid_milvus`, that store right by default.

Knows LangChain; the maths is the encoder's.
"""

from splade_integrations.dependencies import MILVUS, check_installed, require_extra

check_installed("langchain-milvus", *MILVUS)

with require_extra("langchain", module=__name__):
    import langchain_core  # noqa: F401
    import langchain_milvus  # noqa: F401

    from splade_integrations.langchain.embedding import SpladeSparseEmbedding
    from splade_integrations.langchain.store import HybridMilvus, hybrid_milvus

__all__ = ["HybridMilvus", "SpladeSparseEmbedding", "hybrid_milvus"]
