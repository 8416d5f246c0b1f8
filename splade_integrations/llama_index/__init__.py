"""A LlamaIndex vector store for hybrid search in Milvus, and a SPLADE embedding for this store.

This package needs llama-index-core and pymilvus, but no other package of LlamaIndex or Milvus. If
llama-index-vector-stores-milvus is installed, `SpladeSparseEmbedding` also works with the `MilvusVectorStore` of
llama-index-vector-stores-milvus. The store of this package, `HybridMilvusVectorStore`, keeps its nodes in a Milvus
collection. `splade_integrations.milvus` creates, fills and searches the collection.
"""

from typing import TYPE_CHECKING

from splade_integrations.dependencies import MILVUS, check_installed, require_extra
from splade_integrations.lazy_names import lazy_names as _lazy_names

check_installed(*MILVUS)

with require_extra("llama-index", module=__name__):
    import llama_index.core  # noqa: F401
    import pymilvus  # noqa: F401

if TYPE_CHECKING:
    from splade_integrations.llama_index.dense import DenseEmbedding
    from splade_integrations.llama_index.embedding import SpladeSparseEmbedding
    from splade_integrations.llama_index.store import HybridMilvusVectorStore

__all__ = ["DenseEmbedding", "HybridMilvusVectorStore", "SpladeSparseEmbedding"]

if not TYPE_CHECKING:  # so that a type checker reports names that do not exist
    __getattr__, __dir__ = _lazy_names(
        __name__, {"DenseEmbedding": "dense", "HybridMilvusVectorStore": "store", "SpladeSparseEmbedding": "embedding"}
    )
