"""Loads the sides of a described model when they are first wanted: each transformer once, however many sides it serves.

Knows descriptions and sides; nothing of texts, prompts or pruning.
"""

import json
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from splade_integrations.descriptions import MaskedLM, ModelDescription, Side, TokenWeights
from splade_integrations.devices import Backend
from splade_integrations.errors import UnsupportedModelError
from splade_integrations.masked_lm import load_masked_lm, load_tokenizer, resolve_max_length
from splade_integrations.sides import EncodingSide, LexicalSide, TokenWeightsSide, TransformerSide

__all__ = ["LazySides", "load_token_weights"]


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
        folder = f"{description.folder}/config.json".lstrip("/")
        config = description.repository.json(folder) or {}
        positions, tokenizer = config.get("max_position_embeddings"), self.side("query").tokenizer
        return resolve_max_length(self._max_length, description.max_length, positions, tokenizer)

    def _load(self, description: Side) -> EncodingSide:
        transformer = None if description.masked_lm is None else self._load_transformer(description.masked_lm)
        if description.token_weights is None:
            assert transformer is not None  # describe() gives a side one of them at least
            return transformer
        token_weights = load_token_weights(description.token_weights, self._max_length)
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


def load_token_weights(description: TokenWeights, max_length: int | None) -> TokenWeightsSide:
    """Load an inference-free side.

    Args:
        description: Where the tokenizer and the weights lie.
        max_length: Most tokens of a text; None takes the tokenizer's limit.
    Raises:
        UnsupportedModelError: The weights are damaged, not finite or negative.
    """
    repository = description.repository
    tokenizer = load_tokenizer(repository, description.folder)
    config = repository.json(f"{description.folder}/config.json".lstrip("/")) or {}
    weights = np.ones(config.get("vocab_size") or len(tokenizer.get_vocab()), np.float32)
    if description.file is not None:
        path = repository.path(description.file)
        if path is None:
            raise UnsupportedModelError(f"{repository.name!r} names {description.file} but has none. Fetch it again.")
        weights = _read_weights(path, tokenizer, len(weights))
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any():
        raise UnsupportedModelError(
            f"{repository.name!r} must have one token weight of 0 or more per term, got some that are negative, NaN, "
            "infinite or of another shape. Fetch it again."
        )
    return TokenWeightsSide(
        tokenizer, weights, min(tokenizer.model_max_length, 10**6) if max_length is None else max_length
    )


def _read_weights(path: Path, tokenizer: Any, size: int) -> NDArray[np.float32]:
    """Token weights of a file: (V,) float32; tokens that it does not name weigh 0."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return np.asarray(load_file(path)["weight"], np.float32)
        if path.suffix == ".bin":
            return np.asarray(torch.load(path, weights_only=True)["weight"].float().numpy(), np.float32)
        if path.suffix == ".json":
            pairs = json.loads(path.read_text(encoding="utf-8")).items()
        else:
            pairs = [line.rsplit(None, 1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        weights = np.zeros(size, np.float32)
        vocabulary = tokenizer.get_vocab()
        for token, weight in pairs:
            if token in vocabulary:
                weights[vocabulary[token]] = float(weight)
        return weights
    except Exception as err:
        raise UnsupportedModelError(f"{path.name} must hold one weight per token, got {err}. Fetch it again.") from err


def _check_one_vocabulary(model_name: str, side: EncodingSide, other: EncodingSide) -> None:
    same = side.dim == other.dim and (
        side.tokenizer is other.tokenizer or side.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    )
    if not same:
        raise UnsupportedModelError(
            f"{model_name!r} must have one vocabulary for documents and queries, got {other.dim} and {side.dim} terms "
            "that are not the same. Use a complete SPLADE model."
        )
