"""Term weights on a CUDA device to sparse rows on the host: only non-zeros are copied, beside the next batch's work.

Knows tensors and rows, nothing of models. `sparse.from_dense` does the same for weights that are on the host.
"""

from collections.abc import Callable
from typing import Any

import torch
from scipy.sparse import csr_array
from torch import Tensor

from splade_integrations.sparse import from_terms

__all__ = ["CudaTransfer", "nonzero_terms"]


class CudaTransfer:
    """Starts to turn a block of term weights into sparse rows, and returns a function that waits for them.

    The work is queued apart from the model's. Counting non-zeros makes the host wait, and it should wait for this block
    and not for the batch that was started after it.

    Args:
        device: Where the weights will be.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def start(self, weights: Tensor) -> Callable[[], csr_array]:
        """Take (B, V) float32 weights that are computed or queued. The returned function waits for their rows."""
        stream, computed = self._stream, torch.cuda.Event()  # type: ignore[no-untyped-call]
        computed.record(torch.cuda.current_stream(weights.device))

        def finish() -> csr_array:
            with torch.cuda.stream(stream):
                stream.wait_event(computed)
                # To page-locked memory, so that the copies run beside the model.
                parts = [part.to("cpu", non_blocking=True) for part in nonzero_terms(weights)]
                stream.synchronize()  # before `weights` is released
            counts, ids, values = (part.numpy().copy() for part in parts)  # page-locked memory is scarce
            return from_terms(ids, values, counts, weights.shape[1])

        return finish


def nonzero_terms(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the non-zeros of (B, V) weights: the number per row, (B,), and in row order int32 term ids and values."""
    flat = weights.reshape(-1)
    positions = flat.nonzero().squeeze(1)  # NaN counts, so that a check can see it
    return weights.count_nonzero(dim=1), (positions % weights.shape[1]).to(torch.int32), flat[positions]
