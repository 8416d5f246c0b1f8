"""SPLADE sparse embeddings for LangChain, LlamaIndex and Milvus hybrid retrieval."""

from splade_integrations.encoder import SpladeEncoder
from splade_integrations.errors import OptionalDependencyError, UnsupportedModelError
from splade_integrations.sparse import Pruning, SparseEncoder, to_dicts

__version__ = "0.1.0"
__all__ = ["OptionalDependencyError", "Pruning", "SparseEncoder", "SpladeEncoder", "UnsupportedModelError", "to_dicts"]
