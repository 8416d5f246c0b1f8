"""The vocabulary head on a CUDA device: one Triton kernel from hidden states to maxima, or the plain head.

Logits never reach memory: `kernels/max_logits.py` says how. `head.max_pool_head` is the readable twin, and a test holds
them equal. Triton comes with torch's CUDA builds for Linux; it is imported here only when the kernel is to run.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from splade_integrations.engine.heads.tiled import activate, max_pool_head
from splade_integrations.engine.kernels import kernels_run
from splade_integrations.engine.precision import exact_float32

__all__ = ["PoolingHead", "fastest_max_pool_head", "max_pool_head_triton"]

logger = logging.getLogger(__name__)

PoolingHead = Callable[[Tensor, Tensor, Tensor, Tensor | None, str], Tensor]  # max_pool_head's signature

# Batches for which the kernel is cut in each way that there is: tiles of several texts, texts of several tiles.
_PROBED_TEXTS, _PROBED_LENGTHS = 21, (3, 8, 16, 65, 190, 370, 512)
_PROBED_TERMS = 2**13 + 1
# Float32 sums of 16-bit products differ by some 1e-5 of the largest; 16-bit sums by 1e-3 and more.
_TOLERANCE = 1e-4


def max_pool_head_triton(
    hidden: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor | None, activation_function: str = "relu"
) -> Tensor:
    """As `head.max_pool_head`, by one kernel. Products are summed in float32, maxima never rounded to 16 bits.

    Args:
        hidden: What enters the decoder, padded at the end. (B, L, H) of float16, bfloat16 or float32.
        lengths: Real tokens of each text, at least 1. (B,).
        weight: Decoder weight. (V, H), of hidden's type.
        bias: Decoder bias. (V,) or None.
        activation_function: As `splade_pool`.
    Returns:
        Term weights, 0 or more. (B, V) float32. A text's are the same bits whatever its neighbours.
    Raises:
        ImportError: Triton is not installed.
    """
    from splade_integrations.engine.kernels.max_logits import max_logits_ragged

    scores = max_logits_ragged(hidden, lengths.to(torch.int32), weight)  # (B, V)
    if bias is not None:
        scores += bias.float()
    return activate(scores, activation_function)


def fastest_max_pool_head(weight: Tensor) -> PoolingHead:
    """The Triton head where it pays and computes this decoder's weights rightly, else the plain one.

    It pays in 16 bits: no tensor core computes float32, and in plain arithmetic cuBLAS is twice as fast as Triton.
    On a GPU this tries the kernel in each way that it is cut, which also compiles it (some seconds, once a machine).

    Args:
        weight: Decoder weight. (V, H).
    """
    if weight.dtype == torch.float32 or not kernels_run(weight.device):
        return max_pool_head
    return max_pool_head_triton if _computes_rightly(max_pool_head_triton, weight) else max_pool_head


def _computes_rightly(head: PoolingHead, weight: Tensor) -> bool:
    """Whether `head` gives what the plain head gives in float32 on batches of random vectors. Warns if not."""
    difference = 0.0
    try:
        for longest in _PROBED_LENGTHS:
            difference = max(difference, _difference(head, weight[-_PROBED_TERMS:], longest))
    except Exception as err:  # whatever a compiler or a driver may raise: the plain head needs neither
        logger.warning("The Triton head fails here, so the plain one is used, which is slower: %s", err)
        return False
    if not difference <= _TOLERANCE:
        logger.warning(
            "The Triton head differs from the plain one by %.1e of the largest weight here, more than %.0e, so the "
            "plain one is used, which is slower.",
            difference,
            _TOLERANCE,
        )
        return False
    return True


def _difference(head: PoolingHead, weight: Tensor, longest: int) -> float:
    """How far `head` is from the plain one in float32 on texts of up to `longest` tokens, beside the largest weight."""
    chance = torch.Generator("cpu").manual_seed(longest)
    hidden = torch.randn(_PROBED_TEXTS, longest, weight.shape[1], generator=chance, device="cpu").to(weight)
    lengths = torch.linspace(longest, 1, _PROBED_TEXTS, device="cpu").round().long().to(weight.device)
    with exact_float32(weight.device):
        found = head(hidden, lengths, weight, None, "relu")
        expected = max_pool_head(hidden.float(), lengths, weight.float(), None, "relu")
        return ((found - expected).abs().amax() / expected.amax()).nan_to_num(torch.inf).item()
