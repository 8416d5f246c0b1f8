"""Linear layers in int8. On a CPU with instructions for int8, they make a model several times faster than in float32.

Weights are quantised once, with one scale per output channel. Activations are quantised in each call. Each token has
its own scale, so a text's result does not depend on other texts.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from splade_integrations.engine.int8_gemm import (
    LEAST_SCALE,
    QMAX_7BIT,
    QMAX_8BIT,
    int8_weight_qmax,
    multiply_int8,
    pack_int8,
    quantize,
)
from splade_integrations.engine.layers import pad_rows, rounded_up

__all__ = ["Int8Linear"]

# The unsigned 8-bit integer that stands for 0 if the range of a token's numbers is symmetric around 0.
_MIDDLE = 128
# If a float32 is as large as this constant, its last bit has the value 1. So if this constant is added to an x from 0
# to 255, the sum is rounded to an integer. The low byte of the sum is then x, rounded.
_TO_LOW_BYTE = 1.5 * 2.0**23


class _QuantizedTokens(NamedTuple):
    """Token vectors, written as offset + scale · (integers - zero_point).

    Args:
        integers: (tokens, K) uint8.
        zero_point: The integer that stands for the offset.
        scale: (tokens, 1) float32.
        offset: (tokens,) float32, or None for 0.
    """

    integers: Tensor
    zero_point: int
    scale: Tensor
    offset: Tensor | None


class Int8Linear(nn.Module):
    """A linear layer that multiplies 8-bit integers and sums the products exactly in int32.

    Each token vector x is written as offset + scale · u with a vector u of integers. So the product with a row w of the
    weight is w . x = scale · (w . u) + offset · sum(w). The range of u depends on the layer. If a layer has fewer
    outputs than inputs, its inputs come from an activation function such as GELU. Nearly all results of GELU are on one
    side of 0. In such a layer, the integers go from 0 to 255 and cover the range from a token's smallest value to its
    largest. In other layers, they go from -127 to 127 and cover a range that is symmetric around 0, so the offset is 0.

    Args:
        linear: The layer that this layer replaces.

    Example:
        >>> linear = nn.Linear(64, 3)
        >>> inputs = torch.randn(5, 64)
        >>> torch.allclose(Int8Linear(linear)(inputs), linear(inputs), atol=0.1)
        True
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        qmax = int8_weight_qmax() or QMAX_7BIT  # with 7 bits, sums are exact on every processor
        integers, scale = quantize(weight, weight.abs().amax(dim=1, keepdim=True), qmax)
        self._packed = pack_int8(integers)  # (N, K)
        self._scale = scale.flatten()  # (N,)
        self._bias = (
            torch.zeros_like(self._scale) if linear.bias is None else linear.bias.detach().to(torch.float32, copy=True)
        )  # (N,)
        self._sums = (integers.float() * scale).sum(dim=1)  # (N,)
        self._narrows = linear.in_features > linear.out_features

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs, (…, N) float32, for inputs of shape (…, K) and of a floating type."""
        tokens = inputs.reshape(-1, inputs.shape[-1]).float()
        real = len(tokens)
        tokens = pad_rows(tokens, rounded_up(real))
        quantized = _one_sided(tokens) if self._narrows else _two_sided(tokens)
        outputs = multiply_int8(quantized.integers, quantized.zero_point, self._packed, self._scale)
        torch.addcmul(self._bias, outputs, quantized.scale, out=outputs)
        if quantized.offset is not None:
            outputs.addr_(quantized.offset, self._sums)
        return outputs[:real].view(*inputs.shape[:-1], outputs.shape[1])


def _two_sided(tokens: Tensor) -> _QuantizedTokens:
    # Computing both extremes reads the tensor twice. This is cheaper than abs(), which would write a copy of the
    # tensor.
    largest = torch.maximum(tokens.amax(dim=1, keepdim=True), -tokens.amin(dim=1, keepdim=True))
    scale = largest.div_(QMAX_8BIT).clamp_min_(LEAST_SCALE)
    return _QuantizedTokens(_integers(tokens, scale, _MIDDLE), _MIDDLE, scale, None)


def _one_sided(tokens: Tensor) -> _QuantizedTokens:
    least, most = tokens.amin(dim=1, keepdim=True), tokens.amax(dim=1, keepdim=True)
    # The second argument of the outer `maximum` keeps the scale from being too small. If the scale were far smaller
    # than the values, the rounding of float32 would lose the differences between the values.
    span = torch.maximum(most - least, torch.maximum(most, -least) * 2.0**-8)
    scale = span.div_(255).clamp_min_(LEAST_SCALE)
    return _QuantizedTokens(_integers(tokens - least, scale, 0), 0, scale, least.squeeze(1))


def _integers(tokens: Tensor, scale: Tensor, zero_point: int) -> Tensor:
    """Return tokens / scale + zero_point, rounded. (tokens, K) uint8."""
    # `shift` is a whole row of equal numbers, because addcmul is several times slower with a single number.
    shift = torch.full(tokens.shape[1:], _TO_LOW_BYTE + zero_point, dtype=torch.float32, device=tokens.device)
    return torch.addcmul(shift, tokens, scale.reciprocal()).view(torch.int32).to(torch.uint8)
