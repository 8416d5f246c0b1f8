"""The exact two-pass head: float32 term weights at about the cost of an int8 product.

Of some 30 000 maxima a few hundred are positive, and only those are weights. A first pass computes the whole product in
int8 and bounds every maximum from above. A second pass computes in float32 the terms whose bound is positive.
Knows tensors only. `MaxPoolHead` is its readable reference, and a test holds them equal on adversarial weights.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from splade_integrations.engine.heads.tiled import Decoder, MaxPoolHead, activate, max_logits, repeat_first_token
from splade_integrations.engine.int8_gemm import (
    QMAX_8BIT,
    int8_products_pay,
    int8_weight_qmax,
    quantize,
    to_unsigned,
)

__all__ = ["TwoPassHead"]

# Unit roundoff of float32 (24 bits of significand), in which everything but the int8 product is computed.
_FLOAT32 = 2.0**-24
# Roundings that the bound allows for beside those of a product of H terms. Some ten are counted in the proof.
_ROUNDINGS = 64
# Absolute, for numbers that underflow, above all in the squares of a norm: those below 2^-63, if the process flushes
# subnormal numbers to 0. Beside elements of up to 2^20 they add less than H 2^-41. Far below any weight that counts.
_UNDERFLOW = 2.0**-24
# Above this share of candidates the second pass would cost more than it saves, and the plain head takes the batch.
MOST_CANDIDATES = 1 / 16
# Rows of weights that are converted to float32, or quantised, at once.
_ROWS = 2048


class _Quantized(NamedTuple):
    """Vectors x = scale · integers + residual.

    Args:
        integers: (…, H) int8.
        scale: (…, 1) float32.
        residual_norm: |x - scale · integers|, rounded upward. (…,).
    """

    integers: Tensor
    scale: Tensor
    residual_norm: Tensor


class TwoPassHead:
    """Max pooling over a decoder, exact in float32, with most of the work in int8.

    Let m be a vector close to the expected inputs and r_t = h_t - m the residuals of a text's token vectors h_t. For a
    term with decoder row w let k, K_t be integers with scales s, S such that w = s k + d and r_t = S K_t + e_t. Then

        w . h_t  =  w . m  +  s S (k . K_t)  +  d . r_t  +  s k . e_t

    where k . K_t is exact, being a sum of integers in int32 (H <= 2^17). One scale S serves all tokens of a text, so
    the maximum over tokens may be taken of the integers, or of what float32 rounds them to. By Cauchy-Schwarz the last
    two products are at most |d| |r_t| and |s k| |e_t|, norms that are known. With M the maximum over t, the float32
    maximum, bias added, is positive only if

        w . m + bias + s S max(k . K_t) + |d| M|r| + |s k| M|e|
            + g |w| (5 M|r| + 3 |m|) + 2^-18 |bias| + 2^-24  >  0

    The second line is for float32: g = n u / (1 - n u), u = 2^-24, n = H + 64, and 2^-24 is for what underflows. A sum
    of H float32 products is off by at most g |a| |b| in whatever order it is taken; there are two of those here, w . m
    and the result that is bounded, w . h, where |h_t| <= |r_t| + |m|. The others are handfuls of roundings: of r_t and
    of the residuals (2 u |r_t| each, as |S K_t| <= 2 |r_t|), of the integer's conversion and its two factors
    (4 u |s k| |S K_t|, at most 16 u |w| |r_t|), and of adding the terms up. Each norm is rounded upward. A NaN anywhere
    makes the comparison fail, and counts as a candidate.

    The choice of m, its elements at most 2^20, decides the time and not the result. Near the mean of the inputs it
    makes r shorter, by a third on a trained model, and candidates fewer.

    Args:
        decoder: Its weight, (V, H), is of a floating type, H at least 2. Its centre is m.
        activation_function: As `splade_pool`.
    """

    pooling_strategy: ClassVar[str] = "max"

    def __init__(self, decoder: Decoder, activation_function: str = "relu") -> None:
        weight, bias, centre = self._weight, self._bias, _ = decoder
        self._activation_function = activation_function
        self._plain = MaxPoolHead(decoder, activation_function)
        self._centre = torch.zeros_like(weight[0], dtype=torch.float32) if centre is None else centre.float()  # (H,)
        qmax = int8_weight_qmax() or QMAX_8BIT  # whose product is exact anywhere, though not fast
        unsigned = qmax < QMAX_8BIT
        self._integers = torch.empty(  # (V, H)
            weight.shape, dtype=torch.uint8 if unsigned else torch.int8, device=weight.device
        )
        self._scales = torch.empty((len(weight), 1), dtype=torch.float32, device=weight.device)
        # What multiplies M|r| and M|e|, (V, 2), and what is the same for all texts, (V, 1).
        self._factors = torch.empty((len(weight), 2), dtype=torch.float32, device=weight.device)
        self._constants = torch.full_like(self._scales, _UNDERFLOW)
        if bias is not None:
            self._constants += (bias.float() + bias.float().abs() * 2.0**-18).unsqueeze(1)
        width = weight.shape[1] + _ROUNDINGS
        accumulation = width * _FLOAT32 / (1 - width * _FLOAT32)
        for start in range(0, len(weight), _ROWS):
            rows = slice(start, start + _ROWS)
            exact = weight[rows].float()
            quantized = _quantized(exact, exact.abs().amax(dim=1, keepdim=True), qmax)
            quantized_norms = _norms(quantized.integers.float()) * quantized.scale.squeeze(1) * (1 + 2.0**-20)
            roundings = accumulation * _norms(exact)
            self._integers[rows] = to_unsigned(quantized.integers) if unsigned else quantized.integers
            self._scales[rows] = quantized.scale
            self._factors[rows] = torch.stack([quantized.residual_norm + 5 * roundings, quantized_norms], dim=1)
            at_centre = exact @ self._centre + 3 * roundings * _norms(self._centre)
            self._constants[rows] += at_centre.unsqueeze(1)

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps beside the decoder."""
        return sum(kept.nbytes for kept in (self._integers, self._scales, self._factors, self._constants))

    @classmethod
    def suits(cls, weight: Tensor) -> bool:
        """Return whether this processor has an exact and fast int8 product."""
        return int8_products_pay(weight.device)

    def __call__(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Pool one batch.

        Args:
            hidden: What enters the decoder, padded at the end. (B, L, H) of the weight's type.
            lengths: Real tokens of each text, at least 1. (B,).
        Returns:
            Term weights, 0 or more. (B, V) float32, equal to `MaxPoolHead`'s up to float32 rounding. From 16-bit
            weights and hidden states they are what float32 arithmetic makes of those.
        """
        batch = len(hidden)
        exact = repeat_first_token(hidden, lengths).float()
        texts, terms_of_texts = self.candidates(exact).T.nonzero(as_tuple=True)  # texts ascend
        if len(texts) > MOST_CANDIDATES * batch * self._weight.shape[0]:
            return self._plain(exact, lengths)
        weights = torch.zeros((batch, self._weight.shape[0]), dtype=torch.float32, device=hidden.device)
        counts = texts.bincount(minlength=batch).tolist()
        for text, (length, terms) in enumerate(zip(lengths.tolist(), torch.split(terms_of_texts, counts), strict=True)):
            rows = self._weight.index_select(0, terms).float()  # (C, H); [terms] takes twice as long on a CPU
            maxima = linear(rows, exact[text, :length]).amax(dim=1)  # (C, l) -> (C,)
            scores = maxima if self._bias is None else maxima + self._bias[terms].float()
            weights[text, terms] = activate(scores, self._activation_function)
        return weights

    def candidates(self, hidden: Tensor) -> Tensor:
        """Return the terms whose float32 maximum may be positive: all that are positive, and few more.

        Args:
            hidden: Token vectors without padding. (B, L, H) float32.
        Returns:
            (V, B) bool.
        """
        residuals = hidden - self._centre  # (B, L, H)
        quantized = _quantized(residuals, residuals.abs().amax(dim=(1, 2), keepdim=True))
        maxima = max_logits(quantized.integers, self._integers)  # (V, B) int32 or float32
        norms = torch.stack([_norms(residuals).amax(dim=1), quantized.residual_norm.amax(dim=1)])  # (2, B)
        bound = maxima * self._scales  # (V, B) float32
        bound *= quantized.scale.view(1, -1)
        bound += self._constants
        bound.addmm_(self._factors, norms)
        # Not `bound > 0`, which would lose a NaN.
        return ~(bound <= 0)


def _quantized(vectors: Tensor, largest: Tensor, qmax: int = QMAX_8BIT) -> _Quantized:
    """Quantise vectors (…, H) so that `largest`, (…, 1), becomes `qmax`."""
    integers, scale = quantize(vectors, largest, qmax)
    residuals = torch.addcmul(vectors, integers.float(), scale, value=-1)
    # Beside the norm's own roundings: those of each residual, at most 2^-22 of its vector in length.
    return _Quantized(integers, scale, _norms(residuals) + _norms(vectors) * 2.0**-22)


def _norms(vectors: Tensor) -> Tensor:
    """Return Euclidean norms along the last axis, rounded upward."""
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return norms * (1.0 + vectors.shape[-1] * 2.0**-22)
