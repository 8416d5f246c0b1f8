"""Milvus: `SpladeEmbeddingFunction`, the drop-in for its own, and what both frameworks' stores need of a collection.

The drop-in needs no pymilvus; `settings`, `clients`, `ingest` and `fingerprint`, which the adapters share, do.
"""

from splade_integrations.milvus.embedding_function import SparseRows, SpladeEmbeddingFunction

__all__ = ["SparseRows", "SpladeEmbeddingFunction"]
