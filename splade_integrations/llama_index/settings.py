"""What the hybrid store tells LlamaIndex's `MilvusVectorStore`. Knows no encoder and no search."""

import inspect
from collections.abc import Iterable
from typing import Any

from llama_index.vector_stores.milvus import MilvusVectorStore
from llama_index.vector_stores.milvus.base import similarity_metrics_map
from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction

from splade_integrations.milvus.settings import dense_index, sparse_index

__all__ = ["Encoded", "all_settings", "connection_args_of", "with_defaults"]

_OWN = inspect.signature(MilvusVectorStore.__init__).parameters


def with_defaults(milvus_options: dict[str, Any], uri: str, similarity_metric: str) -> dict[str, Any]:
    """The framework's keywords, with ours where they say nothing.

    Raises:
        ValueError: `enable_sparse` is False.
    """
    options = {
        "enable_sparse": True,
        "index_config": _flat(dense_index(uri, similarity_metrics_map.get(similarity_metric.lower(), "L2"))),
        "sparse_index_config": _flat(sparse_index(uri)),
        **{key: value for key, value in milvus_options.items() if value is not None},
        "uri": uri,
        "similarity_metric": similarity_metric,
    }
    if not options["enable_sparse"]:
        raise ValueError("enable_sparse must be True, got False. For dense vectors alone use MilvusVectorStore.")
    return options


def connection_args_of(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the keywords that `MilvusClient` takes: uri, token, and what the framework does not know."""
    own = _OWN.keys() - {"uri", "token"}
    return {key: value for key, value in options.items() if key not in own}


def all_settings(options: dict[str, Any]) -> dict[str, Any]:
    """All keywords of the framework's, with its defaults where `options` say nothing."""
    return {name: options.get(name, parameter.default) for name, parameter in _OWN.items()}


class Encoded(BaseSparseEmbeddingFunction):
    """Hands out rows in the order in which they were encoded, one a call, whatever text is asked for."""

    def __init__(self, rows: Iterable[dict[int, float]]) -> None:
        self._rows = iter(rows)

    def encode_documents(self, documents: list[str]) -> list[dict[int, float]]:
        """The next rows, as many as there are documents."""
        return [next(self._rows) for _ in documents]

    def encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        """Not wanted while adding."""
        raise NotImplementedError("These are documents.")


def _flat(index: dict[str, Any]) -> dict[str, Any]:
    """An index as the framework wants it: its parameters beside its type."""
    return {**{key: value for key, value in index.items() if key != "params"}, **index["params"]}
