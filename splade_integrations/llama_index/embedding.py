"""The encoder as LlamaIndex wants it, by both of its interfaces: `{token id: weight}`. Knows no Milvus connection."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.base.embeddings.base_sparse import BaseSparseEmbedding, SparseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.embedding import SparseEmbeddingEndEvent, SparseEmbeddingStartEvent
from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction

from splade_integrations.adapting import resolve_encoder
from splade_integrations.encoder import SpladeEncoder
from splade_integrations.milvus_settings import searchable, storable
from splade_integrations.sparse import SparseEncoder, to_dicts

__all__ = ["SpladeSparseEmbedding"]

dispatcher = get_dispatcher(__name__)
_loading = threading.Lock()


class SpladeSparseEmbedding(BaseSparseEmbedding, BaseSparseEmbeddingFunction):
    """SPLADE embeddings, both LlamaIndex core's `BaseSparseEmbedding` and its Milvus store's function.

    Core's methods (`get_text_embedding_batch`, `get_query_embedding`, …) give `{}` for a text without any active term.
    Milvus's (`encode_documents`, `encode_queries`, …) give a placeholder there that Milvus stores and no query finds.
    Every call is one Start and one End event (core's batch methods: one for `embed_batch_size` texts) and encodes in
    one batched call; async methods run in a thread and leave the event loop free.

    Made by `model_name` it pickles as name and options, and loads the model again when it is next used. Made from an
    `encoder` it pickles that object, which a `SpladeEncoder` refuses. Copies share the encoder.

    Args:
        encoder: The encoder to use: a `SpladeEncoder`, or any object with `encode_documents` and `encode_queries`.
            Any number of adapters and threads may share one.
        model_name: Or the model to load: a folder, or `org/model` on the hub.
        embed_batch_size: Texts of one batch of core's methods, at most 2 048. The encoder bounds its own memory.
        num_workers: Batches that core's async method encodes at a time. None leaves it to the thread pool.
        **encoder_options: With `model_name`: further options of `SpladeEncoder`, such as `device` or `max_length`.

    Raises:
        TypeError: Neither or both of `encoder` and `model_name` are given, or an option is unknown.

    Example:
        >>> sparse = SpladeSparseEmbedding(model_name=model_folder)
        >>> document = sparse.get_text_embedding("Alan Turing was born in London.")
        >>> query = sparse.get_query_embedding("Where was Turing born?")
        >>> sum(weight * document.get(term, 0.0) for term, weight in query.items()) > 1
        True
    """

    _encoder: SparseEncoder | None = PrivateAttr()
    _options: dict[str, Any] | None = PrivateAttr()

    def __init__(
        self,
        *,
        encoder: SparseEncoder | None = None,
        model_name: str | None = None,
        embed_batch_size: int = 512,
        num_workers: int | None = None,
        **encoder_options: Any,
    ) -> None:
        resolved = resolve_encoder(encoder, model_name, encoder_options)
        name = str(model_name or getattr(encoder, "model_name", type(encoder).__name__))
        super().__init__(model_name=name, embed_batch_size=embed_batch_size, num_workers=num_workers)
        self._encoder = resolved
        self._options = encoder_options if encoder is None else None

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form and in events."""
        return "SpladeSparseEmbedding"

    @property
    def encoder(self) -> SparseEncoder:
        """The encoder; after unpickling it is loaded here."""
        if self._encoder is None:
            with _loading:
                if self._encoder is None:
                    self._encoder = resolve_encoder(None, self.model_name, self._options or {})
        return self._encoder

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        if self._options is not None:
            state["__pydantic_private__"] = {**state["__pydantic_private__"], "_encoder": None}
        elif isinstance(self._encoder, SpladeEncoder):
            raise TypeError(
                "encoder must be of a kind that pickles, got SpladeEncoder, whose model is large. Make the adapter by "
                "name, SpladeSparseEmbedding(model_name=…, …): then name and options are pickled."
            )
        return state

    def __deepcopy__(self, memo: Any = None) -> "SpladeSparseEmbedding":
        return self.model_copy()  # all fields are immutable; the model stays one

    def encode_documents(self, documents: list[str]) -> list[SparseEmbedding]:
        """Encode documents for Milvus, all in one call of the encoder.

        Args:
            documents: N texts.
        Returns:
            N dicts of {token id: weight}, plain Python numbers.
        Raises:
            TypeError: A bare str, or an item that is not a str (its position is named).
        """
        with self._events(documents) as rows:
            rows += map(storable, self._get_text_embeddings(documents))
        return rows

    def encode_queries(self, queries: list[str]) -> list[SparseEmbedding]:
        """Encode queries for Milvus: as `encode_documents`, with the encoder's query side."""
        with self._events(queries) as rows:
            rows += map(searchable, self._get_query_embeddings(queries))
        return rows

    async def async_encode_documents(self, documents: list[str]) -> list[SparseEmbedding]:
        """As `encode_documents`, in a thread."""
        return await asyncio.to_thread(self.encode_documents, documents)

    async def async_encode_queries(self, queries: list[str]) -> list[SparseEmbedding]:
        """As `encode_queries`, in a thread."""
        return await asyncio.to_thread(self.encode_queries, queries)

    def _get_text_embeddings(self, texts: list[str]) -> list[SparseEmbedding]:
        return to_dicts(self.encoder.encode_documents(texts))

    def _get_query_embeddings(self, queries: list[str]) -> list[SparseEmbedding]:
        return to_dicts(self.encoder.encode_queries(queries))

    def _get_text_embedding(self, text: str) -> SparseEmbedding:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> SparseEmbedding:
        return self._get_query_embeddings([query])[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[SparseEmbedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    async def _aget_text_embedding(self, text: str) -> SparseEmbedding:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_query_embedding(self, query: str) -> SparseEmbedding:
        return await asyncio.to_thread(self._get_query_embedding, query)

    @contextmanager
    def _events(self, texts: list[str]) -> Iterator[list[SparseEmbedding]]:
        """Announce a call that fills the list it is given, as core announces its own."""
        rows: list[SparseEmbedding] = []
        dispatcher.event(SparseEmbeddingStartEvent(model_dict=self.to_payload()))
        yield rows
        dispatcher.event(SparseEmbeddingEndEvent(chunks=list(texts), embeddings=rows))
