"""The vocabulary heads, which turn hidden states into term weights.

A head multiplies hidden states with a decoder, which is the last linear layer of a masked LM, and pools the resulting
logits. `ALL` lists the heads, and `choose` picks the first head that suits a decoder. To add a head, write one class
and add one entry to `ALL`. tests/test_reference.py then compares the new head's results with those of the plain
implementation in reference.py, in float32 on a CPU. A head that cannot run in float32 on a CPU, such as `TritonHead`,
needs its own tests.
"""

from typing import ClassVar, Protocol

from torch import Tensor

from splade_integrations.engine.heads.bfloat16 import BFloat16Head
from splade_integrations.engine.heads.tiled import Decoder, MaxPoolHead, SumPoolHead
from splade_integrations.engine.heads.triton import TritonHead
from splade_integrations.engine.heads.two_pass import TwoPassHead

__all__ = [
    "ALL",
    "BFloat16Head",
    "Decoder",
    "Head",
    "MaxPoolHead",
    "SumPoolHead",
    "TritonHead",
    "TwoPassHead",
    "choose",
]


class Head(Protocol):
    """Turns the hidden states that enter a decoder into term weights, without writing the (B, L, V) logits to memory.

    Args:
        decoder: The decoder.
        activation_function: "relu" or "log1p_relu", as in `splade_pool`.
    """

    pooling_strategy: ClassVar[str]

    def __init__(self, decoder: Decoder, activation_function: str = "relu") -> None: ...

    @classmethod
    def suits(cls, weight: Tensor) -> bool:
        """Return whether the head is correct and fast for the type and the device of a decoder weight, (V, H)."""
        ...

    def __call__(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Pool one batch.

        Args:
            hidden: The hidden states that enter the decoder, padded at the end. (B, L, H).
            lengths: The number of tokens of each text without padding, at least 1. (B,).
        Returns:
            Term weights, 0 or more. (B, V) float32.
        """
        ...


# The fastest heads come first. The last head of each pooling strategy suits every decoder.
ALL: tuple[type[Head], ...] = (BFloat16Head, TwoPassHead, TritonHead, MaxPoolHead, SumPoolHead)


def choose(decoder: Decoder, pooling_strategy: str, activation_function: str) -> Head:
    """Make the fastest head that suits a decoder.

    Args:
        decoder: The decoder.
        pooling_strategy: "max" or "sum".
        activation_function: As in `Head`.
    Raises:
        ValueError: No head has this pooling strategy.
    """
    for kind in ALL:
        if kind.pooling_strategy == pooling_strategy and kind.suits(decoder.weight):
            return kind(decoder, activation_function)
    raise ValueError(f"pooling_strategy must be max or sum, got {pooling_strategy!r}. Use 'max' if unsure.")
