"""Term weights on a device to sparse rows on the host: only what is not zero crosses, beside the next batch's work.

Knows tensors and rows, nothing of models. `sparse.from_dense` is the twin for weights that are on the host already.
"""

from collections.abc import Callable
from typing import Any

import torch
from scipy.sparse import csr_array
from torch import Tensor

from splade_integrations.sparse import from_dense, from_terms

__all__ = ["SparseExtraction", "nonzero_terms"]


class SparseExtraction:
    """Starts to turn a block of term weights into sparse rows, and says how to wait for them.

    On CUDA the work is queued apart from the model's: counting non-zeros makes the host wait, and it should wait for
    this block and not for the batch that was started since.

    Args:
        device: Where the weights will be.

    Example:
        >>> rows = SparseExtraction(torch.device("cpu")).start(torch.tensor([[0.0, 1.5], [0.0, 0.0]]))
        >>> rows().toarray()
        array([[0. , 1.5],
               [0. , 0. ]], dtype=float32)
    """

    def __init__(self, device: torch.device) -> None:
        self._stream: Any = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def start(self, weights: Tensor) -> Callable[[], csr_array]:
        """Take (B, V) float32 weights that are computed or queued; the function returned waits for their rows."""
        if self._stream is None:
            rows = from_dense(weights.cpu().numpy())
            return lambda: rows
        stream, computed = self._stream, torch.cuda.Event()  # type: ignore[no-untyped-call]
        computed.record(torch.cuda.current_stream(weights.device))

        def finish() -> csr_array:
            with torch.cuda.stream(stream):
                stream.wait_event(computed)
                # To page-locked memory, which is what makes the copies run beside the model.
                parts = [part.to("cpu", non_blocking=True) for part in nonzero_terms(weights)]
                stream.synchronize()  # before `weights` is given back, too
            counts, ids, values = (part.numpy().copy() for part in parts)  # page-locked memory is scarce
            return from_terms(ids, values, counts, weights.shape[1])

        return finish


def nonzero_terms(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is not zero of (B, V) weights: how many a row, (B,), and in row order their term ids, int32, and values."""
    flat = weights.reshape(-1)
    positions = flat.nonzero().squeeze(1)  # NaN counts, so that a check can see it
    return weights.count_nonzero(dim=1), (positions % weights.shape[1]).to(torch.int32), flat[positions]
