"""Lets one pass of BGE-M3 compute both the sparse vectors and the dense vectors of a store.

A framework asks for sparse and for dense vectors in separate calls, through separate objects. One `OnePassEncoder`
serves both objects. The first call for a text computes both vectors, and returns the one that it asks for. The other
vector is kept until another call asks for it. In this module, a side is either "sparse" or "dense".
"""

from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future
from threading import Lock
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from splade_integrations.encoding.roles import Role
from splade_integrations.encoding.texts import check_texts
from splade_integrations.models.fingerprint import Fingerprint, fingerprint_of
from splade_integrations.sparse import concatenate

__all__ = ["OnePassEncoder", "TwoSidedEncoder"]

_Side = Literal["sparse", "dense"]


class TwoSidedEncoder(Protocol):
    """An encoder that computes sparse rows and dense vectors in one pass, such as a `SpladeEncoder` of BGE-M3."""

    def encode_documents_with_dense(self, texts: list[str]) -> tuple[csr_array, NDArray[np.float32]]: ...

    def encode_queries_with_dense(self, texts: list[str]) -> tuple[csr_array, NDArray[np.float32]]: ...


class OnePassEncoder:
    """Encodes each text once, although a store asks for its sparse and its dense vector in separate calls.

    Pass the same `OnePassEncoder` to a framework's `SpladeSparseEmbedding(encoder=…)` and to its `DenseEmbedding(…)`.
    The model then runs once for each text, whichever of the two objects asks first. Any number of threads may share one
    `OnePassEncoder`.

    Args:
        encoder: A `SpladeEncoder` of BGE-M3, or another object with `encode_documents_with_dense` and
            `encode_queries_with_dense`.
        remembered: The largest number of vectors that are kept until they are asked for. If there are more, the oldest
            are forgotten. When a forgotten vector is asked for, its text is encoded again. The default is enough for
            LlamaIndex, which asks for the dense vectors of up to 2 048 nodes before the store asks for their sparse
            vectors.
    Raises:
        TypeError: The encoder lacks `encode_documents_with_dense` or `encode_queries_with_dense`.

    Example:
        >>> class Counting:  # stands for SpladeEncoder("BAAI/bge-m3")
        ...     passes = 0
        ...
        ...     def encode_documents_with_dense(self, texts):
        ...         self.passes += 1
        ...         return csr_array(np.eye(len(texts), dtype=np.float32)), np.ones((len(texts), 4), np.float32)
        ...
        ...     encode_queries_with_dense = encode_documents_with_dense
        >>> counting = Counting()
        >>> both = OnePassEncoder(counting)
        >>> both.encode_documents(["a", "b"]).shape, both.dense_documents(["a", "b"]).shape, counting.passes
        ((2, 2), (2, 4), 1)
    """

    def __init__(self, encoder: TwoSidedEncoder, *, remembered: int = 4096) -> None:
        methods = ("encode_documents_with_dense", "encode_queries_with_dense")
        if missing := [name for name in methods if not callable(getattr(encoder, name, None))]:
            raise TypeError(
                f"encoder must have {' and '.join(missing)}, got {type(encoder).__name__}. Pass a SpladeEncoder of "
                "BAAI/bge-m3."
            )
        if remembered < 1:
            raise ValueError(f"remembered must be at least 1, got {remembered}. Leave it out for 4 096 vectors.")
        self._encoder, self._remembered = encoder, remembered
        # {(role, side, text): the future of a sparse row, (1, dim), or of a dense vector}. If the future has no result
        # yet, another thread is computing it.
        self._kept: OrderedDict[tuple[Role, _Side, str], Future[Any]] = OrderedDict()
        self._lock = Lock()

    @staticmethod
    def checked(encoder: Any) -> "OnePassEncoder":
        """Return the encoder, or raise TypeError if it is not a `OnePassEncoder`."""
        if not isinstance(encoder, OnePassEncoder):
            raise TypeError(
                f"encoder must be a OnePassEncoder, got {type(encoder).__name__}. Wrap the encoder once: "
                "encoder = OnePassEncoder(encoder). Pass the result here and to SpladeSparseEmbedding(encoder=encoder)."
            )
        return encoder

    @property
    def fingerprint(self) -> Fingerprint | None:
        """The encoder's `Fingerprint`, or None if the encoder has none."""
        return fingerprint_of(self._encoder)

    @property
    def tokenizer(self) -> Any:
        """The encoder's tokenizer."""
        return self._encoder.tokenizer  # type: ignore[attr-defined]

    def encode_documents(self, texts: Iterable[str]) -> csr_array:
        """Return the sparse rows of documents, as `SpladeEncoder.encode_documents` does."""
        rows: csr_array = self._encode("document", "sparse", texts)
        return rows

    def encode_queries(self, texts: Iterable[str]) -> csr_array:
        """Return the sparse rows of queries, as `SpladeEncoder.encode_queries` does."""
        rows: csr_array = self._encode("query", "sparse", texts)
        return rows

    def dense_documents(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Return the dense vectors of documents, each of length 1. (len(texts), hidden size) float32."""
        vectors: NDArray[np.float32] = self._encode("document", "dense", texts)
        return vectors

    def dense_queries(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Return the dense vectors of queries, each of length 1. (len(texts), hidden size) float32."""
        vectors: NDArray[np.float32] = self._encode("query", "dense", texts)
        return vectors

    def _encode(self, role: Role, side: _Side, texts: Iterable[str]) -> Any:
        wanted = check_texts(texts)
        found, missing = self._taken(role, side, wanted)
        if missing or not wanted:
            made = self._computed(role, side, missing)
            if not wanted:
                return made
            found |= dict(zip(missing, made if side == "dense" else _rows(made), strict=True))
        vectors = [found[text] for text in wanted]
        vectors = [vector.result() if isinstance(vector, Future) else vector for vector in vectors]
        return concatenate(vectors, vectors[0].shape[1]) if side == "sparse" else np.stack(vectors)

    def _taken(self, role: Role, side: _Side, texts: list[str]) -> tuple[dict[str, Any], dict[str, Future[Any]]]:
        """Take the kept vectors of the texts, and find the texts that must be encoded now.

        A store asks for each vector once, so a vector that is taken is no longer kept. Encoding a text computes its
        vectors of both sides. So for each text that must be encoded, a future is kept for the vector of the other side.

        Returns:
            Two dicts, {text: future}. The first has the texts whose vectors were kept, and the futures of these
            vectors. The second has the texts that must be encoded now, and the futures of their vectors of the other
            side.
        """
        other: _Side = "dense" if side == "sparse" else "sparse"
        found, missing = {}, {}
        with self._lock:
            for text in dict.fromkeys(texts):
                if (kept := self._kept.pop((role, side, text), None)) is not None:
                    found[text] = kept
                else:
                    missing[text] = self._kept[role, other, text] = Future()
            while len(self._kept) > self._remembered:
                self._kept.popitem(last=False)
        return found, missing

    def _computed(self, role: Role, side: _Side, missing: dict[str, Future[Any]]) -> Any:
        """Encode the texts. Return their vectors of `side`, and put those of the other side into the futures."""
        encoder = self._encoder
        encode = encoder.encode_queries_with_dense if role == "query" else encoder.encode_documents_with_dense
        try:
            sparse, dense = encode(list(missing))
        except BaseException as err:
            self._break(role, "dense" if side == "sparse" else "sparse", missing, err)
            raise
        for promise, vector in zip(missing.values(), dense if side == "sparse" else _rows(sparse), strict=True):
            promise.set_result(vector)
        return sparse if side == "sparse" else dense

    def _break(self, role: Role, other: _Side, missing: dict[str, Future[Any]], err: BaseException) -> None:
        """Pass an error on to callers that wait for the futures. Later callers encode the texts again."""
        with self._lock:
            for text, promise in missing.items():
                if self._kept.get((role, other, text)) is promise:
                    del self._kept[role, other, text]
        for promise in missing.values():
            promise.set_exception(err)


def _rows(matrix: csr_array) -> list[csr_array]:
    return [matrix[[row]] for row in range(matrix.shape[0])]
