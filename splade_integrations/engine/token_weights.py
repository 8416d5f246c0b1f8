"""Runs a model that gives each token of a text one weight, as BGE-M3 does, and returns rows of token weights.

This module works on tensors and token ids. It handles no texts, prompts, tokenizers or pruning.
"""

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from splade_integrations.engine.batching import BatchedModel, PaddedBatch, Progress
from splade_integrations.engine.compute import Compute
from splade_integrations.engine.heads import Decoder
from splade_integrations.engine.load import positions_of
from splade_integrations.engine.memory import keep_freed_memory
from splade_integrations.engine.model import MaskedLM, NetworkOutput
from splade_integrations.engine.optimize import optimize
from splade_integrations.engine.products import exact_float32
from splade_integrations.errors import UnsupportedModelError, first_line
from splade_integrations.models.repository import Repository
from splade_integrations.models.token_heads import SPARSE_LINEAR

__all__ = ["TokenWeightModel", "load_token_weigher", "max_of_equal_tokens"]


class TokenWeightModel(BatchedModel):
    """A transformer with a linear layer that gives each token one weight. It turns token ids into rows of weights.

    The weight of a token is relu(w · h + b), where h is the token's last hidden state, and w and b are the linear
    layer's weight and bias. The weight of a term is the largest weight of the text's tokens that are this term. The
    weight of terms that are not in the text is 0.

    Args:
        model: The transformer. Its decoder is the linear layer, with a weight of (1, H).
        padding_id: The token id to pad with. The attention mask hides the padding.
        max_batch_tokens: As in `BatchedModel`.
        max_batch_texts: As in `BatchedModel`.
        num_threads: As in `BatchedModel`.
        runs_apart: As in `BatchedModel`.

    Source:
        Chen et al., M3-Embedding, arXiv:2402.03216, "lexical retrieval"; FlagEmbedding computes the same.
    """

    def __init__(
        self,
        model: MaskedLM,
        *,
        padding_id: int,
        max_batch_tokens: int | None = None,
        max_batch_texts: int | None = None,
        num_threads: int | None = None,
        runs_apart: bool = True,
    ) -> None:
        assert model.decoder is not None
        self._linear = model.decoder
        self.hidden_size = model.decoder.weight.shape[1]
        super().__init__(
            model.device,
            model.dim,
            hidden_size=self.hidden_size,
            padding_id=padding_id,
            ignores_padding=model.ignores_padding,
            skips_padding=model.skips_padding,
            max_batch_tokens=max_batch_tokens,
            max_batch_texts=max_batch_texts,
            num_threads=num_threads,
            runs_apart=runs_apart,
        )
        self.model = model

    def term_weights(self, batch: PaddedBatch) -> Tensor:
        """Run one batch through the model. Returns (B, V) float32."""
        return self._pooled(self.model.hidden(batch.input_ids, batch.attention_mask), batch)

    def encode_with_dense(self, ids: Sequence[list[int]], progress: Progress) -> tuple[csr_array, NDArray[np.float32]]:
        """Encode texts as `encode` does, and also return their dense vectors from the same run of the model.

        A text's dense vector is the last hidden state of its first token, scaled to length 1.

        Args:
            ids: The token ids of N texts, special tokens included.
            progress: A function that is called with the number of texts encoded since its last call, or None.
        Returns:
            The token weights, (N, V) float32, and the dense vectors, (N, H) float32. A text without any token has a
            dense vector of zeros.
        """

        def both(batch: PaddedBatch) -> Tensor:  # (B, H + V)
            hidden = self.model.hidden(batch.input_ids, batch.attention_mask)
            return torch.cat([normalize(hidden[:, 0].float(), dim=-1), self._pooled(hidden, batch)], dim=1)

        rows = self._rows(ids, progress, both, self.hidden_size + self.dim)
        return rows[:, self.hidden_size :], rows[:, : self.hidden_size].toarray()

    def locate(self, ids: list[int], terms: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return, for each term, its token with the largest weight, and this token's share of the term's weight.

        The term's whole weight comes from this token, so the share is 1.

        Args:
            ids: The token ids of one text.
            terms: K term ids, which all occur in `ids`.
        Returns:
            The positions of the tokens in `ids`, and their shares, (K,) each.
        """
        # With more than one thread, helper threads would be left behind (see threads.py).
        with exact_float32(self.model.device, threads=1):
            batch = PaddedBatch.of([ids], self.model.device, self._padding_id)
            weights = self._token_weights(self.model.hidden(batch.input_ids, batch.attention_mask))[0].cpu().numpy()
        tokens = np.asarray(ids)
        places = [int(np.where(tokens == term, weights, -1.0).argmax()) for term in terms.tolist()]
        return np.array(places, np.int64), np.ones(len(places), np.float32)

    def _token_weights(self, hidden: Tensor) -> Tensor:
        """Return relu(w · h + b) in float32, (B, L), for hidden states h, (B, L, H)."""
        weight, bias, _ = self._linear
        return torch.relu(linear(hidden.float(), weight, bias)).squeeze(-1)

    def _pooled(self, hidden: Tensor, batch: PaddedBatch) -> Tensor:
        return max_of_equal_tokens(self._token_weights(hidden), batch.input_ids, batch.attention_mask, self.dim)


def max_of_equal_tokens(weights: Tensor, input_ids: Tensor, attention_mask: Tensor, vocabulary: int) -> Tensor:
    """Return each term's largest weight over the tokens that are this term. Terms without a token get 0.

    Args:
        weights: The tokens' weights, 0 or more. (B, L).
        input_ids: The tokens' ids. (B, L).
        attention_mask: 1 for real tokens, 0 for padding. (B, L).
        vocabulary: The number of terms, V.
    Returns:
        (B, V), of the type of `weights`.

    Example:
        >>> weights, ids, mask = torch.tensor([[0.5, 0.25, 0.75]]), torch.tensor([[2, 1, 2]]), torch.tensor([[1, 1, 0]])
        >>> max_of_equal_tokens(weights, ids, mask, vocabulary=4)  # the last token is padding
        tensor([[0.0000, 0.2500, 0.5000, 0.0000]])
    """
    pooled = weights.new_zeros((len(weights), vocabulary))
    return pooled.scatter_reduce(1, input_ids, weights * attention_mask, reduce="amax")


def load_token_weigher(repository: Repository, folder: str, compute: Compute) -> MaskedLM:
    """Load a transformer and the linear layer that weighs its tokens, and make the transformer fast.

    The linear layer is read with torch's weights-only loader, which runs no code.

    Args:
        repository: The repository of the checkpoint.
        folder: The checkpoint's folder within the repository. "" is the root.
        compute: Where and how the model computes.
    Returns:
        The transformer. Its decoder is the linear layer, in float32, and its `dim` is the size of the vocabulary.
    Raises:
        FileNotFoundError: A file is missing.
        UnsupportedModelError: Weights are missing, damaged or not finite, or do not fit each other.
    """
    from splade_integrations.engine.pretrained import read_backbone  # takes seconds to import

    backbone = read_backbone(repository, folder, compute.weights_dtype)
    config = backbone.config
    path = repository.path(SPARSE_LINEAR)
    if path is None:
        raise FileNotFoundError(f"{repository.name!r} must have {SPARSE_LINEAR}, got no such file. Download it again.")
    linear_layer = _read_linear(repository.name, path, config.hidden_size)

    def prepared() -> MaskedLM:
        network = _Backbone(backbone.eval().requires_grad_(False)).to(compute.device)
        if compute.device.type == "cpu":
            keep_freed_memory()
        weight, bias = (part.to(compute.device) for part in linear_layer)
        _, ignores_padding = optimize(repository.name, network, compute)
        return MaskedLM(network, Decoder(weight, bias), config.vocab_size, positions_of(network), ignores_padding)

    return compute.run(prepared)


class _Backbone(nn.Module):
    """A transformer without a head, which can be called like a masked LM without its decoder."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.base_model = backbone

    @property
    def config(self) -> Any:
        return self.base_model.config

    @property
    def device(self) -> torch.device:
        device: torch.device = self.base_model.device
        return device

    def get_input_embeddings(self) -> Any:
        return self.base_model.get_input_embeddings()

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, return_dict: bool = True) -> NetworkOutput:
        states = self.base_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=return_dict)
        return NetworkOutput(logits=states.last_hidden_state)


def _read_linear(name: str, path: Path, hidden_size: int) -> tuple[Tensor, Tensor]:
    """Return the weight, (1, H), and the bias, (1,), of the linear layer in a file, as float32."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, KeyError, EOFError, OSError, AttributeError, UnpicklingError) as err:
        raise UnsupportedModelError(
            f"{name!r} must have a {path.name} of plain tensors, got an error: {first_line(err)} Download it again."
        ) from err
    expected = {"weight": (1, hidden_size), "bias": (1,)}
    found = {key: tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)} if (
        isinstance(state, dict)
    ) else type(state).__name__  # fmt: skip
    if found != expected:
        raise UnsupportedModelError(
            f"{name!r} must have a {path.name} with one weight for each of the {hidden_size} hidden dimensions and "
            f"with one bias (shapes {expected}), got {found}. Use the file that the model was trained with."
        )
    weight, bias = state["weight"].float(), state["bias"].float()
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise UnsupportedModelError(
            f"{name!r} must have finite weights in {path.name}, got NaN or infinity. Download it again."
        )
    return weight, bias
