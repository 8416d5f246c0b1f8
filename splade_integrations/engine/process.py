"""What a batch shares with its process: the settings of float32 arithmetic, and the memory that malloc keeps.

This module knows torch and the process, and nothing of models.
"""

import ctypes
import mmap
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

__all__ = ["HeapTrimmer", "exact_float32", "keep_freed_memory", "resident_bytes"]

# Growth after which free memory is given back. It is well over what a batch takes, which the next batch takes again.
MOST_GROWTH = 192 * 2**20
_STATM = Path("/proc/self/statm")


class _Setting(NamedTuple):
    """A setting of the process, and the value that makes float32 products exact."""

    owner: Any
    name: str
    exact: Any

    def read(self) -> Any:
        return getattr(self.owner, self.name)

    def write(self, value: Any) -> None:
        setattr(self.owner, self.name, value)


_cuda, _onednn = torch.backends.cuda.matmul, torch.backends.mkldnn
# By type of device; other devices have none. getattr, because torch's own annotations do not know all of them.
_SETTINGS: dict[str, tuple[_Setting, ...]] = {
    "cpu": tuple(_Setting(getattr(_onednn, part), "fp32_precision", "ieee") for part in ("matmul", "conv")),
    "cuda": (
        _Setting(_cuda, "fp32_precision", "ieee"),
        _Setting(_cuda, "allow_bf16_reduced_precision_reduction", False),
        _Setting(_cuda, "allow_fp16_reduced_precision_reduction", False),
        _Setting(_cuda, "allow_fp16_accumulation", False),
    ),
}
_lock = threading.Lock()
_users: dict[str, int] = dict.fromkeys(_SETTINGS, 0)
_found: dict[str, list[tuple[_Setting, Any]]] = {device: [] for device in _SETTINGS}  # each with the value it had


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Run the block without autograd and autocast, with float32 products in float32 and 16-bit ones summed in it.

    `torch.autocast` would run our products in 16 bits. Process-wide settings let a backend replace float32 products by
    bfloat16 or TF32 ones, and sum 16-bit products in 16 bits. These settings belong to the caller, so they are restored
    afterwards. Several threads may use the block at once: the first one saves and sets the settings, and the last one
    restores them. On a CPU a process that left them at their defaults (the usual case) sees no write at all.

    Three limits remain. A precision that the backend inherits, set by torch.backends.fp32_precision, is restored as the
    backend's own. If set_float32_matmul_precision was called, torch may raise in a thread that reads the older
    torch.backends.cuda.matmul.allow_tf32 at the same time. And cuDNN's convolutions, which ConvBERT and SqueezeBERT
    have, stay TF32 on CUDA, torch's default: setting theirs would do the same to readers of
    torch.backends.cudnn.allow_tf32.

    Args:
        device: Where the block computes.
    """
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        _acquire(device.type)
        try:
            yield
        finally:
            _release(device.type)


def _acquire(device: str) -> None:
    if device not in _SETTINGS:
        return
    with _lock:
        if _users[device] == 0:
            for setting in _SETTINGS[device]:
                value = setting.read()
                if value not in (setting.exact, "none"):
                    _found[device].append((setting, value))
                    setting.write(setting.exact)
        _users[device] += 1  # last, so that an error above leaves no user behind


def _release(device: str) -> None:
    if device not in _SETTINGS:
        return
    with _lock:
        _users[device] -= 1
        if _users[device] == 0:
            while _found[device]:
                setting, value = _found[device].pop()
                if setting.read() == setting.exact:  # otherwise another thread has set it in the meantime
                    setting.write(value)


def keep_freed_memory() -> None:
    """Make glibc keep up to 64 MiB of freed memory for the next activations instead of returning it to the system.

    Each layer's activations are some megabytes. The system clears fresh memory page by page, which takes a quarter of
    BERT-base's time in int8. glibc keeps twice the largest block of up to 32 MiB that was ever freed (mallopt(3),
    M_MMAP_THRESHOLD and M_TRIM_THRESHOLD). So this frees one such block, which nothing has written to. Other
    allocators, and thresholds that the user has set, are not affected.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")


class HeapTrimmer:
    """Gives free memory back to the system when the process has grown by more than 192 MiB.

    By itself glibc gives back only what is free at its heap's end. Rows and compiled kernels are small and stay. They
    come to lie between activations of many sizes, and the free gaps between them add up to hundreds of megabytes.
    Under another C library than glibc this does nothing.
    """

    def __init__(self) -> None:
        self._least = resident_bytes()

    def after_batch(self) -> None:
        """Give memory back if need be. That takes some ten milliseconds, more in a process that holds much else."""
        resident = resident_bytes()
        if resident - self._least > MOST_GROWTH and (malloc_trim := _malloc_trim()):
            malloc_trim(0)
            resident = self._least = resident_bytes()
        self._least = min(self._least, resident)


def resident_bytes() -> int:
    """Return the bytes of resident memory of this process, or 0 if Linux's /proc is not there."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return malloc_trim(3), or None if the C library is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return None
    function = ctypes.CDLL(None).malloc_trim
    function.argtypes = [ctypes.c_size_t]
    return function
