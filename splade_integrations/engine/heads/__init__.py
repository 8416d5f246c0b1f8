"""The vocabulary heads: hidden states to term weights. `ALL` lists them, and `choose` takes the first that suits.

A new head is one class and one entry in `ALL`; tests/test_reference.py then holds it to the reference, in float32 on a
CPU. A head that cannot run there needs tests of its own beside those of `TritonHead`.
"""

from typing import ClassVar, Protocol

from torch import Tensor

from splade_integrations.engine.heads.tiled import Decoder, MaxPoolHead, SumPoolHead
from splade_integrations.engine.heads.triton import TritonHead
from splade_integrations.engine.heads.two_pass import TwoPassHead

__all__ = ["ALL", "Decoder", "Head", "MaxPoolHead", "SumPoolHead", "TritonHead", "TwoPassHead", "choose"]


class Head(Protocol):
    """Pools what enters a decoder into term weights, without writing the (B, L, V) logits.

    Args:
        decoder: The decoder.
        activation_function: "relu" or "log1p_relu", as `splade_pool`.
    """

    pooling_strategy: ClassVar[str]

    def __init__(self, decoder: Decoder, activation_function: str = "relu") -> None: ...

    @classmethod
    def suits(cls, weight: Tensor) -> bool:
        """Return whether it is right and fast for a decoder weight, (V, H), of this type on this device."""
        ...

    def __call__(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Pool one batch.

        Args:
            hidden: What enters the decoder, padded at the end. (B, L, H).
            lengths: Real tokens of each text, at least 1. (B,).
        Returns:
            Term weights, 0 or more. (B, V) float32.
        """
        ...


# The fastest first. The last one of each pooling strategy suits every decoder.
ALL: tuple[type[Head], ...] = (TwoPassHead, TritonHead, MaxPoolHead, SumPoolHead)


def choose(decoder: Decoder, pooling_strategy: str, activation_function: str) -> Head:
    """Make the fastest head that suits a decoder.

    Args:
        decoder: The decoder.
        pooling_strategy: "max" or "sum".
        activation_function: As `Head`.
    Raises:
        ValueError: No head pools that way.
    """
    for kind in ALL:
        if kind.pooling_strategy == pooling_strategy and kind.suits(decoder.weight):
            return kind(decoder, activation_function)
    raise ValueError(f"pooling_strategy must be max or sum, got {pooling_strategy!r}. Use 'max' if unsure.")
