"""A replacement for Milvus's `SpladeEmbeddingFunction`, with the same parameters and the same form of results.

It uses this package's encoder, and returns rows in the form that `MilvusClient` accepts. It does not need pymilvus.
"""

from collections.abc import Iterable, Iterator
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from scipy.sparse import csr_array

from splade_integrations.adapter import AdaptedEncoder
from splade_integrations.pruning import Pruning

if TYPE_CHECKING:
    from splade_integrations.encoder import SpladeEncoder  # loads torch

__all__ = ["SparseRows", "SpladeEmbeddingFunction"]


class SparseRows(csr_array):
    """A `csr_array` with 2-D rows: iteration and `rows[i]` return arrays of shape (1, dim).

    `MilvusClient.insert` and `search` accept these 2-D rows, but refuse the 1-D rows of a plain `csr_array`.
    Slices and fancy indexing return `SparseRows`. `scipy.sparse.vstack` and `load_npz` return a plain `csr_array`. Wrap
    that array with `SparseRows(array)`, or convert it with `splade_integrations.to_dicts`.

    Example:
        >>> rows = SparseRows(csr_array([[0.0, 1.5], [0.5, 0.0]]))
        >>> [row.shape for row in rows], rows[1].shape
        ([(1, 2), (1, 2)], (1, 2))
    """

    def __iter__(self) -> Iterator[Any]:
        return (self[row] for row in range(self.shape[0]))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int | np.integer):
            row = range(self.shape[0])[key]  # handles negative indices and raises IndexError, like a list
            key = slice(row, row + 1)
        return super().__getitem__(key)


class SpladeEmbeddingFunction:
    """A replacement for the class of this name in `pymilvus.model.sparse`, with the same methods and attributes.

    Unlike Milvus's class, this class masks padding, so that padding tokens add no terms to a row. It also works with
    current versions of transformers. docs/milvus.md lists all differences.

    Pickling stores the model's name and the options. The first use after unpickling loads the model again.

    Args:
        model_name: A masked-LM checkpoint: a local folder, or `org/model` on the Hugging Face hub. The default model is
            Milvus's default as well. The licence of this model (CC BY-NC-SA 4.0) forbids commercial use.
        batch_size: The largest number of texts in a batch. The encoder's token budget can make a batch smaller.
        query_instruction: The text to put before each query. "" means the prompt that the model defines, if any.
        doc_instruction: The text to put before each document. "" means the prompt that the model defines, if any.
        device: "cpu", "cuda", "cuda:n", "mps" or "auto". None means "cpu", as in Milvus's class.
        k_tokens_query: The maximum number of terms of a query. The terms with the largest weights are kept. None keeps
            all terms.
        k_tokens_document: The maximum number of terms of a document, chosen in the same way.
        **encoder_options: Further options of `SpladeEncoder`, such as `dtype` or `max_length`.

    Raises:
        TypeError: An option is unknown.

    Example:
        >>> splade_ef = SpladeEmbeddingFunction(model_folder, device="cpu", k_tokens_query=8)
        >>> embeddings = splade_ef.encode_documents(["Alan Turing was born in London."])
        >>> print("Sparse dim:", splade_ef.dim, list(embeddings)[0].shape)
        Sparse dim: 30522 (1, 30522)
        >>> splade_ef.k_tokens_query, splade_ef.device
        (8, 'cpu')
    """

    def __init__(
        self,
        model_name: str | PathLike[str] = "naver/splade-cocondenser-ensembledistil",
        batch_size: int = 32,
        query_instruction: str = "",
        doc_instruction: str = "",
        device: str | None = "cpu",
        k_tokens_query: int | None = None,
        k_tokens_document: int | None = None,
        **encoder_options: Any,
    ) -> None:
        self._given = _Given(
            fspath(model_name), device, query_instruction, doc_instruction, k_tokens_query, k_tokens_document
        )
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "query_prompt": query_instruction or None,  # None means the prompt that the model defines, if any
            "document_prompt": doc_instruction or None,
            "device": "cpu" if device is None else device,
            "query_pruning": None if k_tokens_query is None else Pruning(max_active_dims=k_tokens_query),
            "document_pruning": None if k_tokens_document is None else Pruning(max_active_dims=k_tokens_document),
        }
        self._adapted = AdaptedEncoder(model_name=self._given.model_name, **(options | encoder_options))

    @property
    def encoder(self) -> "SpladeEncoder":
        """The encoder. The first access after unpickling loads the model."""
        return cast("SpladeEncoder", self._adapted.encoder)

    @property
    def dim(self) -> int:
        """The size of the vocabulary."""
        return self.encoder.dim

    @property
    def model_name(self) -> str:
        """The model's name or folder, as it was given. To change this or another setting, make a new object."""
        return self._given.model_name

    @property
    def device(self) -> str | None:
        """The device, as it was given. `encoder.device` is the device on which the model runs."""
        return self._given.device

    @property
    def query_instruction(self) -> str:
        """The text before each query, as it was given."""
        return self._given.query_instruction

    @property
    def doc_instruction(self) -> str:
        """The text before each document, as it was given."""
        return self._given.doc_instruction

    @property
    def k_tokens_query(self) -> int | None:
        """The maximum number of terms of a query, as it was given."""
        return self._given.k_tokens_query

    @property
    def k_tokens_document(self) -> int | None:
        """The maximum number of terms of a document, as it was given."""
        return self._given.k_tokens_document

    def encode_documents(self, documents: Iterable[str]) -> SparseRows:
        """Encode documents. Return a float32 array of shape (len(documents), dim), with rows of shape (1, dim)."""
        return SparseRows(self.encoder.encode_documents(documents))

    def encode_queries(self, queries: Iterable[str]) -> SparseRows:
        """Encode queries. Return a float32 array of shape (len(queries), dim), with rows of shape (1, dim)."""
        return SparseRows(self.encoder.encode_queries(queries))

    def __call__(self, texts: Iterable[str]) -> SparseRows:
        """Encode texts without an instruction and without pruning, as Milvus's class does."""
        return SparseRows(self.encoder.encode_as_given(texts))


class _Given(NamedTuple):
    """The arguments of `SpladeEmbeddingFunction` that can be read as its attributes."""

    model_name: str
    device: str | None
    query_instruction: str
    doc_instruction: str
    k_tokens_query: int | None
    k_tokens_document: int | None
