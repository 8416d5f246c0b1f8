"""Linear layers in int8: a body several times faster than float32 on a CPU that multiplies bytes. Knows torch only.

Weights have a step of their own for each output, activations one for each token, found as they come. So a text's
result depends on no other text, unlike that of runtimes whose activations share one step a batch.
"""

import torch
from torch import Tensor, nn

__all__ = ["Int8Linear", "int8_products_pay", "to_int8_grid"]

# Largest magnitude used: symmetric, so that -128 has no part in it.
_LEVELS = 127
# Steps of the grid stay above this, so that dividing by them neither overflows nor loses digits.
_LEAST_STEP = 2.0**-100
# Of the grid of an activation that reaches as far below 0 as above it.
_MIDDLE = 128


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
        if self._narrows:
            smallest, largest = tokens.amin(dim=1, keepdim=True), tokens.amax(dim=1, keepdim=True)
            # A step far below the values would lose their difference.
            least = torch.maximum(smallest.abs(), largest.abs()) * 2.0**-16
            step = torch.maximum((largest - smallest) / 255, least).clamp_min_(_LEAST_STEP)
            product = self._product((tokens - smallest).div_(step).sub_(_MIDDLE), zero_point=0)
            outputs = torch.addcmul(self._bias, product, step, out=product).addr_(smallest.squeeze(1), self._sums)
        else:
            step = (tokens.abs().amax(dim=1, keepdim=True) / _LEVELS).clamp_min_(_LEAST_STEP)
            product = self._product(tokens / step, zero_point=_MIDDLE)
            outputs = torch.addcmul(self._bias, product, step, out=product)
        return outputs.view(*inputs.shape[:-1], -1)

    def _product(self, scaled: Tensor, zero_point: int) -> Tensor:
        """Of the weights and u - zero_point, where u - 128 is what `scaled`, overwritten, rounds to. (tokens, N)."""
        # torch converts to signed bytes several times faster than to unsigned ones. Turning the sign bit adds 128.
        unsigned = scaled.round_().to(torch.int8).view(torch.uint8).bitwise_xor_(_MIDDLE)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            unsigned, 1.0, zero_point, self._packed, self._step, self._zeros,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return product


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
