"""Linear layers in int8: a body several times faster than float32 on a CPU that multiplies bytes. Knows torch only.

Weights have a step of their own for each output, activations one for each token, found as they come. So a text's
result depends on no other text, unlike that of runtimes whose activations share one step a batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from splade_integrations.linears import rounded_up, with_rows

__all__ = ["Int8Linear", "int8_products_pay", "to_int8_grid"]

# Largest magnitude used: symmetric, so that -128 has no part in it.
_LEVELS = 127
# Steps of the grid stay above this, so that dividing by them neither overflows nor loses digits.
_LEAST_STEP = 2.0**-100
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
        integers, step = to_int8_grid(weight, weight.abs().amax(dim=1, keepdim=True))
        # Laid out for oneDNN's kernels: an opaque layout, and no buffer, as it has no way to other devices.
        self._packed = torch.ops.onednn.qlinear_prepack(integers, None)  # (N, K)
        self._step = step.flatten()  # (N,)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = torch.zeros_like(self._step) if linear.bias is None else linear.bias.detach().float()  # (N,)
        self._sums = (integers.float() * step).sum(dim=1)  # (N,)
        self._narrows = linear.in_features > linear.out_features

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, K) of a floating type to (…, N) float32."""
        tokens = inputs.reshape(-1, inputs.shape[-1]).float()
        real = len(tokens)
        tokens = with_rows(tokens, rounded_up(real))
        grid = _one_sided_grid(tokens) if self._narrows else _two_sided_grid(tokens)
        outputs: Tensor = torch.ops.onednn.qlinear_pointwise(
            grid.levels, 1.0, grid.zero, self._packed, self._step, self._zeros,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        torch.addcmul(self._bias, outputs, grid.step, out=outputs)
        if grid.offset is not None:
            outputs.addr_(grid.offset, self._sums)
        return outputs[:real].view(*inputs.shape[:-1], outputs.shape[1])


def _two_sided_grid(tokens: Tensor) -> _TokenGrid:
    # Both extremes in two passes: abs() would write a copy.
    largest = torch.maximum(tokens.amax(dim=1, keepdim=True), -tokens.amin(dim=1, keepdim=True))
    step = largest.div_(_LEVELS).clamp_min_(_LEAST_STEP)
    return _TokenGrid(_levels(tokens, step, _MIDDLE), _MIDDLE, step, None)


def _one_sided_grid(tokens: Tensor) -> _TokenGrid:
    least, most = tokens.amin(dim=1, keepdim=True), tokens.amax(dim=1, keepdim=True)
    # A step far below the values would lose their difference.
    span = torch.maximum(most - least, torch.maximum(most, -least) * 2.0**-8)
    step = span.div_(255).clamp_min_(_LEAST_STEP)
    return _TokenGrid(_levels(tokens - least, step, 0), 0, step, least.squeeze(1))


def _levels(tokens: Tensor, step: Tensor, zero: int) -> Tensor:
    """tokens / step + zero, rounded. (tokens, K) uint8."""
    # A row, as addcmul is several times slower where its first operand is one number.
    shift = torch.full(tokens.shape[1:], _TO_LOW_BYTE + zero, dtype=torch.float32)
    return torch.addcmul(shift, tokens, step.reciprocal()).view(torch.int32).to(torch.uint8)


def to_int8_grid(vectors: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Round to multiples of a step.

    Args:
        vectors: (…, H) float32.
        largest: Largest magnitude that shares a step. Broadcasts to `vectors`.
    Returns:
        Integers from -127 to 127, (…, H) int8, and steps of `largest`'s shape: vectors ≈ step · integers.
    """
    step = (largest / _LEVELS).clamp_min(_LEAST_STEP)
    return torch.round(vectors / step).to(torch.int8), step  # at most 127, as float32 division is monotone


def int8_products_pay(device: torch.device) -> bool:
    """Whether this processor multiplies int8 several times faster than float32, and adds such products up exactly.

    The second is tested: without the right instructions a sum of two products of 127 saturates 16 bits.
    """
    if device.type != "cpu" or not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return False
    if not (torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()):
        return False
    for width in (128, 768, 1024, 4096):
        row = torch.full((64, width), _LEVELS, dtype=torch.int8, device=device)
        if not (torch._int_mm(row, row.T) == _LEVELS**2 * width).all():
            return False
    return True
