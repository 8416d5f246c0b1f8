"""The retrievers that `evaluate` compares: BM25, a dense model and SPLADE. Each retriever measures its own costs."""

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from splade_integrations.dependencies import require_extra
from splade_integrations.errors import first_line
from splade_integrations.evaluation.ranking import (
    Ranking,
    postings,
    rank_dense,
    rank_scores,
    rank_sparse,
    unit_rows,
)
from splade_integrations.pruning import Pruning
from splade_integrations.sparse import SparseTextEncoder

__all__ = ["Bm25", "Dense", "DenseEncoder", "Retriever", "Splade", "bm25_name", "load_dense"]

Report = Callable[[int], object]


class DenseEncoder(Protocol):
    """The method that a dense model must have. Models of sentence-transformers have this method."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Encode texts. Returns (len(texts), H)."""
        ...


@dataclass
class Costs:
    """The costs of a retriever.

    Args:
        texts_per_second: The number of documents encoded per second. For BM25, the number of documents indexed per
            second.
        index_bytes: The size in bytes of the index that exact search holds in memory.
        dims_per_document: The average number of values stored for a document.
        dims_per_query: The average number of values of an encoded query. `evaluate` sets this value later, because a
            new retriever has not seen any queries.
    """

    texts_per_second: float
    index_bytes: int
    dims_per_document: float
    dims_per_query: float = 0.0


class Retriever(Protocol):
    """An index of documents that ranks the documents for each query."""

    name: str
    costs: Costs

    def encode(self, queries: list[str]) -> Any:
        """Return queries in the form that `rank` accepts. The result can be sliced."""
        ...

    def rank(self, queries: Any, depth: int) -> list[Ranking]:
        """Return the best `depth` documents for each query."""
        ...

    def dims(self, queries: Any) -> float:
        """Return the average number of values of an encoded query."""
        ...


class Bm25:
    """BM25 by the package bm25s, with English stop words, Lucene's formula, k1 = 1.5 and b = 0.75.

    Args:
        documents: The texts of the documents.
        stemmed: Whether the words are stemmed, by Snowball's English stemmer.
    Raises:
        OptionalDependencyError: bm25s or PyStemmer is not installed.
    """

    def __init__(self, documents: list[str], *, stemmed: bool) -> None:
        with require_extra("evaluate", module="BM25"):
            import bm25s
            import Stemmer
        self.name = bm25_name(stemmed=stemmed)
        self._tokenize: Callable[[list[str]], list[list[str]]] = lambda texts: bm25s.tokenize(
            texts,
            stopwords="en",
            stemmer=Stemmer.Stemmer("english") if stemmed else None,
            return_ids=False,
            show_progress=False,
        )
        start = time.perf_counter()
        words = self._tokenize(documents)
        self._index = bm25s.BM25()
        self._empty = not any(words)
        if not self._empty:
            self._index.index(words, show_progress=False)
        seconds = time.perf_counter() - start
        stored = sum(len(set(row)) for row in words)
        # An inverted index needs 8 bytes for each distinct word of a document: a float32 score and an int32 row number.
        self.costs = Costs(len(documents) / seconds, 8 * stored, stored / max(1, len(documents)))
        self._documents = len(documents)

    def encode(self, queries: list[str]) -> list[list[str]]:
        """Return the words of each query."""
        return self._tokenize(queries)

    def dims(self, queries: list[list[str]]) -> float:
        """Return the average number of distinct words of a query."""
        return float(np.mean([len(set(words)) for words in queries])) if queries else 0.0

    def rank(self, queries: list[list[str]], depth: int) -> list[Ranking]:
        """Return the best documents by score. Ties stay in row order.

        A document that shares no word with the query is not ranked.
        """
        rankings = []
        for words in queries:
            known = [word for word in words if not self._empty and word in self._index.vocab_dict]
            scores = self._index.get_scores(known) if known else np.zeros(self._documents)
            rankings.append(rank_scores(scores, depth))
        return rankings


def bm25_name(*, stemmed: bool) -> str:
    """Return the name of the retriever `Bm25`, with or without stemming."""
    return "BM25" if stemmed else "BM25 unstemmed"


class Dense:
    """Retrieval by the cosine of dense embeddings.

    Args:
        encoder: The model.
        documents: The texts of the documents.
        report: Called with the number of texts encoded since its last call.
    """

    name = "dense"

    def __init__(self, encoder: DenseEncoder, documents: list[str], report: Report = lambda _: None) -> None:
        self._encoder = encoder
        start = time.perf_counter()
        # The texts are sorted by length, so that each call encodes texts of similar length, with little padding.
        # sentence-transformers itself sorts only the texts of one call.
        order = sorted(range(len(documents)), key=lambda row: -len(documents[row]))
        parts = []
        for first in range(0, len(order), 64):
            chunk = [documents[row] for row in order[first : first + 64]]
            parts.append(np.asarray(encoder.encode(chunk), np.float32))
            report(len(chunk))
        self.documents: NDArray[np.float32] = np.concatenate(parts)[np.argsort(order)]
        self._unit = unit_rows(self.documents)
        width = self.documents.shape[1]
        self.costs = Costs(len(documents) / (time.perf_counter() - start), self.documents.nbytes, width)

    def encode(self, queries: list[str]) -> NDArray[np.float32]:
        """Return the dense embeddings of queries, (Q, H)."""
        return np.asarray(self._encoder.encode(queries), np.float32)

    def dims(self, queries: NDArray[np.float32]) -> float:
        """Return the width of the model's embeddings."""
        return float(queries.shape[1])

    def rank(self, queries: NDArray[np.float32], depth: int) -> list[Ranking]:
        """Return the best documents by cosine. Ties stay in row order."""
        return rank_dense(queries, self._unit, depth)


class Splade:
    """Retrieval by the inner product of SPLADE embeddings.

    Args:
        encoder: The model.
        documents: The texts of the documents, or their sparse embeddings, (N, V).
        report: Called with the number of texts encoded since its last call.
        pruning: The rules that decide which terms of a document are kept. None keeps all terms.
    """

    name = "SPLADE"

    def __init__(
        self,
        encoder: SparseTextEncoder,
        documents: list[str] | csr_array,
        report: Report = lambda _: None,
        pruning: Pruning | None = None,
    ) -> None:
        self._encoder = encoder
        start = time.perf_counter()
        if isinstance(documents, list):
            known = {"show_progress": report} if _reports(encoder) else {}
            matrix = encoder.encode_documents(documents, **known)
        else:
            matrix = documents
        seconds = time.perf_counter() - start
        self.documents = matrix if pruning is None else pruning.apply(matrix)
        count = self.documents.shape[0]
        self._postings = postings(self.documents)
        stored = 8 * self.documents.nnz + self.documents.indptr.nbytes
        self.costs = Costs(count / max(seconds, 1e-9), stored, self.documents.nnz / max(1, count))

    def encode(self, queries: list[str]) -> csr_array:
        """Return the sparse embeddings of queries, (Q, V)."""
        return self._encoder.encode_queries(queries)

    def dims(self, queries: csr_array) -> float:
        """Return the average number of terms of a query."""
        return queries.nnz / max(1, queries.shape[0])

    def rank(self, queries: csr_array, depth: int) -> list[Ranking]:
        """Return the best documents by inner product. Ties stay in row order.

        A document that shares no term with the query is not ranked.
        """
        return rank_sparse(queries, self._postings, depth)


def load_dense(name: str | PathLike[str], *, max_length: int | None = None, device: str = "auto") -> DenseEncoder:
    """Load a dense model of sentence-transformers.

    Args:
        name: A folder, or a name on the hub.
        max_length: The largest number of tokens of a text. None keeps the model's own limit.
        device: The device, named as in `SpladeEncoder`.
    Raises:
        OptionalDependencyError: sentence-transformers is not installed.
        FileNotFoundError: There is no such model.
    """
    with require_extra("evaluate", module="A dense model"):
        from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    from splade_integrations.engine.compute import resolve_compute

    local = Path(name).is_dir() and transformers_logging.is_progress_bar_enabled()
    if local:  # only a download needs a progress bar
        transformers_logging.disable_progress_bar()
    try:
        model = SentenceTransformer(fspath(name), device=str(resolve_compute(device).device))
    except OSError as err:
        raise FileNotFoundError(
            f"dense model {name!r} must be a folder, or a model on the hub that can be reached, got neither. Check "
            f"the name and the network. ({first_line(err)})"
        ) from err
    finally:
        if local:
            transformers_logging.enable_progress_bar()
    if max_length is not None:
        model.max_seq_length = max_length
    return _SentenceTransformer(model)


class _SentenceTransformer:
    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def max_length(self) -> int | None:
        """The largest number of tokens that the model reads of a text, or None if the model has no limit."""
        length: int | None = self._model.max_seq_length
        return length

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = self._model.encode(list(texts), show_progress_bar=False, batch_size=16)
        return rows


def _reports(encoder: SparseTextEncoder) -> bool:
    """Return whether an encoder can report progress. The protocol `SparseTextEncoder` does not require this."""
    return "show_progress" in inspect.signature(encoder.encode_documents).parameters
