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
# Tokens taken at once: their activations, some passes over them, stay in a core's second-level cache.
_TOKENS = 256


class Int8Linear(nn.Module):
    """A linear layer whose product is of int8 matrices, added up exactly in int32.

    A layer that narrows reads what comes out of an activation such as GELU, nearly all on one side of 0. There a token
    is written as middle + step · integers, the middle of its largest and smallest value, so that it uses the whole
    grid: w . x = middle · sum(w) + w . (x - middle).

    Args:
        linear: The layer whose place it takes.

    Example:
        >>> linear = nn.Linear(64, 3)
        >>> inputs = torch.randn(5, 64)
        >>> torch.allclose(Int8Linear(linear)(inputs), linear(inputs), atol=0.1)
        True
    """

    integers: Tensor  # (N, K) int8
    step: Tensor  # (1, N)
    bias: Tensor  # (N,)
    sums: Tensor  # (N,): what a middle is multiplied with

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        integers, step = to_int8_grid(weight, weight.abs().amax(dim=1, keepdim=True))
        self.register_buffer("integers", integers)
        self.register_buffer("step", step.T.contiguous())
        self.register_buffer("bias", torch.zeros(len(weight)) if linear.bias is None else linear.bias.detach().float())
        self.register_buffer("sums", (integers.float() * step).sum(dim=1))
        self._narrows = linear.in_features > linear.out_features

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, K) of a floating type to (…, N) float32."""
        tokens = inputs.reshape(-1, inputs.shape[-1])
        outputs = torch.empty((len(tokens), len(self.integers)), device=inputs.device)
        for start in range(0, len(tokens), _TOKENS):
            chunk, output = tokens[start : start + _TOKENS].float(), outputs[start : start + _TOKENS]
            middle = (chunk.amax(dim=1) + chunk.amin(dim=1)) / 2 if self._narrows else None
            if middle is not None:
                chunk = chunk - middle.unsqueeze(1)
            integers, step = to_int8_grid(chunk, chunk.abs().amax(dim=1, keepdim=True))
            products = torch._int_mm(integers, self.integers.T).float()
            products *= self.step
            torch.addcmul(self.bias, products, step, out=output)
            if middle is not None:
                output.addr_(middle, self.sums)
        return outputs.view(*inputs.shape[:-1], -1)


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
    if device.type != "cpu" or not (torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()):
        return False
    for width in (128, 768, 1024, 4096):
        row = torch.full((64, width), _LEVELS, dtype=torch.int8, device=device)
        if not (torch._int_mm(row, row.T) == _LEVELS**2 * width).all():
            return False
    return True
