"""Linear layers in int8: a body several times faster than float32 on a CPU that multiplies bytes. Knows torch only.

Weights have a step of their own for each output, activations one for each token, found as they come. So a text's
result depends on no other text, unlike that of runtimes whose activations share one step a batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from splade_integrations.engine.int8_gemm import (
    EIGHT_BITS,
    LEAST_STEP,
    SEVEN_BITS,
    int8_weight_levels,
    multiply_int8,
    pack_int8,
    to_int8_grid,
)
from splade_integrations.engine.packed_linear import rounded_up, with_rows

__all__ = ["Int8Linear"]

# Of the grid of an activation that reaches as far below 0 as above it.
_MIDDLE = 128
# The last bit of a float32 of this size counts 1: adding it rounds to an integer, which is the low byte of the sum.
_TO_LOW_BYTE = 1.5 * 2.0**23


class _TokenGrid(NamedTuple):
    """Tokens as offset + step · (levels - zero).

    Args:
        levels: (tokens, K) uint8.
        zero: The level that stands for the offset.
        step: (tokens, 1) float32.
        offset: (tokens,) float32, or None for 0.
    """

    levels: Tensor
    zero: int
    step: Tensor
    offset: Tensor | None


class Int8Linear(nn.Module):
    """A linear layer whose product is of 8-bit integers, added up exactly in int32.

    Each token is written as offset + step · u, u from 0 to 255, so that w . x = step · (w . u) + offset · sum(w). A
    layer that narrows reads what comes out of an activation such as GELU, nearly all on one side of 0: its grids
    reach from a token's smallest value to its largest. Others reach as far below 0 as above it, and need no sum.

    Args:
        linear: The layer whose place it takes.

    Example:
        >>> linear = nn.Linear(64, 3)
        >>> inputs = torch.randn(5, 64)
        >>> torch.allclose(Int8Linear(linear)(inputs), linear(inputs), atol=0.1)
        True
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        levels = int8_weight_levels() or SEVEN_BITS  # whose sums fit wherever they are made
        integers, step = to_int8_grid(weight, weight.abs().amax(dim=1, keepdim=True), levels)
        self._packed = pack_int8(integers)  # (N, K)
        self._step = step.flatten()  # (N,)
        self._bias = torch.zeros_like(self._step) if linear.bias is None else linear.bias.detach().float()  # (N,)
        self._sums = (integers.float() * step).sum(dim=1)  # (N,)
        self._narrows = linear.in_features > linear.out_features

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, K) of a floating type to (…, N) float32."""
        tokens = inputs.reshape(-1, inputs.shape[-1]).float()
        real = len(tokens)
        tokens = with_rows(tokens, rounded_up(real))
        grid = _one_sided_grid(tokens) if self._narrows else _two_sided_grid(tokens)
        outputs = multiply_int8(grid.levels, grid.zero, self._packed, self._step)
        torch.addcmul(self._bias, outputs, grid.step, out=outputs)
        if grid.offset is not None:
            outputs.addr_(grid.offset, self._sums)
        return outputs[:real].view(*inputs.shape[:-1], outputs.shape[1])


def _two_sided_grid(tokens: Tensor) -> _TokenGrid:
    # Both extremes in two passes: abs() would write a copy.
    largest = torch.maximum(tokens.amax(dim=1, keepdim=True), -tokens.amin(dim=1, keepdim=True))
    step = largest.div_(EIGHT_BITS).clamp_min_(LEAST_STEP)
    return _TokenGrid(_levels(tokens, step, _MIDDLE), _MIDDLE, step, None)


def _one_sided_grid(tokens: Tensor) -> _TokenGrid:
    least, most = tokens.amin(dim=1, keepdim=True), tokens.amax(dim=1, keepdim=True)
    # A step far below the values would lose their difference.
    span = torch.maximum(most - least, torch.maximum(most, -least) * 2.0**-8)
    step = span.div_(255).clamp_min_(LEAST_STEP)
    return _TokenGrid(_levels(tokens - least, step, 0), 0, step, least.squeeze(1))


def _levels(tokens: Tensor, step: Tensor, zero: int) -> Tensor:
    """tokens / step + zero, rounded. (tokens, K) uint8."""
    # A row, as addcmul is several times slower where its first operand is one number.
    shift = torch.full(tokens.shape[1:], _TO_LOW_BYTE + zero, dtype=torch.float32, device=tokens.device)
    return torch.addcmul(shift, tokens, step.reciprocal()).view(torch.int32).to(torch.uint8)
