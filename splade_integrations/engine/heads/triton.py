"""The vocabulary head for CUDA devices: one Triton kernel finds each term's largest logit.

The logits are never written to memory. `kernels/max_logits.py` explains how this works. `MaxPoolHead` computes the same
weights in plain PyTorch, and a test checks that both heads return the same results. Triton comes with torch's CUDA
builds for Linux. It is imported just before the kernel runs.
"""

import logging
from typing import ClassVar

import torch
from torch import Tensor

from splade_integrations.engine.heads.tiled import Decoder, MaxPoolHead, activate
from splade_integrations.engine.kernels import kernels_run
from splade_integrations.engine.products import exact_float32

__all__ = ["TritonHead"]

logger = logging.getLogger(__name__)

# The sizes of the batches that check the kernel. They make the kernel use all of its tilings, which are its ways of
# dividing a batch into tiles. In some tilings, a tile holds several texts. In other tilings, a text needs several
# tiles.
PROBED_TEXTS, PROBED_LENGTHS = 21, (3, 8, 16, 65, 190, 370, 512)
_PROBED_TERMS = 2**13 + 1
# The largest difference from float32 results that the check accepts, as a share of the largest term weight. If products
# of 16-bit numbers are summed in float32, results differ by about 1e-5. If such products are summed in 16 bits, results
# differ by 1e-3 or more.
_TOLERANCE = 1e-4


class TritonHead:
    """Max pooling by one kernel. Products are summed in float32, and maxima are never rounded to 16 bits.

    A text's weights are the same in every batch, to the last bit.

    Args:
        decoder: The decoder. Its weight, (V, H), has the type of the hidden states: float16, bfloat16 or float32.
        activation_function: As in `splade_pool`.
    """

    pooling_strategy: ClassVar[str] = "max"

    def __init__(self, decoder: Decoder, activation_function: str = "relu") -> None:
        self._weight, self._bias, _ = decoder
        self._activation_function = activation_function

    @classmethod
    def suits(cls, weight: Tensor) -> bool:
        """Return whether the kernel is correct for this decoder weight, and faster than the plain head, `MaxPoolHead`.

        The kernel is faster only in 16 bits. In float32, the kernel cannot use tensor cores, and the plain head, which
        uses cuBLAS, is twice as fast. On a GPU, this method checks the kernel with batches of several lengths. The
        first check on a machine also compiles the kernel, which takes some seconds.
        """
        return weight.dtype != torch.float32 and kernels_run(weight.device) and _computes_correctly(cls, weight)

    def __call__(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Pool one batch of hidden states, (B, L, H), with lengths, (B,). Returns (B, V) float32.

        Raises:
            ImportError: Triton is not installed.
        """
        from splade_integrations.engine.kernels.max_logits import max_logits_ragged

        scores = max_logits_ragged(hidden, lengths.to(torch.int32), self._weight)  # (B, V)
        if self._bias is not None:
            scores += self._bias.float()
        return activate(scores, self._activation_function)


def _computes_correctly(kind: type[TritonHead], weight: Tensor) -> bool:
    """Return whether `kind` returns the plain head's float32 results for random vectors. Warn if it does not."""
    difference = 0.0
    try:
        for longest in PROBED_LENGTHS:
            difference = max(difference, _difference(kind, weight[-_PROBED_TERMS:], longest))
    except Exception as err:  # a compiler or a driver may raise anything, and the plain head needs neither
        logger.warning("The Triton head fails here, so the slower plain head is used. The error is: %s", err)
        return False
    if not difference <= _TOLERANCE:
        logger.warning(
            "On this device, the Triton head's results differ from the plain head's by %.1e of the largest term "
            "weight. At most %.0e is accepted, so the slower plain head is used.",
            difference,
            _TOLERANCE,
        )
        return False
    return True


def _difference(kind: type[TritonHead], weight: Tensor, longest: int) -> float:
    """Return the largest difference from the plain head's float32 weights, as a share of the largest of them."""
    generator = torch.Generator("cpu").manual_seed(longest)
    hidden = torch.randn(PROBED_TEXTS, longest, weight.shape[1], generator=generator, device="cpu").to(weight)
    lengths = torch.linspace(longest, 1, PROBED_TEXTS, device="cpu").round().long().to(weight.device)
    with exact_float32(weight.device):
        found = kind(Decoder(weight))(hidden, lengths)
        expected = MaxPoolHead(Decoder(weight.float()))(hidden.float(), lengths)
        return ((found - expected).abs().amax() / expected.amax()).nan_to_num(torch.inf).item()
