"""Layer norm of a sum in one pass over memory, where torch takes two.

Knows tensors only. A program adds, normalises and writes one token, which stays in its registers meanwhile. Its twin in
torch is `norm(outputs + residual)`, whose sum is rounded to the tensors' type where this one's is not.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

__all__ = ["AddedNormKernel", "add_and_normalize_", "check_kernel"]

# Below this torch's two calls are made in less time than Triton's one.
_LEAST_NUMBERS = 2**20
# Of a warp's 32 threads each loads 8 numbers of 16 bits at a time, twice.
_NUMBERS_PER_WARP = 512


@triton.jit
def _add_and_normalize(outputs, residual, gain, bias, width, eps, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    inside = column < width
    place = tl.program_id(0).to(tl.int64) * width + column
    total = tl.load(outputs + place, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, total - tl.sum(total, 0) / width, 0.0)
    deviation = tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
    gain_of_column = tl.load(gain + column, mask=inside, other=0.0).to(tl.float32)
    bias_of_column = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    normalized = centred / deviation * gain_of_column + bias_of_column
    tl.store(outputs + place, normalized.to(outputs.dtype.element_ty), mask=inside)


def add_and_normalize_(outputs: Tensor, residual: Tensor, norm: nn.LayerNorm) -> Tensor:
    """`norm(outputs + residual)`, written in the place of `outputs` where that is contiguous.

    Args:
        outputs: (…, H).
        residual: Of the same shape.
        norm: A layer norm over the last axis, with gain and bias.
    """
    outputs, residual, width = outputs.contiguous(), residual.contiguous(), outputs.shape[-1]
    block = triton.next_power_of_2(width)
    with torch.cuda.device_of(outputs):  # Triton launches on the current device
        _add_and_normalize[(outputs.numel() // width,)](
            outputs,
            residual,
            norm.weight,
            norm.bias,
            width,
            norm.eps,
            BLOCK=block,
            num_warps=max(1, min(8, block // _NUMBERS_PER_WARP)),
        )
    return outputs


def check_kernel(norm: nn.LayerNorm) -> None:
    """See that the kernel compiles here and gives what torch gives.

    Raises:
        RuntimeError: It gives something else. What a compiler or a driver raises passes.
    """
    generator = torch.Generator().manual_seed(0)
    outputs, residual = torch.randn(2, 8, norm.weight.shape[0], generator=generator).to(norm.weight)
    expected = norm(outputs + residual)
    difference = (add_and_normalize_(outputs, residual, norm) - expected).abs().max().item()
    allowed = 8 * torch.finfo(expected.dtype).eps * expected.abs().max().item()
    if not difference <= max(allowed, 1e-5):
        raise RuntimeError(f"the kernel for added norms differs from torch's by {difference:.1e}")


class AddedNormKernel(nn.Module):
    """`add_and_normalize_` as a layer, where there is enough to do.

    Args:
        norm: A layer norm over the last axis, with gain and bias.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, outputs: Tensor, residual: Tensor) -> Tensor:
        """(…, H) and (…, H) to the same. Overwrites `outputs`."""
        if outputs.numel() >= _LEAST_NUMBERS:
            return add_and_normalize_(outputs, residual, self.norm)
        normalized: Tensor = self.norm(outputs.add_(residual))
        return normalized
