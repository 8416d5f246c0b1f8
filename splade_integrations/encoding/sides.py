"""Loads the sides of a described model when they are first wanted: each transformer once, however many sides it serves.

Knows descriptions and sides; nothing of texts, prompts or pruning.
"""

from threading import Lock
from typing import Any

import torch

from splade_integrations.encoding.lookup import LexicalSide, load_token_weights
from splade_integrations.encoding.transformer import EncodingSide, TransformerSide
from splade_integrations.engine.compute import Backend
from splade_integrations.engine.load import load_masked_lm, resolve_max_length
from splade_integrations.errors import UnsupportedModelError
from splade_integrations.models.layouts import stated_positions
from splade_integrations.models.repository import path_in
from splade_integrations.models.spec import MaskedLM, ModelDescription, Side

__all__ = ["LazySides"]


class LazySides:
    """The document and the query side of a model.

    Args:
        model_name: What the model was asked for by, for messages.
        description: Of the model.
        device: Where the weights go.
        dtype: Type of the weights.
        backend: As `load_masked_lm`.
        max_length: Most tokens of a text, or None for the model's own limit.
        max_batch_tokens: As `TransformerSide`.
        max_batch_texts: As `TransformerSide`.
        trust_remote_code: Let the repository run code of its own.
    """

    def __init__(
        self,
        model_name: str,
        description: ModelDescription,
        *,
        device: torch.device,
        dtype: torch.dtype,
        backend: Backend,
        max_length: int | None,
        max_batch_tokens: int | None,
        max_batch_texts: int | None,
        trust_remote_code: bool,
    ) -> None:
        self._model_name = model_name
        self._description = description
        self._max_length = max_length
        self._weights_options: dict[str, Any] = {
            "device": device,
            "dtype": dtype,
            "backend": backend,
            "trust_remote_code": trust_remote_code,
        }
        self._batch_limits: dict[str, Any] = {
            "max_batch_tokens": max_batch_tokens,
            "max_batch_texts": max_batch_texts,
        }
        self._loading = Lock()
        self._sides: dict[str, EncodingSide] = {}
        self._transformers: list[tuple[MaskedLM, TransformerSide]] = []

    def side(self, name: str) -> EncodingSide:
        """The "document" or the "query" side.

        Raises:
            UnsupportedModelError: It cannot be loaded, or the two sides differ in their vocabularies.
        """
        ready = self._sides.get(name)
        if ready is not None:  # and waits for no other side, whose weights may take minutes to download
            return ready
        with self._loading:
            if name not in self._sides:
                side = self._load(getattr(self._description, name))
                for other in self._sides.values():
                    _check_one_vocabulary(self._model_name, side, other)
                self._sides[name] = side
            return self._sides[name]

    def max_length(self) -> int:
        """Most tokens of a document, special ones included. Loads no transformer that is not loaded yet.

        Raises:
            ValueError: More was asked for than the model has positions for.
        """
        description = self._description.document.masked_lm
        if description is None or "document" in self._sides:
            return self.side("document").max_length
        config = description.repository.json(path_in(description.folder, "config.json")) or {}
        tokenizer = self.side("query").tokenizer
        return resolve_max_length(self._max_length, description.max_length, stated_positions(config), tokenizer)

    def _load(self, description: Side) -> EncodingSide:
        transformer = None if description.masked_lm is None else self._load_transformer(description.masked_lm)
        if description.token_weights is None:
            assert transformer is not None  # describe() gives a side one of them at least
            return transformer
        token_weights = load_token_weights(
            description.token_weights,
            self._max_length,
            trust_remote_code=self._weights_options["trust_remote_code"],
        )
        return token_weights if transformer is None else LexicalSide(transformer, token_weights)

    def _load_transformer(self, description: MaskedLM) -> TransformerSide:
        """A transformer, which both sides of a symmetric model share."""
        for known, side in self._transformers:
            if known == description:
                return side
        loaded = load_masked_lm(description.repository, description.folder, **self._weights_options)
        max_length = resolve_max_length(self._max_length, description.max_length, loaded.positions, loaded.tokenizer)
        side = TransformerSide(description, loaded, max_length=max_length, **self._batch_limits)
        self._transformers.append((description, side))
        return side


def _check_one_vocabulary(model_name: str, side: EncodingSide, other: EncodingSide) -> None:
    same = side.dim == other.dim and (
        side.tokenizer is other.tokenizer or side.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    )
    if not same:
        raise UnsupportedModelError(
            f"{model_name!r} must have one vocabulary for documents and queries, got {other.dim} and {side.dim} terms "
            "that are not the same. Use a complete SPLADE model."
        )
