"""SPLADE sparse embeddings for LangChain, LlamaIndex and Milvus hybrid retrieval."""

from typing import TYPE_CHECKING

from splade_integrations.lazy_names import lazy_names as _lazy_names

if TYPE_CHECKING:
    from splade_integrations.encoder import SpladeEncoder
    from splade_integrations.errors import OptionalDependencyError, UnsupportedModelError
    from splade_integrations.fusion import Fusion
    from splade_integrations.one_pass import OnePassEncoder
    from splade_integrations.pruning import Pruning
    from splade_integrations.serving.remote import RemoteEncoder
    from splade_integrations.sparse import SparseTextEncoder, to_dicts

__version__ = "0.1.0"
__all__ = [
    "Fusion",
    "OnePassEncoder",
    "OptionalDependencyError",
    "Pruning",
    "RemoteEncoder",
    "SparseTextEncoder",
    "SpladeEncoder",
    "UnsupportedModelError",
    "to_dicts",
]

if not TYPE_CHECKING:  # so that a type checker reports names that do not exist
    # So torch is loaded only when `SpladeEncoder` is used.
    __getattr__, __dir__ = _lazy_names(
        __name__,
        {
            "Fusion": "fusion",
            "OnePassEncoder": "one_pass",
            "OptionalDependencyError": "errors",
            "Pruning": "pruning",
            "RemoteEncoder": "serving.remote",
            "SparseTextEncoder": "sparse",
            "SpladeEncoder": "encoder",
            "UnsupportedModelError": "errors",
            "to_dicts": "sparse",
        },
    )
