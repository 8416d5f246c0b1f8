"""`AdaptedEncoder`, which all adapters use. An adapter connects an encoder to a framework, such as LangChain.

`AdaptedEncoder` holds the encoder, and returns each text's sparse row, which is a dict {token id: weight}. It has
methods for synchronous and for asynchronous callers. This module needs neither LangChain nor LlamaIndex. Torch is
loaded together with the first model, not when this module is imported.
"""

import asyncio
import unicodedata
from typing import Any, Unpack

from splade_integrations.dynamic_batching import QueryBatcher, query_batcher
from splade_integrations.encoding.text_warnings import splitter_of_caller
from splade_integrations.forks import ForkSafeLock
from splade_integrations.models.fingerprint import Fingerprint, fingerprint_of
from splade_integrations.options import EncoderOptions
from splade_integrations.sparse import SparseTextEncoder, encoded, to_dicts

__all__ = ["EMPTY_QUERY", "AdaptedEncoder", "document_terms", "is_blank", "query_terms", "resolve_encoder"]

# These two rows, {token id: weight}, stand for a document without terms and for a query without terms. Milvus accepts
# token ids up to 2^32 - 2. No vocabulary is that large, so no real term has one of the two ids below. The ids differ,
# so that an empty query does not find an empty document.
_EMPTY_DOCUMENT = {2**32 - 2: 1e-6}
EMPTY_QUERY = {2**32 - 3: 1e-6}


def resolve_encoder(
    encoder: SparseTextEncoder | None = None, model_name: str | None = None, **options: Unpack[EncoderOptions]
) -> SparseTextEncoder:
    """Return `encoder`, or load the model called `model_name`.

    Args:
        encoder: Any object with `encode_documents` and `encode_queries`.
        model_name: The folder of a model or its name on the hub, as in `SpladeEncoder`. Give either `model_name` or
            `encoder`.
        **options: Further options of `SpladeEncoder`. They are allowed only with `model_name`. `SpladeEncoder` refuses
            unknown options.
    Raises:
        TypeError: `encoder` and `model_name` are both given or both missing. Or options are given together with
            `encoder`. Or `encoder` lacks `encode_documents` or `encode_queries`.

    Example:
        >>> resolve_encoder()
        Traceback (most recent call last):
        TypeError: encoder or model_name must be given, got neither. Pass encoder=SpladeEncoder(…) or model_name='…'.
    """
    if encoder is None:
        if model_name is None:
            raise TypeError(
                "encoder or model_name must be given, got neither. Pass encoder=SpladeEncoder(…) or model_name='…'."
            )
        from splade_integrations.encoder import SpladeEncoder  # loads torch

        return SpladeEncoder(model_name, **options)
    if model_name is not None or options:
        extra = ", ".join((["model_name"] if model_name is not None else []) + sorted(options))
        raise TypeError(
            f"encoder must be given alone, got {extra} as well. Give the options to SpladeEncoder(…) when you make the "
            "encoder, or pass model_name and the options without an encoder."
        )
    missing = [name for name in ("encode_documents", "encode_queries") if not callable(getattr(encoder, name, None))]
    if missing:
        raise TypeError(
            f"encoder must have the methods encode_documents and encode_queries, got {type(encoder).__name__} without "
            f"{' and '.join(missing)}. Pass a SpladeEncoder, or model_name='…' to load one."
        )
    return encoder


class AdaptedEncoder:
    """Wraps an encoder for use by adapters. Any number of adapters and threads may share one encoder.

    If an `AdaptedEncoder` was made with `model_name`, its pickle holds the name and the options. After unpickling, the
    first use loads the model again. If an `AdaptedEncoder` was made with `encoder`, its pickle holds the encoder
    itself. Pickling then fails for a `SpladeEncoder`, which cannot be pickled. `copy.deepcopy` returns the same object.

    Args:
        encoder: See `resolve_encoder`.
        model_name: See `resolve_encoder`.
        dynamic_batching: Whether asynchronous queries that are waiting at the same time are encoded together. These
            queries may come from different adapters that share the encoder. If False, each asynchronous call runs in a
            separate thread.
        splitter: A line of Python code that makes the framework's text splitter. The warning about truncated documents
            shows this code. In the code, "{size}" stands for the number of tokens that fit.
        **options: See `resolve_encoder`.

    Raises:
        TypeError: See `resolve_encoder`.

    Example:
        >>> adapted = AdaptedEncoder(model_name=model_folder, max_length=64)
        >>> rows = adapted.encode_documents(["Alan Turing was born in London."])
        >>> asyncio.run(adapted.aencode_documents(["Alan Turing was born in London."])) == rows
        True
    """

    def __init__(
        self,
        encoder: SparseTextEncoder | None = None,
        model_name: str | None = None,
        *,
        dynamic_batching: bool = True,
        splitter: str | None = None,
        **options: Unpack[EncoderOptions],
    ) -> None:
        self._encoder: SparseTextEncoder | None = resolve_encoder(encoder, model_name, **options)
        self._source = (model_name, options) if encoder is None else None
        self._dynamic_batching = dynamic_batching
        self._splitter = splitter
        self._start()

    def _start(self) -> None:
        self._loading = ForkSafeLock()
        self._batcher: QueryBatcher | None = None

    @property
    def encoder(self) -> SparseTextEncoder:
        """The encoder. The first access after unpickling loads it."""
        if self._encoder is None:
            with self._loading:
                if self._encoder is None:  # another thread may have loaded it meanwhile
                    assert self._source is not None  # an object made without a model name always has `_encoder`
                    model_name, options = self._source
                    self._encoder = resolve_encoder(model_name=model_name, **options)
        return self._encoder

    @property
    def fingerprint(self) -> Fingerprint | None:
        """The encoder's `Fingerprint`, or None if the encoder has none."""
        return fingerprint_of(self.encoder)

    def encode_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Encode N texts in one call of the encoder. Returns N dicts {token id: weight} of plain Python numbers."""
        outer = splitter_of_caller.set(self._splitter)
        try:
            return encoded(self.encoder.encode_documents, texts)
        finally:
            splitter_of_caller.reset(outer)

    def encode_queries(self, texts: list[str]) -> list[dict[int, float]]:
        """Encode queries in the same way as `encode_documents` encodes documents."""
        return encoded(self.encoder.encode_queries, texts)

    async def aencode_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Run `encode_documents` in a thread.

        If the encoder has its own method `aencode_documents`, as `RemoteEncoder` has, that method is awaited instead.
        """
        if (own := getattr(self._encoder, "aencode_documents", None)) is not None:
            return to_dicts(await own(texts))
        return await asyncio.to_thread(self.encode_documents, texts)

    async def aencode_queries(self, texts: list[str]) -> list[dict[int, float]]:
        """Run `encode_queries` in a thread. With dynamic batching, waiting queries are encoded together.

        If the encoder has its own method `aencode_queries`, as `RemoteEncoder` has, that method is awaited instead.
        """
        if (own := getattr(self._encoder, "aencode_queries", None)) is not None:
            return to_dicts(await own(texts))
        if not self._dynamic_batching:
            return await asyncio.to_thread(self.encode_queries, texts)
        if self._batcher is None:  # `self` holds the batcher, because a batcher that no object holds is freed
            # After unpickling, the first use of `self.encoder` loads the model. A thread does this, so that the event
            # loop goes on.
            self._batcher = await asyncio.to_thread(lambda: query_batcher(self.encoder))
        return await self._batcher.encode(texts)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "_encoder": self._encoder if self._source is None else None,
            "_source": self._source,
            "_dynamic_batching": self._dynamic_batching,
            "_splitter": self._splitter,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __deepcopy__(self, memo: dict[int, Any]) -> "AdaptedEncoder":
        return self  # adapters may share one object


def is_blank(text: str) -> bool:
    r"""Return whether a text is empty or has only white space, control characters and punctuation.

    A model returns terms even for such a text, because it also reads special tokens such as [SEP]. If these terms were
    stored, many queries would find the text.

    Example:
        >>> is_blank(""), is_blank(" \t\u200b"), is_blank("..."), is_blank("C"), is_blank("→")
        (True, True, True, False, False)
    """
    return all(char.isspace() or unicodedata.category(char)[0] in "CPZ" for char in text)


def document_terms(terms: dict[int, float], text: str) -> dict[int, float]:
    """Return a document's sparse row or, if it has no terms, a placeholder that Milvus stores and no query finds.

    Without the placeholder, milvus-lite 3 would refuse the whole insert batch that holds the empty row.

    Args:
        terms: The document's row, {token id: weight}.
        text: The text that was embedded. A blank text gets the placeholder, whatever its terms are.
    """
    return dict(_EMPTY_DOCUMENT) if is_blank(text) or not any(terms.values()) else terms


def query_terms(terms: dict[int, float], text: str) -> dict[int, float]:
    """Return a query's sparse row or, if it has no terms, a placeholder that finds nothing.

    The arguments are as in `document_terms`.
    """
    return dict(EMPTY_QUERY) if is_blank(text) or not any(terms.values()) else terms
