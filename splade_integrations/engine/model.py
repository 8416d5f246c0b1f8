"""Runs a masked language model on batches of token ids, and returns rows of term weights.

This module works on tensors and token ids. It handles no texts, prompts, tokenizers or pruning.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear

from splade_integrations.engine.batching import BatchedModel, PaddedBatch
from splade_integrations.engine.heads import Decoder, choose
from splade_integrations.engine.heads.tiled import activate, splade_pool
from splade_integrations.engine.layers import has_fused_layers
from splade_integrations.engine.products import exact_float32

__all__ = ["MaskedLM", "NetworkOutput", "SpladeModel"]

# The largest number of bytes of a batch's logits, for a model whose head writes all logits to memory. The logits have
# the shape (B, L, V) for B texts of L tokens and V terms.
_LOGITS_BYTES = 256 * 2**20


class NetworkOutput(NamedTuple):
    """What `MaskedLM.network` returns. Models of transformers return an object with further attributes."""

    logits: Tensor


@dataclass(frozen=True)
class MaskedLM:
    """A masked LM and, where possible, its decoder as a separate part.

    The decoder is the last linear layer of the masked LM's head.

    Args:
        network: A model of transformers, or one that is called like it. If `decoder` is given, the model's own decoder
            has been replaced by the identity.
        decoder: The decoder, or None if the head does not end in a plain linear layer.
        dim: Vocabulary size V, which is the number of logits per token. It can differ from the tokenizer's number of
            tokens.
        positions: The largest number of tokens that the model has positions for, or None if there is no limit.
        ignores_padding: Whether padding leaves a text's results unchanged. In models that mix tokens by convolution or
            by a Fourier transform, padding changes the results.
    """

    network: Any
    decoder: Decoder | None
    dim: int
    positions: int | None
    ignores_padding: bool

    @property
    def skips_padding(self) -> bool:
        """Whether the layers skip padding, as fused layers do on a CPU (see `TokenRows` in layers.py)."""
        return self.device.type == "cpu" and has_fused_layers(self.network.base_model)

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        device: torch.device = self.network.device
        return device

    @property
    def embedded_tokens(self) -> int:
        """The number of token ids that the model has embeddings for."""
        return int(self.network.get_input_embeddings().weight.shape[0])

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the hidden states that enter the decoder, (B, L, H).

        Both arguments have the shape (B, L). `decoder` must not be None.
        """
        # transformers calls this output "logits". Here it holds hidden states, because the identity has replaced the
        # decoder.
        states: Tensor = self.network(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).logits
        return states

    def logits(self, input_ids: Tensor, attention_mask: Tensor, terms: Tensor | None = None) -> Tensor:
        """Return the logits of the masked LM.

        Args:
            input_ids: (B, L).
            attention_mask: 1 for real tokens, 0 for padding. (B, L).
            terms: The ids of the K terms to return, (K,), or None for all terms.
        Returns:
            (B, L, K), or (B, L, V) for all terms. The type is that of the model's weights.
        """
        if self.decoder is None:
            logits: Tensor = self.network(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).logits
            return logits if terms is None else logits[..., terms]
        weight, bias, _ = self.decoder
        if terms is not None:
            weight, bias = weight[terms], None if bias is None else bias[terms]
        return linear(self.hidden(input_ids, attention_mask), weight, bias)


class SpladeModel(BatchedModel):
    """A masked LM with SPLADE pooling, which turns token ids into rows of term weights.

    Args:
        model: The masked LM.
        pooling_strategy: "max" or "sum".
        activation_function: "relu" or "log1p_relu".
        padding_id: The token id to pad with. The attention mask hides the padding.
        max_batch_tokens: As in `BatchedModel`.
        max_batch_texts: As in `BatchedModel`.
        num_threads: As in `BatchedModel`.
        runs_apart: As in `BatchedModel`.
    """

    def __init__(
        self,
        model: MaskedLM,
        *,
        pooling_strategy: str,
        activation_function: str,
        padding_id: int,
        max_batch_tokens: int | None = None,
        max_batch_texts: int | None = None,
        num_threads: int | None = None,
        runs_apart: bool = True,
    ) -> None:
        super().__init__(
            model.device,
            model.dim,
            hidden_size=768 if model.decoder is None else model.decoder.weight.shape[1],
            padding_id=padding_id,
            ignores_padding=model.ignores_padding,
            skips_padding=model.skips_padding,
            max_batch_tokens=max_batch_tokens,
            max_batch_texts=max_batch_texts,
            num_threads=num_threads,
            runs_apart=runs_apart,
        )
        self.model = model
        self._pooling_strategy, self._activation_function = pooling_strategy, activation_function
        if model.decoder is None:
            self.max_batch_tokens = max(1, min(self.max_batch_tokens, _LOGITS_BYTES // (4 * self.dim)))
            self.head = None
        else:
            with exact_float32(model.device):
                self.head = choose(model.decoder, pooling_strategy, activation_function)

    def term_weights(self, batch: PaddedBatch) -> Tensor:
        """Run one batch through the model. Returns (B, V) float32."""
        if self.head is None:
            logits = self.model.logits(batch.input_ids, batch.attention_mask)
            return splade_pool(logits, batch.attention_mask, self._pooling_strategy, self._activation_function)
        return self.head(self.model.hidden(batch.input_ids, batch.attention_mask), batch.lengths)

    def locate(self, ids: list[int], terms: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return, for each term, the token with the largest logit, and this token's share of the term's weight.

        With max pooling, the whole weight comes from this token, so the share is 1.

        Args:
            ids: The token ids of one text.
            terms: K term ids.
        Returns:
            The positions of the tokens in `ids`, and their shares, (K,) each.
        """
        device = self.model.device
        with exact_float32(device, threads=1):  # more threads would leave helper threads behind (see threads.py)
            batch = PaddedBatch.of([ids], device, self._padding_id)
            wanted = torch.as_tensor(terms, dtype=torch.long, device=device)
            logits = self.model.logits(batch.input_ids, batch.attention_mask, wanted)[0].float()  # (L, K)
            tokens = logits.argmax(dim=0)
            shares = torch.ones(len(wanted), device=device)
            if self._pooling_strategy == "sum":
                parts = activate(logits, self._activation_function)
                shares = parts.amax(dim=0) / parts.sum(dim=0).clamp_min(torch.finfo(parts.dtype).tiny)
        return tokens.cpu().numpy(), shares.cpu().numpy()
