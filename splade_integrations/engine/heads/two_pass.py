"""The exact two-pass head: float32 term weights at about the cost of an int8 product.

A text's maximum for a term is the term's largest logit over the text's tokens. A text has about 30 000 maxima, one per
term. Only a few hundred of them are positive, and only these become term weights. The first pass computes all logits in
int8, and from them an upper bound for every maximum. Terms with a positive bound are called candidates. The second pass
computes the maxima of the candidates in float32. `MaxPoolHead` computes the same weights in a simpler way. A test
checks that both heads return the same results for adversarial weights.
"""

from typing import ClassVar, NamedTuple

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
from splade_integrations.engine.int8_gemm import (
    QMAX_8BIT,
    int8_products_pay,
    int8_weight_qmax,
    quantize,
    to_unsigned,
)

__all__ = ["TwoPassHead"]

# After a batch with too many candidates, one batch skips the first pass. If the next first pass also finds too many,
# two batches skip it, then four, and so on up to this number of batches. This limits the time that is lost on a model
# for which the first pass never pays. After a batch with few candidates, the count begins at one again.
MOST_LEFT_OUT = 64
# The number of rows of the decoder weight that are converted to float32 and quantised at a time.
_ROWS = 2048


class _Quantized(NamedTuple):
    """Vectors x, written as scale · integers + residual.

    Args:
        integers: (…, H) int8.
        scale: (…, 1) float32.
        residual_norm: |x - scale · integers|, rounded upward. (…,).
    """

    integers: Tensor
    scale: Tensor
    residual_norm: Tensor


class TwoPassHead:
    """Max pooling of a decoder's logits, exact in float32, with most of the work in int8.

    Let h_t be the vectors of a text's tokens t, and let r_t = h_t - m, where m is a vector close to the expected
    inputs. Let w be the row of the decoder's weight for one term. Both w and r_t are quantised: w = s k + d and
    r_t = S K_t + e_t, where k and K_t are vectors of integers, s and S are scales, and d and e_t are residuals. Then

        w . h_t  =  w . m  +  s S (k . K_t)  +  d . r_t  +  s k . e_t

    Here k . K_t is exact, because it is a sum of integers in int32 (for vectors of length H <= 2^17). All tokens of a
    text share one scale S. So the maximum over tokens, max(k . K_t), can be taken before scaling, either of the
    integers or of their float32 values. By Cauchy-Schwarz, the last two summands are at most |d| |r_t| and |s k|
    |e_t|, and these norms are known. M denotes the maximum over t: M|r| is the largest |r_t|. The maximum of a term in
    float32, with the bias added, is positive only if

        w . m + bias + s S max(k . K_t) + |d| M|r| + |s k| M|e|
            + g |w| (5 M|r| + 3 |m|) + 2^-18 |bias| + 2^-24  >  0

    The second line allows for the rounding errors of float32. In it, g = n u / (1 - n u) with u = 2^-24 and n = H + 64.
    Its last summand, 2^-24, allows for underflow. If a . b is summed in float32, its error is at most g |a| |b| in any
    order of summation. There are two such sums: w . m, and w . h_t, which is the logit to be bounded. In the error of w
    . h_t, |h_t| is at most |r_t| + |m|. All other errors come from three steps, each of which rounds a few times:

    - r_t and the residuals are rounded (2 u |r_t| each, because |S K_t| <= 2 |r_t|).
    - The integer k . K_t is converted to float32 and multiplied by s and S (4 u |s k| |S K_t|, at most
      16 u |w| |r_t|).
    - The summands are added.

    Each norm is rounded upward. If any number is NaN, the term counts as a candidate.

    The elements of m must be at most 2^20. The choice of m affects the speed, but not the result. If m is near the mean
    of the inputs, the vectors r_t are shorter than h_t (by a third on a trained model). Then the bounds are tighter,
    and there are fewer candidates.

    Args:
        decoder: The decoder. Its weight, (V, H), has a floating type, with H at least 2. Its `centre` is m.
        activation_function: As in `splade_pool`.
    """

    pooling_strategy: ClassVar[str] = "max"

    def __init__(self, decoder: Decoder, activation_function: str = "relu") -> None:
        weight, bias, centre = self._decoder = decoder
        self._activation_function = activation_function
        self._plain = MaxPoolHead(decoder, activation_function)
        # How many batches will still skip the first pass, and how many skip it the next time. If threads change these
        # numbers at the same time, a count may be lost.
        self._left_out, self._next_left_out = 0, 1
        self._centre = torch.zeros_like(weight[0], dtype=torch.float32) if centre is None else centre.float()  # (H,)
        qmax = int8_weight_qmax() or QMAX_8BIT  # if None, `torch._int_mm` multiplies, exactly but slowly
        unsigned = qmax < QMAX_8BIT
        self._integers = torch.empty(  # (V, H)
            weight.shape, dtype=torch.uint8 if unsigned else torch.int8, device=weight.device
        )
        self._scales = torch.empty((len(weight), 1), dtype=torch.float32, device=weight.device)
        # Parts of the upper bound. `_factors`, (V, 2), holds the factors of M|r| and M|e|. `_constants`, (V, 1), holds
        # the sum of the summands that are the same for all texts.
        self._factors = torch.empty((len(weight), 2), dtype=torch.float32, device=weight.device)
        self._constants = torch.full_like(self._scales, UNDERFLOW)
        if bias is not None:
            self._constants += (bias.float() + bias.float().abs() * 2.0**-18).unsqueeze(1)
        accumulation = sum_error(weight.shape[1])
        for start in range(0, len(weight), _ROWS):
            rows = slice(start, start + _ROWS)
            exact = weight[rows].float()
            quantized = _quantized(exact, exact.abs().amax(dim=1, keepdim=True), qmax)
            quantized_norms = norms(quantized.integers.float()) * quantized.scale.squeeze(1) * (1 + 2.0**-20)
            roundings = accumulation * norms(exact)
            self._integers[rows] = to_unsigned(quantized.integers) if unsigned else quantized.integers
            self._scales[rows] = quantized.scale
            self._factors[rows] = torch.stack([quantized.residual_norm + 5 * roundings, quantized_norms], dim=1)
            at_centre = exact @ self._centre + 3 * roundings * norms(self._centre)
            self._constants[rows] += at_centre.unsqueeze(1)

    @property
    def nbytes(self) -> int:
        """The number of bytes that the head keeps in addition to the decoder."""
        return sum(kept.nbytes for kept in (self._integers, self._scales, self._factors, self._constants))

    @classmethod
    def suits(cls, weight: Tensor) -> bool:
        """Return whether int8 products are exact and fast on this processor."""
        return int8_products_pay(weight.device)

    def __call__(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Pool one batch.

        Args:
            hidden: The hidden states that enter the decoder, padded at the end. (B, L, H) of the weight's type.
            lengths: The number of tokens of each text without padding, at least 1. (B,).
        Returns:
            Term weights, 0 or more. (B, V) float32, equal to those of `MaxPoolHead` up to float32 rounding. A
            decoder and hidden states in 16 bits are converted to float32 first.
        """
        batch = len(hidden)
        exact = repeat_first_token(hidden, lengths).float()
        if self._left_out > 0:
            self._left_out -= 1
            return self._plain(exact, lengths)
        texts, terms = self.candidates(exact).T.nonzero(as_tuple=True)  # in ascending order of texts
        if len(texts) > MOST_CANDIDATES * batch * len(self._decoder.weight):
            self._left_out = self._next_left_out
            self._next_left_out = min(2 * self._next_left_out, MOST_LEFT_OUT)
            return self._plain(exact, lengths)
        self._next_left_out = 1
        return second_pass(self._decoder, self._activation_function, exact, lengths, texts, terms)

    def candidates(self, hidden: Tensor) -> Tensor:
        """Find the candidates, which are all terms with a positive maximum in float32, and few other terms.

        Args:
            hidden: Token vectors, with padding already replaced by `repeat_first_token`. (B, L, H) float32.
        Returns:
            Whether each term is a candidate for each text. (V, B) bool.
        """
        residuals = hidden - self._centre  # (B, L, H)
        quantized = _quantized(residuals, residuals.abs().amax(dim=(1, 2), keepdim=True))
        maxima = max_logits(quantized.integers, self._integers)  # (V, B) int32 or float32
        longest = torch.stack([norms(residuals).amax(dim=1), quantized.residual_norm.amax(dim=1)])  # (2, B)
        bound = maxima * self._scales  # (V, B) float32
        bound *= quantized.scale.view(1, -1)
        bound += self._constants
        bound.addmm_(self._factors, longest)
        # Unlike `bound > 0`, this is True for NaN.
        return ~(bound <= 0)


def _quantized(vectors: Tensor, largest: Tensor, qmax: int = QMAX_8BIT) -> _Quantized:
    """Quantise vectors (…, H) so that `largest`, (…, 1), becomes `qmax`."""
    integers, scale = quantize(vectors, largest, qmax)
    residuals = torch.addcmul(vectors, integers.float(), scale, value=-1)
    # `norms` allows for its own roundings. The roundings of a residual change the residual's norm by at most 2^-22 of
    # the vector's norm, so this much is added.
    return _Quantized(integers, scale, norms(residuals) + norms(vectors) * 2.0**-22)
