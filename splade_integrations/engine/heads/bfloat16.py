"""Exact float32 term weights of a bfloat16 decoder, at about the cost of a bfloat16 product.

The two-pass head uses this head for batches in which its int8 products rule out too few terms. `MaxPoolHead` in float32
is the readable reference, and a test checks that both are equal.
"""

from typing import ClassVar

import torch
from torch import Tensor

from splade_integrations.engine.heads.tiled import (
    Decoder,
    MaxPoolHead,
    exact_weights,
    max_logits,
    repeat_first_token,
)

__all__ = ["BFloat16Head"]

# The largest rounding of a float32 sum of H products of bfloat16 numbers, as a share of |w| |h|, for H <= 2^11. Each
# addition rounds by at most 2^-24 of the sum so far. A processor may round by twice as much, because it may cut instead
# of rounding.
_ACCUMULATION = 2.0**-12
_LARGEST_HIDDEN_SIZE = 2**11
# A result is rounded to the 8 significant bits of bfloat16.
_RESULT = 2.0**-8
# The largest share of terms whose float32 weights are computed. With more, the plain head in float32 takes no longer.
_MOST_CANDIDATES = 1 / 8


class BFloat16Head:
    """Max pooling in two passes. The first pass multiplies in bfloat16, and the second in float32.

    The first pass gives an upper bound of each maximum. It is tight, because bfloat16 products are summed in float32.
    The second pass computes only the terms whose bound is positive.

    Args:
        decoder: The decoder. Its weight, (V, H), and the hidden states are bfloat16.
        activation_function: As in `splade_pool`.
    """

    pooling_strategy: ClassVar[str] = "max"

    def __init__(self, decoder: Decoder, activation_function: str = "relu") -> None:
        self._decoder, self._activation_function = decoder, activation_function
        self._plain = MaxPoolHead(decoder, activation_function)
        parts = [torch.linalg.vector_norm(rows.float(), dim=1) for rows in torch.split(decoder.weight, 4096)]
        self._norms = torch.cat(parts).unsqueeze(1)  # (V, 1)

    @classmethod
    def suits(cls, weight: Tensor) -> bool:
        """Return whether this processor multiplies bfloat16 numbers fast, and the bound holds for a decoder weight."""
        return (
            weight.device.type == "cpu"
            and weight.dtype == torch.bfloat16
            and weight.shape[1] <= _LARGEST_HIDDEN_SIZE
            and bool(torch.cpu._is_avx512_bf16_supported())
        )

    def __call__(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Pool one batch. Takes (B, L, H) and (B,), and returns (B, V) float32, equal to `MaxPoolHead` in float32."""
        repeated = repeat_first_token(hidden, lengths)
        exact = repeated.float()
        maxima = max_logits(repeated, self._decoder.weight).float()  # (V, B)
        bound = maxima + maxima.abs() * _RESULT
        bound += self._norms * torch.linalg.vector_norm(exact, dim=-1).amax(dim=1) * _ACCUMULATION
        if self._decoder.bias is not None:
            bound += self._decoder.bias.float().unsqueeze(1)
        candidates = ~(bound <= 0)  # unlike `bound > 0`, this is True for NaN
        if candidates.count_nonzero() > _MOST_CANDIDATES * candidates.numel():
            return self._plain(exact, lengths)
        return exact_weights(self._decoder, exact, lengths, candidates, self._activation_function)
