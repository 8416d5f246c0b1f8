"""An adapter that gives a SPLADE encoder the two interfaces that LlamaIndex has for sparse embeddings.

Both interfaces return `{token id: weight}` dicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Unpack

from llama_index.core.base.embeddings.base_sparse import BaseSparseEmbedding, SparseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.embedding import SparseEmbeddingEndEvent, SparseEmbeddingStartEvent

from splade_integrations.adapter import AdaptedEncoder, document_terms, is_blank, query_terms
from splade_integrations.llama_index.sparse_function import BaseSparseEmbeddingFunction
from splade_integrations.models.fingerprint import Fingerprint
from splade_integrations.options import EncoderOptions
from splade_integrations.sparse import SparseTextEncoder

__all__ = ["SpladeSparseEmbedding"]

dispatcher = get_dispatcher(__name__)

_SPLITTER = "SentenceSplitter(chunk_size={size}, tokenizer=encoder.tokenizer.tokenize) (by default, it allows 1 024)"


class SpladeSparseEmbedding(BaseSparseEmbedding, BaseSparseEmbeddingFunction):
    """SPLADE embeddings with the interfaces of LlamaIndex core and of LlamaIndex's Milvus store.

    The two interfaces differ for a blank text, and for a text for which the model finds no terms:

    - The methods of core's `BaseSparseEmbedding` (`get_text_embedding_batch`, `get_query_embedding`, …) return `{}`.
    - The methods of the Milvus store's sparse embedding function (`encode_documents`, `encode_queries`, …) return a
      placeholder vector. Milvus can store this vector, but no query finds it. A query with a placeholder vector finds
      nothing.

    Each call of these methods sends LlamaIndex one Start event and one End event, and calls the encoder once. Core's
    batch methods do this once for each batch of `embed_batch_size` texts. Async methods run in a thread and leave the
    event loop free. Async queries that wait at the same time are encoded together.

    If the object was made with `model_name`, its pickle holds only the name and the options, not the model. The first
    use after unpickling loads the model again. If the object was made with `encoder`, its pickle holds the encoder.
    But a `SpladeEncoder` cannot be pickled, so use `model_name` if you need to pickle the object. Copies of the object
    share the encoder.

    Args:
        encoder: The encoder to use: a `SpladeEncoder`, or any object with `encode_documents` and `encode_queries`.
            Any number of objects and threads may share one encoder.
        model_name: The model to load, instead of an encoder: a folder, or `org/model` on the hub.
        embed_batch_size: The number of texts in one batch of core's methods, at most 2 048. The encoder itself limits
            the memory that it needs for many texts.
        num_workers: The number of batches that core's `aget_text_embedding_batch` encodes at the same time. None and 1
            mean as many as the thread pool allows.
        dynamic_batching: Whether async queries that wait at the same time are encoded in one call.
        **encoder_options: Further options of `SpladeEncoder`, such as `device` or `max_length`. Allowed only with
            `model_name`.

    Raises:
        TypeError: Neither or both of `encoder` and `model_name` are given, or an option is unknown.

    Example:
        >>> sparse = SpladeSparseEmbedding(model_name=model_folder)
        >>> document = sparse.get_text_embedding("Alan Turing was born in London.")
        >>> query = sparse.get_query_embedding("Where was Turing born?")
        >>> sum(weight * document.get(term, 0.0) for term, weight in query.items()) > 1
        True
    """

    _adapted: AdaptedEncoder = PrivateAttr()

    def __init__(
        self,
        *,
        encoder: SparseTextEncoder | None = None,
        model_name: str | None = None,
        embed_batch_size: int = 512,
        num_workers: int | None = None,
        dynamic_batching: bool = True,
        **encoder_options: Unpack[EncoderOptions],
    ) -> None:
        adapted = AdaptedEncoder(
            encoder, model_name, dynamic_batching=dynamic_batching, splitter=_SPLITTER, **encoder_options
        )
        name = str(model_name or getattr(encoder, "model_name", type(encoder).__name__))
        super().__init__(model_name=name, embed_batch_size=embed_batch_size, num_workers=num_workers)
        self._adapted = adapted

    @classmethod
    def class_name(cls) -> str:
        """Return the name that this class has in serialised objects and in events."""
        return "SpladeSparseEmbedding"

    @property
    def encoder(self) -> SparseTextEncoder:
        """The encoder. The first access after unpickling loads the model."""
        return self._adapted.encoder

    @property
    def fingerprint(self) -> Fingerprint | None:
        """The encoder's fingerprint, or None if the encoder has none.

        A fingerprint describes everything that determines the sparse vectors. A collection stores the fingerprint of
        its encoder, and refuses other encoders.
        """
        return self._adapted.fingerprint

    def __deepcopy__(self, memo: Any = None) -> SpladeSparseEmbedding:
        return self.model_copy()  # all fields are immutable, and copies share the model

    def encode_documents(self, documents: list[str]) -> list[SparseEmbedding]:
        """Encode all documents for Milvus in one call of the encoder.

        Args:
            documents: N texts.
        Returns:
            N dicts {token id: weight} of plain Python numbers.
        Raises:
            TypeError: `documents` is a single str, or an item is not a str. The message names the position of the item.
        """
        with self._events(documents) as rows:
            rows += map(document_terms, self._get_text_embeddings(documents), documents)
        return rows

    def encode_queries(self, queries: list[str]) -> list[SparseEmbedding]:
        """Encode queries for Milvus like `encode_documents`, but with the encoder's `encode_queries`."""
        with self._events(queries) as rows:
            rows += map(query_terms, self._adapted.encode_queries(queries), queries)
        return rows

    async def async_encode_documents(self, documents: list[str]) -> list[SparseEmbedding]:
        """Encode documents like `encode_documents`, in a thread."""
        with self._events(documents) as rows:
            rows += map(document_terms, await self._aget_text_embeddings(documents), documents)
        return rows

    async def async_encode_queries(self, queries: list[str]) -> list[SparseEmbedding]:
        """Encode like `encode_queries`, in a thread. Queries that wait at the same time are encoded together."""
        with self._events(queries) as rows:
            rows += map(query_terms, await self._adapted.aencode_queries(queries), queries)
        return rows

    def _get_text_embeddings(self, texts: list[str]) -> list[SparseEmbedding]:
        return _without_blanks(texts, self._adapted.encode_documents(texts))

    def _get_text_embedding(self, text: str) -> SparseEmbedding:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> SparseEmbedding:
        return _without_blanks([query], self._adapted.encode_queries([query]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[SparseEmbedding]:
        return _without_blanks(texts, await self._adapted.aencode_documents(texts))

    async def _aget_text_embedding(self, text: str) -> SparseEmbedding:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_query_embedding(self, query: str) -> SparseEmbedding:
        return _without_blanks([query], await self._adapted.aencode_queries([query]))[0]

    @contextmanager
    def _events(self, texts: list[str]) -> Iterator[list[SparseEmbedding]]:
        """Send core's Start event, yield an empty list for the caller to fill, and send core's End event."""
        rows: list[SparseEmbedding] = []
        dispatcher.event(SparseEmbeddingStartEvent(model_dict=self.to_payload()))
        yield rows
        dispatcher.event(SparseEmbeddingEndEvent(chunks=list(texts), embeddings=rows))


def _without_blanks(texts: list[str], rows: list[SparseEmbedding]) -> list[SparseEmbedding]:
    """Replace the rows of blank texts by {}. A model finds terms even in a blank text, so queries could match it."""
    return [{} if is_blank(text) else row for text, row in zip(texts, rows, strict=True)]
