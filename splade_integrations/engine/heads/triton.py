"""The vocabulary head on a CUDA device: one Triton kernel from hidden states to maxima.

Logits never reach memory; `kernels/max_logits.py` says how. `MaxPoolHead` is its readable reference, and a test holds
them equal. Triton comes with torch's CUDA builds for Linux and is imported only when the kernel is about to run.
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

# Batches that make the kernel use each of its tilings: tiles of several texts, texts of several tiles.
PROBED_TEXTS, PROBED_LENGTHS = 21, (3, 8, 16, 65, 190, 370, 512)
_PROBED_TERMS = 2**13 + 1
# Float32 sums of 16-bit products differ by some 1e-5 of the largest; 16-bit sums by 1e-3 and more.
_TOLERANCE = 1e-4


class TritonHead:
    """Max pooling by one kernel. Products are summed in float32, and maxima are never rounded to 16 bits.

    A text's weights are the same bits whatever its neighbours.

    Args:
        decoder: Its weight, (V, H), is of hidden's type: float16, bfloat16 or float32.
        activation_function: As `splade_pool`.
    """

    pooling_strategy: ClassVar[str] = "max"

    def __init__(self, decoder: Decoder, activation_function: str = "relu") -> None:
        self._weight, self._bias, _ = decoder
        self._activation_function = activation_function

    @classmethod
    def suits(cls, weight: Tensor) -> bool:
        """Return whether the kernel pays and computes this decoder's weights correctly.

        It pays in 16 bits: no tensor core computes float32, and in plain arithmetic cuBLAS is twice as fast as Triton.
        On a GPU this runs the kernel once per tiling to verify it, which also compiles it (some seconds, once on a
        machine).
        """
        return weight.dtype != torch.float32 and kernels_run(weight.device) and _computes_correctly(cls, weight)

    def __call__(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Pool one batch. (B, L, H) and (B,) to (B, V) float32.

        Raises:
            ImportError: Triton is not installed.
        """
        from splade_integrations.engine.kernels.max_logits import max_logits_ragged

        scores = max_logits_ragged(hidden, lengths.to(torch.int32), self._weight)  # (B, V)
        if self._bias is not None:
            scores += self._bias.float()
        return activate(scores, self._activation_function)


def _computes_correctly(kind: type[TritonHead], weight: Tensor) -> bool:
    """Return whether a kind of head gives what the plain one gives in float32 on random vectors. Warn if not."""
    difference = 0.0
    try:
        for longest in PROBED_LENGTHS:
            difference = max(difference, _difference(kind, weight[-_PROBED_TERMS:], longest))
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


def _difference(kind: type[TritonHead], weight: Tensor, longest: int) -> float:
    """Return how far the head is from the plain one in float32, as a share of the largest weight."""
    generator = torch.Generator("cpu").manual_seed(longest)
    hidden = torch.randn(PROBED_TEXTS, longest, weight.shape[1], generator=generator, device="cpu").to(weight)
    lengths = torch.linspace(longest, 1, PROBED_TEXTS, device="cpu").round().long().to(weight.device)
    with exact_float32(weight.device):
        found = kind(Decoder(weight))(hidden, lengths)
        expected = MaxPoolHead(Decoder(weight.float()))(hidden.float(), lengths)
        return ((found - expected).abs().amax() / expected.amax()).nan_to_num(torch.inf).item()
