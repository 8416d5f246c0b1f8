"""The drop-in for Milvus's own `SpladeEmbeddingFunction`: its parameters and its results, over our encoder.

Knows the encoder and what `MilvusClient` takes; holds no maths and needs no pymilvus itself.
"""

from collections.abc import Iterable, Iterator
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.sparse import csr_array

from splade_integrations.adapter import AdaptedEncoder
from splade_integrations.sparse import Pruning

if TYPE_CHECKING:
    from splade_integrations.encoder import SpladeEncoder  # loads torch

__all__ = ["SparseRows", "SpladeEmbeddingFunction"]


class SparseRows(csr_array):
    """A `csr_array` whose rows stay 2-D: iterating it, or `rows[i]`, gives matrices of shape (1, dim).

    Those go straight into `MilvusClient.insert` and `search`; pymilvus refuses the 1-D rows of a plain `csr_array`.
    Slices and fancy indexing keep this property. `scipy.sparse.vstack` and `load_npz` give a plain `csr_array`,
    which loses it: wrap the result, `SparseRows(matrix)`, or use `splade_integrations.to_dicts`, which always works.

    Example:
        >>> rows = SparseRows(csr_array([[0.0, 1.5], [0.5, 0.0]]))
        >>> [row.shape for row in rows], rows[1].shape
        ([(1, 2), (1, 2)], (1, 2))
    """

    def __iter__(self) -> Iterator[Any]:
        return (self[row] for row in range(self.shape[0]))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int | np.integer):
            row = range(self.shape[0])[key]  # negative indices and IndexError, as a list has them
            key = slice(row, row + 1)
        return super().__getitem__(key)


class SpladeEmbeddingFunction:
    """Milvus's `model.sparse.SpladeEmbeddingFunction`, with padding masked and on today's transformers.

    It pickles as name and options, and loads the model again when it is next used.

    Args:
        model_name: A masked-LM checkpoint: a local folder, or `org/model` on the hub. The default is Milvus's own; its
            licence (CC BY-NC-SA 4.0) forbids commercial use.
        batch_size: Most texts of a batch; the encoder's token budget can make it fewer.
        query_instruction: Put before each query.
        doc_instruction: Put before each document.
        device: "cpu", "cuda", "cuda:n", "mps" or "auto".
        k_tokens_query: Keep at most this many terms of a query, the heaviest. None keeps all.
        k_tokens_document: The same for a document.
        **encoder_options: Further options of `SpladeEncoder`, such as `dtype` or `max_length`.

    Raises:
        TypeError: An option is unknown.

    Example:
        >>> splade_ef = SpladeEmbeddingFunction(model_folder, device="cpu")
        >>> embeddings = splade_ef.encode_documents(["Alan Turing was born in London."])
        >>> print("Sparse dim:", splade_ef.dim, list(embeddings)[0].shape)
        Sparse dim: 30522 (1, 30522)
    """

    def __init__(
        self,
        model_name: str | PathLike[str] = "naver/splade-cocondenser-ensembledistil",
        batch_size: int = 32,
        query_instruction: str = "",
        doc_instruction: str = "",
        device: str = "cpu",
        k_tokens_query: int | None = None,
        k_tokens_document: int | None = None,
        **encoder_options: Any,
    ) -> None:
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "query_prompt": query_instruction or None,  # none given: the model's own prompt, if it has one
            "document_prompt": doc_instruction or None,
            "device": device,
            "query_pruning": None if k_tokens_query is None else Pruning(max_active_dims=k_tokens_query),
            "document_pruning": None if k_tokens_document is None else Pruning(max_active_dims=k_tokens_document),
        }
        self._adapted = AdaptedEncoder(model_name=fspath(model_name), **(options | encoder_options))

    @property
    def encoder(self) -> "SpladeEncoder":
        """The encoder; after unpickling it is loaded here."""
        return cast("SpladeEncoder", self._adapted.encoder)

    @property
    def dim(self) -> int:
        """Vocabulary size."""
        return self.encoder.dim

    def encode_documents(self, documents: Iterable[str]) -> SparseRows:
        """Encode documents. (len(documents), dim) float32, rows of shape (1, dim)."""
        return SparseRows(self.encoder.encode_documents(documents))

    def encode_queries(self, queries: Iterable[str]) -> SparseRows:
        """Encode queries. (len(queries), dim) float32, rows of shape (1, dim)."""
        return SparseRows(self.encoder.encode_queries(queries))

    def __call__(self, texts: Iterable[str]) -> SparseRows:
        """Encode texts as documents, instruction and pruning included (which Milvus's own class leaves out here)."""
        return self.encode_documents(texts)
