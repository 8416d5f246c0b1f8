"""LangChain: `hybrid_milvus`, a vector store, and the sparse embedding that it uses.

Needs langchain-core and pymilvus alone. `SpladeSparseEmbedding` also plugs into langchain-milvus's own store, if that
is installed. Knows LangChain; the maths is the encoder's, and the collection is the Milvus room's.
"""

from splade_integrations.dependencies import MILVUS, check_installed, require_extra

check_installed(*MILVUS)

with require_extra("langchain", module=__name__):
    import langchain_core  # noqa: F401
    import pymilvus  # noqa: F401

    from splade_integrations.langchain.embedding import SpladeSparseEmbedding
    from splade_integrations.langchain.store import HybridMilvus, hybrid_milvus

__all__ = ["HybridMilvus", "SpladeSparseEmbedding", "hybrid_milvus"]
