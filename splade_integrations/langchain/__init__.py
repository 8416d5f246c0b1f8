"""A LangChain vector store for hybrid search in Milvus, and a SPLADE embedding for this store.

This package needs langchain-core and pymilvus, but no other package of LangChain or Milvus. If langchain-milvus is
installed, `SpladeSparseEmbedding` also works with the `Milvus` store of langchain-milvus. The store of this package,
`HybridMilvus`, keeps its documents in a Milvus collection. `splade_integrations.milvus` creates, fills and searches the
collection.
"""

from typing import TYPE_CHECKING

from splade_integrations.dependencies import MILVUS, check_installed, require_extra
from splade_integrations.lazy_names import lazy_names as _lazy_names

check_installed(*MILVUS)

with require_extra("langchain", module=__name__):
    import langchain_core  # noqa: F401
    import pymilvus  # noqa: F401

if TYPE_CHECKING:
    from splade_integrations.langchain.dense import DenseEmbedding
    from splade_integrations.langchain.embedding import SpladeSparseEmbedding
    from splade_integrations.langchain.store import HybridMilvus, hybrid_milvus

__all__ = ["DenseEmbedding", "HybridMilvus", "SpladeSparseEmbedding", "hybrid_milvus"]

if not TYPE_CHECKING:  # so that a type checker reports names that do not exist
    __getattr__, __dir__ = _lazy_names(
        __name__,
        {
            "DenseEmbedding": "dense",
            "HybridMilvus": "store",
            "SpladeSparseEmbedding": "embedding",
            "hybrid_milvus": "store",
        },
    )
