"""The head for large bfloat16 decoders: float32 term weights at about the cost of a bfloat16 product.

This head first finds the terms that may have a positive weight, which are called candidates. Then it computes the
weights of the candidates in float32. `TwoPassHead` looks for candidates with an int8 copy of the decoder. This copy is
large if the vocabulary is large, as in models such as Qwen3 (150 000 terms). In addition, the hidden states of such
models have a few large elements. So the upper bounds by which `TwoPassHead` finds candidates are loose. `BFloat16Head`
looks for candidates with the bfloat16 weights themselves.
"""

import platform
from typing import ClassVar

import torch
from torch import Tensor

from splade_integrations.engine.heads.tiled import (
    MOST_CANDIDATES,
    UNDERFLOW,
    Decoder,
    MaxPoolHead,
    max_logits,
    norms,
    repeat_first_token,
    second_pass,
    sum_error,
)

__all__ = ["BFloat16Head"]

# A decoder with at least this number of weights counts as large. Its int8 copy would take 64 MiB or more.
_LARGE = 2**26
# The number of rows of the decoder weight that are converted to float32 at a time.
_ROWS = 2048


class BFloat16Head:
    """Max pooling of a decoder's logits, exact in float32, with most of the work in bfloat16.

    Let w be the row of the decoder's weight for one term, and h the vector of a token. Their product is summed in
    float32 and then rounded to bfloat16, which has 8 significant bits. Let c be the rounded product. Then the exact
    product is at most c + 2^-8 |c| + g |w| |h|, with g as in `sum_error`. This bound grows with c and with |h|. So it
    also bounds the largest exact product over a text's tokens, if c is the largest rounded product and |h| is replaced
    by the largest norm, M|h|. With these values of c and M|h|, the term's weight is positive only if

        c + 2^-8 |c| + g |w| M|h| + bias + 2^-18 |bias| + 2^-24  >  0

    The terms for which this holds are the candidates. The second pass computes their weights in float32. If any number
    is NaN, the term counts as a candidate.

    Args:
        decoder: The decoder. Its weight, (V, H), is bfloat16. With other floating types, the head is correct, but not
            fast.
        activation_function: As in `splade_pool`.
    """

    pooling_strategy: ClassVar[str] = "max"

    def __init__(self, decoder: Decoder, activation_function: str = "relu") -> None:
        self._decoder, self._activation_function = decoder, activation_function
        self._plain = MaxPoolHead(decoder, activation_function)
        weight, bias, _ = decoder
        row_norms = torch.cat([norms(weight[start : start + _ROWS].float()) for start in range(0, len(weight), _ROWS)])
        self._errors = (sum_error(weight.shape[1]) * row_norms).unsqueeze(1)  # (V, 1)
        self._constants = torch.full_like(self._errors, UNDERFLOW)
        if bias is not None:
            self._constants += (bias.float() + bias.float().abs() * 2.0**-18).unsqueeze(1)

    @classmethod
    def suits(cls, weight: Tensor) -> bool:
        """Return whether this is a large bfloat16 decoder on a processor that multiplies bfloat16 fast."""
        if weight.dtype != torch.bfloat16 or weight.device.type != "cpu" or weight.numel() < _LARGE:
            return False
        # On x86, bfloat16 products are known to be summed in float32.
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        return x86 and torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # type: ignore[no-untyped-call]

    def __call__(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Pool one batch.

        Args:
            hidden: The hidden states that enter the decoder, padded at the end. (B, L, H) of the weight's type.
            lengths: The number of tokens of each text without padding, at least 1. (B,).
        Returns:
            Term weights, 0 or more. (B, V) float32, equal to those of `MaxPoolHead` for the decoder and the hidden
            states in float32, up to float32 rounding.
        """
        tokens = repeat_first_token(hidden, lengths)
        texts, terms = self.candidates(tokens).T.nonzero(as_tuple=True)  # in ascending order of texts
        if len(texts) > MOST_CANDIDATES * len(hidden) * len(self._decoder.weight):
            return self._plain(tokens.float(), lengths)
        return second_pass(self._decoder, self._activation_function, tokens.float(), lengths, texts, terms)

    def candidates(self, hidden: Tensor) -> Tensor:
        """Find the candidates, which are all terms whose largest logit in float32 is positive, and few other terms.

        Args:
            hidden: Token vectors, with padding already replaced by `repeat_first_token`. (B, L, H).
        Returns:
            Whether each term is a candidate for each text. (V, B) bool.
        """
        bound = max_logits(hidden, self._decoder.weight).float()  # (V, B)
        bound += bound.abs() * 2.0**-8
        bound += self._constants
        bound.addmm_(self._errors, norms(hidden.float()).amax(dim=1).unsqueeze(0))
        # Unlike `bound > 0`, this is True for NaN.
        return ~(bound <= 0)
