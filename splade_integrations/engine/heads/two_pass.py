"""The exact two-pass head: float32 term weights at about the cost of an int8 product.

Of some 30 000 maxima few hundred are positive, and only those are weights. A first pass takes the whole product in
int8 and bounds every maximum from above; a second one computes in float32 the terms whose bound is positive.
Knows tensors only. `max_pool_head` is its readable twin, and a test holds them equal on adversarial weights.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from splade_integrations.engine.heads.tiled import activate, max_logits, max_pool_head, repeat_first_token
from splade_integrations.engine.int8_gemm import EIGHT_BITS, int8_weight_levels, to_int8_grid, to_unsigned

__all__ = ["TwoPassHead"]

# Unit roundoff of float32 (24 bits of significand), in which everything but the int8 product is computed.
_FLOAT32 = 2.0**-24
# Roundings that the bound allows for beside those of a product of H terms. Some ten are counted in the proof.
_ROUNDINGS = 64
# Absolute, for numbers that underflow, most of all in the squares of a norm: those below 2^-63, if the process flushes
# what is not normal to 0. Beside elements of up to 2^20 they add less than H 2^-41. Far below any weight that counts.
_UNDERFLOW = 2.0**-24
# Above this share of candidates the second pass would cost more than it saves, and the plain head takes the batch.
_MOST_CANDIDATES = 1 / 16
# Rows of weights that are made float32, or taken apart, at once.
_ROWS = 2048


class _Grid(NamedTuple):
    """Vectors x = step · integers + rest.

    Args:
        integers: (…, H) int8.
        step: (…, 1) float32.
        rest_norm: |x - step · integers|, rounded upward. (…,).
    """

    integers: Tensor
    step: Tensor
    rest_norm: Tensor


class TwoPassHead:
    """Max pooling over a decoder, exact in float32, most of it computed in int8.

    Let m be one vector near those that come, r_t = h_t - m what is left of a text's token vectors h_t. For a term with
    decoder row w let k, K_t be integers with steps s, S such that w = s k + d and r_t = S K_t + e_t. Then

        w . h_t  =  w . m  +  s S (k . K_t)  +  d . r_t  +  s k . e_t

    where k . K_t is exact, being a sum of integers in int32 (H <= 2^17). One step S serves all tokens of a text, so the
    maximum over tokens may be taken of the integers, or of what float32 rounds them to. By Cauchy-Schwarz the last two
    products are at most |d| |r_t| and |s k| |e_t|, norms that are known. With M the maximum over t, the float32
    maximum, bias added, is positive only if

        w . m + bias + s S max(k . K_t) + |d| M|r| + |s k| M|e|
            + g |w| (5 M|r| + 3 |m|) + 2^-18 |bias| + 2^-24  >  0

    The second line is for float32: g = n u / (1 - n u), u = 2^-24, n = H + 64, and 2^-24 is for what underflows. A sum
    of H float32 products is off by at most g |a| |b| in whatever order it is taken; there are two of those here, w . m
    and the result that is bounded, w . h, where |h_t| <= |r_t| + |m|. The others are handfuls of roundings: of r_t and
    of the rests (2 u |r_t| each, as |S K_t| <= 2 |r_t|), of the integer's conversion and its two factors
    (4 u |s k| |S K_t|, at most 16 u |w| |r_t|), and of adding the terms up. Each norm is rounded upward. A NaN anywhere
    makes the comparison fail, and is counted as a candidate.

    What m is, its elements at most 2^20, decides the time and not the result: near the mean of what comes, it makes r
    shorter, by a third on a trained model, and candidates fewer.

    Args:
        weight: Decoder weight. (V, H) of a floating type, H at least 2.
        bias: Decoder bias. (V,) or None.
        activation_function: As `splade_pool`.
        centre: m. (H,), or None for 0.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, activation_function: str = "relu", centre: Tensor | None = None
    ) -> None:
        self._weight = weight
        self._bias = bias
        self._activation_function = activation_function
        self._centre = torch.zeros_like(weight[0], dtype=torch.float32) if centre is None else centre.float()  # (H,)
        levels = int8_weight_levels() or EIGHT_BITS  # whose product is exact anywhere, though not fast
        unsigned = levels < EIGHT_BITS
        integers = torch.uint8 if unsigned else torch.int8
        self._integers = torch.empty(weight.shape, dtype=integers, device=weight.device)  # (V, H)
        self._steps = torch.empty((len(weight), 1), dtype=torch.float32, device=weight.device)
        # What multiplies M|r| and M|e|, (V, 2), and what is the same for all texts, (V, 1).
        self._factors = torch.empty((len(weight), 2), dtype=torch.float32, device=weight.device)
        self._constants = torch.full_like(self._steps, _UNDERFLOW)
        if bias is not None:
            self._constants += (bias.float() + bias.float().abs() * 2.0**-18).unsqueeze(1)
        width = weight.shape[1] + _ROUNDINGS
        accumulation = width * _FLOAT32 / (1 - width * _FLOAT32)
        for start in range(0, len(weight), _ROWS):
            rows = slice(start, start + _ROWS)
            exact = weight[rows].float()
            grid = _to_grid(exact, exact.abs().amax(dim=1, keepdim=True), levels)
            grid_norms = _norms(grid.integers.float()) * grid.step.squeeze(1) * (1 + 2.0**-20)
            roundings = accumulation * _norms(exact)
            self._integers[rows] = to_unsigned(grid.integers) if unsigned else grid.integers
            self._steps[rows] = grid.step
            self._factors[rows] = torch.stack([grid.rest_norm + 5 * roundings, grid_norms], dim=1)
            at_centre = exact @ self._centre + 3 * roundings * _norms(self._centre)
            self._constants[rows] += at_centre.unsqueeze(1)

    def __call__(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Pool one batch.

        Args:
            hidden: What enters the decoder, padded at the end. (B, L, H) of the weight's type.
            lengths: Real tokens of each text, at least 1. (B,).
        Returns:
            Term weights, 0 or more. (B, V) float32, equal to `max_pool_head`'s up to float32 rounding. From 16-bit
            weights and hidden states they are what float32 arithmetic makes of those.
        """
        batch = len(hidden)
        exact = repeat_first_token(hidden, lengths).float()
        texts, terms_of_texts = self.candidates(exact).T.nonzero(as_tuple=True)  # by rising text
        if len(texts) > _MOST_CANDIDATES * batch * self._weight.shape[0]:
            return max_pool_head(exact, lengths, self._weight, self._bias, self._activation_function)
        weights = torch.zeros((batch, self._weight.shape[0]), dtype=torch.float32, device=hidden.device)
        counts = texts.bincount(minlength=batch).tolist()
        for text, (length, terms) in enumerate(zip(lengths.tolist(), torch.split(terms_of_texts, counts), strict=True)):
            rows = self._weight.index_select(0, terms).float()  # (C, H); [terms] takes twice as long on a CPU
            maxima = linear(rows, exact[text, :length]).amax(dim=1)  # (C, l) -> (C,)
            scores = maxima if self._bias is None else maxima + self._bias[terms].float()
            weights[text, terms] = activate(scores, self._activation_function)
        return weights

    def candidates(self, hidden: Tensor) -> Tensor:
        """Terms whose float32 maximum may be positive: all that are, and few more.

        Args:
            hidden: Token vectors, all of them real. (B, L, H) float32.
        Returns:
            (V, B) bool.
        """
        rests = hidden - self._centre  # (B, L, H)
        grid = _to_grid(rests, rests.abs().amax(dim=(1, 2), keepdim=True))
        maxima = max_logits(grid.integers, self._integers)  # (V, B) int32 or float32
        norms = torch.stack([_norms(rests).amax(dim=1), grid.rest_norm.amax(dim=1)])  # (2, B)
        bound = maxima * self._steps  # (V, B) float32
        bound *= grid.step.view(1, -1)
        bound += self._constants
        bound.addmm_(self._factors, norms)
        # Not `bound > 0`, which would lose a NaN.
        return ~(bound <= 0)


def _to_grid(vectors: Tensor, largest: Tensor, levels: int = EIGHT_BITS) -> _Grid:
    """Round vectors (…, H) to an int8 grid of so many levels, whose last is `largest` (…, 1)."""
    integers, step = to_int8_grid(vectors, largest, levels)
    rests = torch.addcmul(vectors, integers.float(), step, value=-1)
    # Beside the norm's own roundings: those of each rest, at most 2^-22 of its vector in length.
    return _Grid(integers, step, _norms(rests) + _norms(vectors) * 2.0**-22)


def _norms(vectors: Tensor) -> Tensor:
    """Euclidean norms along the last axis, rounded upward."""
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return norms * (1.0 + vectors.shape[-1] * 2.0**-22)
