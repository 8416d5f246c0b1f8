"""The exact two-pass head: float32 term weights at about the cost of a bfloat16 product.

Of some 30 000 maxima few hundred are positive, and only those are weights. A first pass takes the whole product in
bfloat16 and bounds every maximum from above; a second one computes in float32 the terms whose bound is positive.
Knows tensors only. `max_pool_head` is its readable twin, and a test holds them equal on adversarial weights.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear

from splade_integrations.head import activate, max_logits, max_pool_head, repeat_first_token

__all__ = ["TwoPassHead", "coarse_products_pay"]

# Unit roundoffs: of bfloat16 (8 bits of significand) and of float32 (24 bits), in which products are accumulated.
_BFLOAT16 = 2.0**-8
_FLOAT32 = 2.0**-24
# What the bound itself may lose by being computed in float32: a few operations, rounded up generously.
_SLACK = 1.0 + 2.0**-18
# Absolute: covers numbers too small for their type, for weights and hidden states up to 2^20. Far below any weight.
_UNDERFLOW = 2.0**-80
# Above this share of candidates the second pass would cost more than it saves, and the plain head takes the batch.
_MOST_CANDIDATES = 1 / 16
# Tokens of a text x hidden size below which the bound, some passes over (V, B), costs more than it saves.
_LEAST_WORK = 4096


class TwoPassHead:
    """Max pooling over a decoder, exact in float32, most of it computed in bfloat16.

    For a term with decoder row w and a text's token vectors h_t, let w~, h~ be their bfloat16 copies. Then

        w . h  =  w~ . h~  +  (w - w~) . h  +  w~ . (h - h~)

    and by Cauchy-Schwarz the last two are at most |w - w~| |h| and |w~| |h - h~|: norms of residuals that are known
    exactly, where a bound from the type's relative error would be wider and fail for numbers below its range.
    A float32 sum of H products is off by at most g |a| |b|, g = H u / (1 - H u), u = 2^-24, in whatever order it is
    taken. The coarse product is rounded to bfloat16 once more: what it stands for is at most c + 2^-8 |c|. Rounding is
    monotone, so the maximum over tokens may be taken first. With m = max over t, the float32 maximum, bias added, is
    positive only if

        c + 2^-8 |c| + bias + m|h| |w - w~| + m|h - h~| |w~| + g (m|h~| |w~| + m|h| |w|) + underflow  >  0

    where every norm is rounded upward. A NaN anywhere makes the comparison fail, and is counted as a candidate.

    The proof needs float32 accumulation in the coarse product. `coarse_products_pay` checks it on this processor.

    Args:
        weight: Decoder weight. (V, H) float32.
        bias: Decoder bias. (V,) float32 or None.
        activation_function: As `splade_pool`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, activation_function: str = "relu") -> None:
        self._weight = weight
        self._bias = bias
        self._activation_function = activation_function
        self._coarse = weight.bfloat16()
        width = weight.shape[1] + 8  # eight more roundings pay for the additions that make the bound itself
        accumulation = width * _FLOAT32 / (1 - width * _FLOAT32)
        coarse = self._coarse.float()
        exact_norm, coarse_norm = _norms(weight), _norms(coarse)
        # What multiplies m|h|, m|h - h~| and m|h~|. (V, 3)
        self._factors = torch.stack(
            [_norms(weight - coarse) + accumulation * exact_norm, coarse_norm, accumulation * coarse_norm], dim=1
        )
        self._bias_column = 0.0 if bias is None else bias.unsqueeze(1)  # (V, 1)

    def __call__(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Pool one batch.

        Args:
            hidden: What enters the decoder, padded at the end. (B, L, H) float32.
            lengths: Real tokens of each text, at least 1. (B,).
        Returns:
            Term weights, 0 or more. (B, V) float32, equal to `max_pool_head`'s up to float32 rounding.
        """
        batch, longest, width = hidden.shape
        if longest * width < _LEAST_WORK:
            return max_pool_head(hidden, lengths, self._weight, self._bias, self._activation_function)
        hidden = repeat_first_token(hidden, lengths)
        texts, terms_of_texts = self.candidates(hidden).T.nonzero(as_tuple=True)  # by rising text
        if len(texts) > _MOST_CANDIDATES * batch * self._weight.shape[0]:
            return max_pool_head(hidden, lengths, self._weight, self._bias, self._activation_function)
        weights = torch.zeros((batch, self._weight.shape[0]), dtype=torch.float32, device=hidden.device)
        counts = texts.bincount(minlength=batch).tolist()
        for text, (length, terms) in enumerate(zip(lengths.tolist(), torch.split(terms_of_texts, counts), strict=True)):
            maxima = linear(self._weight[terms], hidden[text, :length]).amax(dim=1)  # (C, l) -> (C,)
            scores = maxima if self._bias is None else maxima + self._bias[terms]
            weights[text, terms] = activate(scores, self._activation_function)
        return weights

    def candidates(self, hidden: Tensor) -> Tensor:
        """Terms whose float32 maximum may be positive: all that are, and few more.

        Args:
            hidden: Token vectors, all of them real. (B, L, H) float32.
        Returns:
            (V, B) bool.
        """
        coarse_hidden = hidden.bfloat16()
        maxima = max_logits(coarse_hidden, self._coarse).float()  # (V, B)
        back = coarse_hidden.float()
        lengths = torch.stack([_norms(part).amax(dim=1) for part in (hidden, hidden - back, back)])  # (3, B)
        margin = (self._factors @ lengths) * _SLACK + _UNDERFLOW  # (V, B)
        bound = maxima.abs().mul_(_BFLOAT16 * _SLACK).add_(maxima).add_(margin).add_(self._bias_column)
        # Not `bound > 0`, which would lose a NaN.
        return ~(bound <= 0)


def coarse_products_pay(device: torch.device) -> bool:
    """Whether this processor multiplies bfloat16 faster than float32, and accumulates such products in float32.

    The second is tested: 256 and many halves, each of which a bfloat16 accumulator would lose.
    """
    if device.type != "cpu" or not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return False
    for width in (128, 768, 1024, 4096):
        row = torch.full((64, width), 0.5, dtype=torch.bfloat16, device=device)
        row[:, 0] = 256.0
        ones = torch.ones((64, width), dtype=torch.bfloat16, device=device)
        expected = torch.tensor(256 + 0.5 * (width - 1)).bfloat16()
        if not (linear(row, ones) == expected).all():
            return False
    return True


def _norms(vectors: Tensor) -> Tensor:
    """Euclidean norms along the last axis, rounded upward."""
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return norms * (1.0 + vectors.shape[-1] * 2.0**-22)
