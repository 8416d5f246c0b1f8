"""Turns term weights on a CUDA device into sparse rows on the host, while the device computes the next batch.

Only non-zero weights are copied. `sparse.from_dense` does the same for weights that are on the host.
"""

from collections.abc import Callable
from typing import Any

import torch
from scipy.sparse import csr_array
from torch import Tensor

from splade_integrations.sparse import from_terms

__all__ = ["CudaTransfer", "nonzero_terms"]


class CudaTransfer:
    """Turns term weights into sparse rows, one batch after the other, on a separate CUDA stream.

    The host has to wait until the non-zeros of a batch are counted. On a separate stream, the host waits only for this
    batch, and not for the next batch, which the device is already computing.

    Args:
        device: The device of the weights.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def start(self, weights: Tensor) -> Callable[[], csr_array]:
        """Return a function that waits for the weights of a batch, (B, V) float32, and turns them into sparse rows."""
        stream, computed = self._stream, torch.cuda.Event()  # type: ignore[no-untyped-call]
        computed.record(torch.cuda.current_stream(weights.device))

        def finish() -> csr_array:
            with torch.cuda.stream(stream):
                stream.wait_event(computed)
                # The copies go to page-locked memory, so that they run at the same time as the model.
                parts = [part.to("cpu", non_blocking=True) for part in nonzero_terms(weights)]
                stream.synchronize()  # must come before `weights` is released
            # The parts are copied once more, into ordinary memory, because page-locked memory is scarce.
            counts, ids, values = (part.numpy().copy() for part in parts)
            return from_terms(ids, values, counts, weights.shape[1])

        return finish


def nonzero_terms(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the number of non-zeros in each row of (B, V) weights, and their int32 term ids and values, row by row."""
    flat = weights.reshape(-1)
    positions = flat.nonzero().squeeze(1)  # NaN counts as non-zero, so that a check can see it
    return weights.count_nonzero(dim=1), (positions % weights.shape[1]).to(torch.int32), flat[positions]
