"""Makes sparse rows of term weights from fixed token weights, with or without a transformer.

Rows that come only from fixed weights are called inference-free. In lexical rows, the term weights that a transformer
computes are multiplied by the fixed weights.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from splade_integrations.dependencies import require_torch
from splade_integrations.errors import OptionalDependencyError, UnsupportedModelError
from splade_integrations.models.config import check_config
from splade_integrations.models.spec import TokenWeightsSpec
from splade_integrations.sparse import from_rows

__all__ = ["DenseRowModel", "LexicalRows", "LookupRows", "Progress", "RowModel", "load_token_weights"]

# A function that is called with the number of lists of token ids that were encoded since its last call. With None,
# progress is not reported.
Progress = Callable[[int], object] | None


class RowModel(Protocol):
    """Turns token ids into rows of term weights, by a transformer, a table of fixed weights, or the product of both."""

    dim: int

    def encode(self, ids: list[list[int]], progress: Progress) -> csr_array:
        """Return the term weights of N lists of token ids, in the same order. (N, dim)."""
        ...

    def locate(self, ids: list[int], terms: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find, for each of K terms, the token in `ids` that adds most to the term's weight.

        Return the position of this token in `ids`, and the share of the term's weight that it adds. (K,) each.
        """
        ...


@runtime_checkable
class DenseRowModel(RowModel, Protocol):
    """Turns token ids into rows of term weights and, in the same pass, into dense vectors."""

    hidden_size: int

    def encode_with_dense(self, ids: list[list[int]], progress: Progress) -> tuple[csr_array, NDArray[np.float32]]:
        """Return the term weights of N lists of token ids, (N, dim), and their dense vectors, (N, hidden_size)."""
        ...


class LookupRows:
    """Makes inference-free rows: each distinct token of a text counts once, with its fixed weight.

    Args:
        weights: A weight for each token id. (V,) float32.
    """

    def __init__(self, weights: NDArray[np.float32]) -> None:
        self.dim = len(weights)
        self._weights = weights

    def encode(self, ids: list[list[int]], progress: Progress) -> csr_array:
        """Return the fixed weights of the distinct tokens in each of N lists of token ids. (N, dim)."""
        rows = []
        for text_ids in ids:
            present = np.array(sorted(set(text_ids)), np.int32)  # for a query, much faster than np.unique
            weights = self._weights[present]
            if not weights.all():
                present, weights = present[weights != 0], weights[weights != 0]
            rows.append((present, weights))
        if progress is not None:
            progress(len(rows))
        return from_rows(rows, self.dim)

    def locate(self, ids: list[int], terms: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the first position at which each of K terms occurs in `ids`, and the share 1 for each term."""
        return np.array([ids.index(term) for term in terms.tolist()], np.int64), np.ones(len(terms), np.float32)


class LexicalRows:
    """Makes lexical rows, which have terms only for a text's own tokens.

    The weight of a term is the product of the transformer's term weight and the token's fixed weight.

    Args:
        transformer: The transformer.
        lookup: The fixed weights.
    Raises:
        UnsupportedModelError: The transformer and the fixed weights have vocabularies of different sizes.
    """

    def __init__(self, transformer: RowModel, lookup: LookupRows) -> None:
        if transformer.dim != lookup.dim:
            raise UnsupportedModelError(
                f"the transformer and the token weights must share a vocabulary, got vocabularies of "
                f"{transformer.dim} and {lookup.dim} terms. Use a SPLADE model whose files belong together."
            )
        self.dim = transformer.dim
        self._transformer = transformer
        self._lookup = lookup

    def encode(self, ids: list[list[int]], progress: Progress) -> csr_array:
        """Return the lexical rows of N lists of token ids. (N, dim)."""
        presence = self._lookup.encode(ids, None)  # special tokens count as own tokens, because `ids` include them
        return csr_array(self._transformer.encode(ids, progress).multiply(presence))

    def locate(self, ids: list[int], terms: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the first position at which each of K terms occurs in `ids`, and the share 1 for each term.

        There is always such a position, because a row has terms only for the text's own tokens.
        """
        return self._lookup.locate(ids, terms)


def load_token_weights(spec: TokenWeightsSpec, tokenizer: Any, dropped: Sequence[int] = ()) -> LookupRows:
    """Load fixed token weights.

    Args:
        spec: The spec that names the file of the weights.
        tokenizer: The tokenizer that the weights belong to.
        dropped: The ids of the tokens to leave out of the rows. They get the weight 0, even if the file states another.
    Raises:
        UnsupportedModelError: The weights are damaged, negative or not finite.
    """
    repository = spec.repository
    config = check_config(repository, spec.folder)
    vocabulary = tokenizer.get_vocab()
    if len(set(vocabulary.values())) < len(vocabulary):
        raise UnsupportedModelError(
            f"{repository.name!r} must have a tokenizer.json that gives each token an id of its own, got two tokens "
            "with the same id. Download the model's tokenizer.json again."
        )
    weights = np.ones(config.get("vocab_size") or len(vocabulary), np.float32)
    if spec.file is not None:
        path = repository.path(spec.file)
        if path is None:
            raise UnsupportedModelError(
                f"{repository.name!r} must have {spec.file}, got no such file. Download the model again."
            )
        weights = _read_weights(path, vocabulary, len(weights))
    token = max(vocabulary, key=vocabulary.__getitem__)
    largest = vocabulary[token]
    if weights.ndim == 1 and largest >= len(weights):
        raise UnsupportedModelError(
            f"{repository.name!r} must have a weight for each token, got {len(weights)} weights and a tokenizer that "
            f"makes the id {largest} ({token!r}). Use the tokenizer that the model was trained with."
        )
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any():
        raise UnsupportedModelError(
            f"{repository.name!r} must have exactly one finite weight of 0 or more for each term, got "
            "negative, NaN or infinite weights, or more than one weight for each term. Download the model again."
        )
    weights[list(dropped)] = 0
    return LookupRows(weights)


def _read_weights(path: Path, vocabulary: dict[str, int], size: int) -> NDArray[np.float32]:
    """Return the token weights in a file, (V,) float32. A token that the file does not name has the weight 0."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return np.asarray(load_file(path)["weight"], np.float32)
        if path.suffix == ".bin":
            with require_torch(path.parent.name, f"the token weights in {path.name}"):
                from splade_integrations.engine.load import read_torch_weight

            return read_torch_weight(path)
        if path.suffix == ".json":
            stated = dict(json.loads(path.read_text(encoding="utf-8")).items())
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            stated = dict(line.rsplit(None, 1) for line in lines if line.strip())
        known = [token for token in stated if token in vocabulary]
        weights = np.zeros(size, np.float32)
        ids = np.fromiter(map(vocabulary.__getitem__, known), np.int64)
        weights[ids] = np.fromiter((float(stated[token]) for token in known), np.float32)
        return weights
    except OptionalDependencyError:
        raise
    except Exception as err:
        raise UnsupportedModelError(
            f"{path.name} must hold one weight per token, got an error: {err}. Download it again."
        ) from err
