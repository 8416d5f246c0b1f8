"""What glibc's malloc does with freed memory. Nothing here has an effect under another C library.

Knows the process only; nothing of models.
"""

import ctypes
import mmap
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

__all__ = ["HeapTrimmer", "keep_freed_memory"]

# Growth after which what is free is given back: well over what a batch takes, which the next one would take anew.
_MOST_GROWTH = 192 * 2**20
_STATM = Path("/proc/self/statm")


def keep_freed_memory() -> None:
    """Have glibc keep up to 64 MiB that are freed, for the next activations, and not give them back to the system.

    Each layer's activations are some megabytes. Memory that comes from the system anew is cleared page by page, which
    takes a quarter of BERT-base's time in int8. glibc keeps twice the largest block of up to 32 MiB that was ever
    freed (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD), so one is freed, which nothing has written to. Other
    allocators, and thresholds that the user has set, stay as they are.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")


class HeapTrimmer:
    """Gives what is free back to the system whenever the process has grown by more than 192 MiB.

    By itself glibc gives back only what is free at its heap's end. Rows and compiled kernels, which are small and stay,
    come to lie between activations of many sizes, and what is free between them adds up to hundreds of megabytes.
    """

    def __init__(self) -> None:
        self._least = _resident()

    def after_batch(self) -> None:
        """Look, and give back if need be: some ten milliseconds then, more in a process that holds much else."""
        resident = _resident()
        if resident - self._least > _MOST_GROWTH and (malloc_trim := _malloc_trim()):
            malloc_trim(0)
            resident = self._least = _resident()
        self._least = min(self._least, resident)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """malloc_trim(3), or None where the C library is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return None
    function = ctypes.CDLL(None).malloc_trim
    function.argtypes = [ctypes.c_size_t]
    return function


def _resident() -> int:
    """Bytes of resident memory; 0 where Linux's /proc is not there."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0
