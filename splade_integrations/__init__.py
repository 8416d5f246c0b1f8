"""SPLADE sparse embeddings for LangChain, LlamaIndex and Milvus hybrid retrieval."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_HOMES = {
    "Fusion": "fusion",
    "OnePassEncoder": "one_pass",
    "OptionalDependencyError": "errors",
    "Pruning": "pruning",
    "RemoteEncoder": "serving.remote",
    "SparseTextEncoder": "sparse",
    "SpladeEncoder": "encoder",
    "UnsupportedModelError": "errors",
    "to_dicts": "sparse",
}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use (PEP 562). So torch is loaded only when `SpladeEncoder` is used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # so that later uses do not call this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
