"""The vocabulary head for CUDA devices: one Triton kernel computes the maxima from hidden states.

Logits never reach memory. `kernels/max_logits.py` says how. `MaxPoolHead` is the readable reference of this head, and a
test checks that both are equal. Triton comes with torch's CUDA builds for Linux. It is imported just before the kernel
runs.
"""

import logging
from typing import ClassVar

import torch
from torch import Tensor

from splade_integrations.engine.heads.tiled import Decoder, MaxPoolHead, activate
from splade_integrations.engine.kernels import kernels_run
from splade_integrations.engine.process import exact_float32

__all__ = ["TritonHead"]

logger = logging.getLogger(__name__)

# Batches with these sizes make the kernel use each of its tilings: tiles that hold several texts, and texts that need
# several tiles.
PROBED_TEXTS, PROBED_LENGTHS = 21, (3, 8, 16, 65, 190, 370, 512)
_PROBED_TERMS = 2**13 + 1
# Float32 sums of 16-bit products differ by about 1e-5 of the largest weight, and 16-bit sums by 1e-3 or more.
_TOLERANCE = 1e-4


class TritonHead:
    """Max pooling by one kernel. Products are summed in float32, and maxima are never rounded to 16 bits.

    The bits of a text's weights do not depend on the other texts in the batch.

    Args:
        decoder: The decoder. Its weight, (V, H), has hidden's type, which is float16, bfloat16 or float32.
        activation_function: As in `splade_pool`.
    """

    pooling_strategy: ClassVar[str] = "max"

    def __init__(self, decoder: Decoder, activation_function: str = "relu") -> None:
        self._weight, self._bias, _ = decoder
        self._activation_function = activation_function

    @classmethod
    def suits(cls, weight: Tensor) -> bool:
        """Return whether the kernel is faster than the plain head and correct for this decoder weight.

        It is faster only in 16 bits: tensor cores do not compute float32, and without them cuBLAS is twice as fast as
        Triton. On a GPU, this method runs the kernel once per tiling to verify it. That also compiles the kernel, which
        takes some seconds, once per machine.
        """
        return weight.dtype != torch.float32 and kernels_run(weight.device) and _computes_correctly(cls, weight)

    def __call__(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Pool one batch. Takes (B, L, H) and (B,), and returns (B, V) float32.

        Raises:
            ImportError: Triton is not installed.
        """
        from splade_integrations.engine.kernels.max_logits import max_logits_ragged

        scores = max_logits_ragged(hidden, lengths.to(torch.int32), self._weight)  # (B, V)
        if self._bias is not None:
            scores += self._bias.float()
        return activate(scores, self._activation_function)


def _computes_correctly(kind: type[TritonHead], weight: Tensor) -> bool:
    """Return whether a kind of head and the plain head in float32 agree on random vectors. Log a warning if not."""
    difference = 0.0
    try:
        for longest in PROBED_LENGTHS:
            difference = max(difference, _difference(kind, weight[-_PROBED_TERMS:], longest))
    except Exception as err:  # a compiler or a driver may raise anything, and the plain head needs neither
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


def _difference(kind: type[TritonHead], weight: Tensor, longest: int) -> float:
    """Return the largest difference from the plain head in float32, as a share of the largest weight."""
    generator = torch.Generator("cpu").manual_seed(longest)
    hidden = torch.randn(PROBED_TEXTS, longest, weight.shape[1], generator=generator, device="cpu").to(weight)
    lengths = torch.linspace(longest, 1, PROBED_TEXTS, device="cpu").round().long().to(weight.device)
    with exact_float32(weight.device):
        found = kind(Decoder(weight))(hidden, lengths)
        expected = MaxPoolHead(Decoder(weight.float()))(hidden.float(), lengths)
        return ((found - expected).abs().amax() / expected.amax()).nan_to_num(torch.inf).item()
