"""float32 that is float32: shields our arithmetic from what the process has switched on.

`torch.autocast` would run our products in 16 bits, and the process-wide float32 matmul precision ("medium", "high")
lets a backend replace float32 products by bfloat16 or TF32 ones. Both belong to the caller, so both are found again
as they were. Knows torch only.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["exact_float32"]

# getattr: torch's own annotations do not know the first.
_BACKENDS: tuple[Any, ...] = (getattr(torch.backends.mkldnn, "matmul"), torch.backends.cuda.matmul)  # noqa: B009
_lock = threading.Lock()
_users = 0
_found: list[tuple[Any, str]] = []  # (backend, the precision it had)


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Run the block without autograd and autocast, and with float32 products computed in float32.

    The matmul precision is a setting of the process, so it is counted: the first of several threads saves and sets it,
    the last one puts it back. A process that left it at its default (the usual case) sees no write at all. One limit:
    a precision that the backend inherits, set by torch.backends.fp32_precision, is put back as the backend's own.
    """
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        _acquire()
        try:
            yield
        finally:
            _release()


def _acquire() -> None:
    global _users
    with _lock:
        _users += 1
        if _users > 1:
            return
        for backend in _BACKENDS:
            precision = backend.fp32_precision
            if precision not in ("ieee", "none"):
                _found.append((backend, precision))
                backend.fp32_precision = "ieee"


def _release() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            while _found:
                backend, precision = _found.pop()
                if backend.fp32_precision == "ieee":  # else another thread has set it meanwhile
                    backend.fp32_precision = precision
