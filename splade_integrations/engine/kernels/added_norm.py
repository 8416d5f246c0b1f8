"""A Triton kernel for the layer norm of a sum. The kernel passes over memory once, while torch passes over it twice.

Each program of the kernel computes one token's vector: it adds the two inputs, normalises the sum and writes the
result. Until then, the vector stays in registers. The same computation in torch is `norm(outputs + residual)`, which
rounds the sum to the tensors' type. This kernel does not round the sum. Small batches use the kernel as well, because a
text must be rounded in the same way in every batch. For small batches, the kernel has a disadvantage: the host takes
longer to launch the kernel than to make torch's two calls. A hundred launches take some milliseconds more than the
calls of torch that they replace.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.nn.functional import layer_norm

__all__ = ["AddedNormKernel", "add_and_normalize_", "check_kernel"]

# A warp has 32 threads. Each thread loads 8 numbers of 16 bits at a time, and does so twice.
_NUMBERS_PER_WARP = 512


@triton.jit
def add_and_normalize_kernel(outputs, residual, weight, bias, width, eps, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    inside = column < width
    place = tl.program_id(0).to(tl.int64) * width + column
    total = tl.load(outputs + place, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, total - tl.sum(total, 0) / width, 0.0)
    deviation = tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    normalized = centred / deviation * w + b
    tl.store(outputs + place, normalized.to(outputs.dtype.element_ty), mask=inside)


def add_and_normalize_(outputs: Tensor, residual: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Compute `norm(outputs + residual)`. If `outputs` is contiguous, it is overwritten with the result.

    Args:
        outputs: (…, H).
        residual: The tensor to add, of the same shape.
        norm: A layer norm over the last axis, with weight and bias.
    """
    outputs, residual, width = outputs.contiguous(), residual.contiguous(), outputs.shape[-1]
    block = triton.next_power_of_2(width)
    with torch.cuda.device_of(outputs):  # Triton launches on the current device
        add_and_normalize_kernel[(outputs.numel() // width,)](
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
    """Check that the kernel compiles here and agrees with torch in float32.

    Raises:
        RuntimeError: The results differ. Errors of the compiler or the driver are not caught.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    outputs, residual = torch.randn(2, 8, norm.weight.shape[0], generator=generator, device="cpu").to(norm.weight)
    terms = outputs.float() + residual.float()
    expected = layer_norm(terms, norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)
    difference = (add_and_normalize_(outputs, residual, norm).float() - expected).abs().max().item()
    allowed = max(torch.finfo(outputs.dtype).eps, 1e-5) * expected.abs().max().item()  # twice the rounding error
    if not difference <= allowed:
        raise RuntimeError(f"the Triton kernel's layer norm differs from torch's by {difference:.1e}")


class AddedNormKernel(nn.Module):
    """`add_and_normalize_` as a layer.

    Args:
        norm: A layer norm over the last axis, with weight and bias.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, outputs: Tensor, residual: Tensor) -> Tensor:
        """Return the normalised sum of two tensors of shape (…, H). Overwrites `outputs`."""
        return add_and_normalize_(outputs, residual, self.norm)
