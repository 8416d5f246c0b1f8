"""Sides with a fixed weight for each token: inference-free ones, and lexical ones, which scale a transformer's weights.

Knows where such weights lie and how they are looked up; nothing of prompts, pruning or adapters.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from splade_integrations.encoding.tokenizer import TextTokenizer, TokenIds
from splade_integrations.encoding.transformer import Progress, TransformerSide
from splade_integrations.engine.load import load_tokenizer
from splade_integrations.errors import UnsupportedModelError
from splade_integrations.models.repository import path_in
from splade_integrations.models.spec import TokenWeights
from splade_integrations.sparse import from_rows

__all__ = ["LexicalSide", "TokenWeightsSide", "load_token_weights"]


class TokenWeightsSide:
    """An inference-free side: each token that a text has, once, with its fixed weight. Special tokens are not added.

    Args:
        tokenizer: The tokenizer.
        weights: A weight per token id. (V,) float32.
        max_length: Most tokens of a text.
    """

    def __init__(self, tokenizer: Any, weights: NDArray[np.float32], max_length: int) -> None:
        self.dim = len(weights)
        self.max_length = max_length
        self.tokenizer = tokenizer
        self.tokenize = TextTokenizer(tokenizer, max_length, add_special_tokens=False)
        self._weights = weights

    def encode(self, token_ids: TokenIds, progress: Progress) -> csr_array:
        """Look the weights up. (N, dim)."""
        rows = []
        for ids in token_ids.ids:
            present = np.unique(np.asarray(ids, np.int32))
            present = present[self._weights[present] != 0] if present.size else present
            rows.append((present, self._weights[present]))
        progress(len(rows))
        return from_rows(rows, self.dim)

    def locate(self, ids: list[int], terms: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The first place of each of these tokens, and 1. (K,) each."""
        return np.array([ids.index(term) for term in terms.tolist()], np.int64), np.ones(len(terms), np.float32)


class LexicalSide:
    """A transformer's weights on the tokens that a text has, without expansion, times a fixed weight.

    Args:
        transformer: The transformer's side.
        token_weights: The fixed weights.
    Raises:
        UnsupportedModelError: Their vocabularies differ.
    """

    def __init__(self, transformer: TransformerSide, token_weights: TokenWeightsSide) -> None:
        if transformer.dim != token_weights.dim:
            raise UnsupportedModelError(
                f"the transformer and the token weights must share a vocabulary, got {transformer.dim} and "
                f"{token_weights.dim} terms. Use a complete SPLADE model."
            )
        self.dim = transformer.dim
        self.max_length = transformer.max_length
        self.tokenizer = transformer.tokenizer
        self.tokenize = transformer.tokenize
        self._transformer = transformer
        self._token_weights = token_weights

    def encode(self, token_ids: TokenIds, progress: Progress) -> csr_array:
        """The transformer's rows, on their own tokens only. (N, dim)."""
        presence = self._token_weights.encode(token_ids, lambda _: None)  # special tokens included
        return csr_array(self._transformer.encode(token_ids, progress).multiply(presence))

    def locate(self, ids: list[int], terms: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The first place of each of these tokens, without which it has no weight, and 1. (K,) each."""
        return self._token_weights.locate(ids, terms)


def load_token_weights(
    description: TokenWeights, max_length: int | None, *, trust_remote_code: bool = False
) -> TokenWeightsSide:
    """Load an inference-free side.

    Args:
        description: Where the tokenizer and the weights lie.
        max_length: Most tokens of a text; None takes the tokenizer's limit.
        trust_remote_code: Let the tokenizer be code of the repository's own.
    Raises:
        UnsupportedModelError: The weights are damaged, not finite or negative.
    """
    repository = description.repository
    tokenizer = load_tokenizer(repository, description.folder, trust_remote_code=trust_remote_code)
    config = repository.json(path_in(description.folder, "config.json")) or {}
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
