"""An adapter that lets LangChain's Milvus stores use a SPLADE encoder. It returns dicts of {token id: weight}."""

from typing import Unpack

from splade_integrations.adapter import AdaptedEncoder, document_terms, query_terms
from splade_integrations.langchain.interface import BaseSparseEmbedding
from splade_integrations.models.fingerprint import Fingerprint
from splade_integrations.options import EncoderOptions
from splade_integrations.sparse import SparseTextEncoder

__all__ = ["SpladeSparseEmbedding"]

_SPLITTER = "RecursiveCharacterTextSplitter.from_huggingface_tokenizer(encoder.tokenizer, chunk_size={size})"


class SpladeSparseEmbedding(BaseSparseEmbedding):
    """SPLADE embeddings for `hybrid_milvus`, and for `langchain_milvus.Milvus(embedding_function=[dense, sparse], …)`.

    The async methods, `aembed_documents` and `aembed_query`, run in a thread and leave the event loop free. Async
    queries that wait at the same time are encoded together. If a document has no words, or the model finds no terms for
    it, the document gets a placeholder vector. Milvus can store this vector, but no query finds it. A query without
    words or terms finds nothing.

    If the object was made with `model_name`, its pickle holds only the name and the options, not the model. The first
    use after unpickling loads the model again.

    Args:
        encoder: The encoder to use: a `SpladeEncoder`, or any object with `encode_documents` and `encode_queries`.
            Any number of objects and threads may share one encoder.
        model_name: The model to load, instead of an encoder: a folder, or `org/model` on the hub.
        dynamic_batching: Whether async queries that wait at the same time are encoded in one call.
        **encoder_options: Further options of `SpladeEncoder`, such as `device` or `max_length`. Allowed only with
            `model_name`.

    Raises:
        TypeError: Neither or both of `encoder` and `model_name` are given, or an option is unknown.

    Example:
        >>> sparse = SpladeSparseEmbedding(model_name=model_folder)
        >>> document, empty = sparse.embed_documents(["Alan Turing was born in London.", ""])
        >>> query = sparse.embed_query("Where was Turing born?")
        >>> sum(weight * document.get(term, 0.0) for term, weight in query.items()) > 1
        True
    """

    def __init__(
        self,
        *,
        encoder: SparseTextEncoder | None = None,
        model_name: str | None = None,
        dynamic_batching: bool = True,
        **encoder_options: Unpack[EncoderOptions],
    ) -> None:
        self._adapted = AdaptedEncoder(
            encoder, model_name, dynamic_batching=dynamic_batching, splitter=_SPLITTER, **encoder_options
        )

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

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Embed all documents in one call of the encoder.

        Args:
            texts: N texts.
        Returns:
            N dicts {token id: weight} of plain Python numbers.
        Raises:
            TypeError: `texts` is a single str, or an item is not a str. The message names the position of the item.
        """
        rows = self._adapted.encode_documents(texts)
        return [document_terms(row, text) for row, text in zip(rows, texts, strict=True)]

    def embed_query(self, query: str) -> dict[int, float]:
        """Embed one query as a dict {token id: weight} of plain Python numbers."""
        return query_terms(self._adapted.encode_queries([query])[0], query)

    def embed_queries(self, queries: list[str]) -> list[dict[int, float]]:
        """Embed N queries in one call of the encoder, as N dicts {token id: weight}."""
        rows = self._adapted.encode_queries(queries)
        return [query_terms(row, query) for row, query in zip(rows, queries, strict=True)]

    async def aembed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Embed documents like `embed_documents`, in a thread."""
        rows = await self._adapted.aencode_documents(texts)
        return [document_terms(row, text) for row, text in zip(rows, texts, strict=True)]

    async def aembed_query(self, query: str) -> dict[int, float]:
        """Embed a query like `embed_query`, in a thread. Queries that wait at the same time are encoded together."""
        return query_terms((await self._adapted.aencode_queries([query]))[0], query)
