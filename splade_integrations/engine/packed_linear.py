"""A model's linear layers, replaced by faster ones of the same call. Knows torch only."""

import platform
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

__all__ = ["Linears", "PackedLinear", "packing_pays", "rounded_up", "with_rows"]


def rounded_up(rows: int) -> int:
    """One of the few numbers of rows that products are computed with, at most a sixteenth above `rows`.

    oneDNN compiles a product for each number of rows and keeps it: half a millisecond and half a megabyte, and batches
    of real texts have hundreds of numbers.

    Example:
        >>> [rounded_up(rows) for rows in (25, 33, 1000, 6100)]
        [25, 34, 1024, 6144]
    """
    step = 1 << max(0, rows.bit_length() - 5)  # sixteen numbers from each power of two to the next
    return -(-rows // step) * step


def with_rows(tokens: Tensor, rows: int) -> Tensor:
    """Tokens, (…, tokens, H), and zeros below them up to so many rows; themselves, where they are as many."""
    more = rows - tokens.shape[-2]
    return pad(tokens, (0, 0, 0, more)) if more else tokens  # which would copy also where there is nothing to add


class PackedLinear(nn.Module):
    """A linear layer whose weight lies as oneDNN's kernels read it, so that no call has to rearrange it.

    torch lays it out anew in each call, or multiplies by a slower kernel, which costs most where tokens are few. The
    sums are the same, in another order.

    Args:
        linear: The layer whose place it takes.

    Example:
        >>> linear = nn.Linear(64, 32).requires_grad_(False)
        >>> inputs = torch.randn(2, 5, 64)
        >>> torch.allclose(PackedLinear(linear)(inputs), linear(inputs), atol=1e-5)
        True
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # An opaque layout: no buffer, as it has no way to other devices and types.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, K) to (…, N), of the weight's type."""
        tokens = inputs.reshape(-1, inputs.shape[-1])
        rows = with_rows(tokens, rounded_up(len(tokens)))
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, "none", [], "")
        return outputs[: len(tokens)].view(*inputs.shape[:-1], outputs.shape[1])


def packing_pays(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this processor has such kernels for `dtype`."""
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    operations = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(operations, "_linear_pointwise")):  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(operations._is_mkldnn_bf16_supported()))


class Linears:
    """The linear layers of a model, to be replaced.

    Args:
        model: The model, or a part of it.
        but: Layers to leave out.
    """

    def __init__(self, model: nn.Module, but: Iterable[nn.Module] = ()) -> None:
        left_out = set(but)
        self._places = [
            (parent, name, child)
            for parent in model.modules()
            for name, child in parent.named_children()
            if type(child) is nn.Linear and child not in left_out
        ]

    def replace(self, make: Callable[[nn.Linear], nn.Module]) -> None:
        """Put what `make` makes of a layer in its place; of a layer that has several places, the same in each."""
        made: dict[nn.Linear, nn.Module] = {}
        for _, _, child in self._places:
            if child not in made:
                made[child] = make(child)
        for parent, name, child in self._places:
            setattr(parent, name, made[child])

    def put_back(self) -> None:
        """Put the layers back."""
        for parent, name, child in self._places:
            setattr(parent, name, child)
