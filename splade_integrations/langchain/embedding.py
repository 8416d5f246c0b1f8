"""The encoder as LangChain's Milvus store wants it: lists of `{token id: weight}`. Knows no Milvus connection."""

from typing import Any

from langchain_milvus.utils.sparse import BaseSparseEmbedding

from splade_integrations.adapting import resolve_encoder
from splade_integrations.milvus_settings import searchable, storable
from splade_integrations.sparse import SparseEncoder, to_dicts

__all__ = ["SpladeSparseEmbedding"]


class SpladeSparseEmbedding(BaseSparseEmbedding):  # type: ignore[misc]  # langchain_milvus is untyped
    """SPLADE embeddings for `langchain_milvus.Milvus(embedding_function=[dense, sparse], …)`.

    The async twins, `aembed_documents` and `aembed_query`, run in a thread and leave the event loop free. A text
    without any active term gets a placeholder that Milvus stores and no query finds.

    Args:
        encoder: The encoder to use: a `SpladeEncoder`, or any object with `encode_documents` and `encode_queries`.
            Any number of adapters and threads may share one.
        model_name: Or the model to load: a folder, or `org/model` on the hub.
        **encoder_options: With `model_name`: further options of `SpladeEncoder`, such as `device` or `max_length`.

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
        self, *, encoder: SparseEncoder | None = None, model_name: str | None = None, **encoder_options: Any
    ) -> None:
        self.encoder = resolve_encoder(encoder, model_name, encoder_options)

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Embed documents, all in one call of the encoder.

        Args:
            texts: N texts.
        Returns:
            N dicts of {token id: weight}, plain Python numbers.
        Raises:
            TypeError: A bare str, or an item that is not a str (its position is named).
        """
        return [storable(row) for row in to_dicts(self.encoder.encode_documents(texts))]

    def embed_query(self, query: str) -> dict[int, float]:
        """Embed one query as {token id: weight}, plain Python numbers."""
        return searchable(to_dicts(self.encoder.encode_queries([query]))[0])
