"""Controls two things that belong to the whole process: how float32 is computed, and how much free memory malloc keeps.

This module uses torch, but no models.
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

# If the process grows by more bytes than this, free memory is given back to the system. One batch takes much less
# memory than this, and the next batch uses the same memory again.
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
# The settings for each type of device. Other types have no such settings. getattr is used because torch's type
# annotations lack some of these attributes.
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
_found: dict[str, list[tuple[_Setting, Any]]] = {device: [] for device in _SETTINGS}  # what to restore


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Run a block with exact float32 products, with 16-bit products summed in float32, and without autograd.

    `torch.autocast` would compute our products in 16 bits, so it is turned off. Process-wide settings can let oneDNN
    and cuBLAS replace float32 products by bfloat16 or TF32 products, and sum 16-bit products in 16 bits. The block
    turns these settings off. They belong to the caller, so they are restored afterwards. Several threads may run such
    blocks at once: the first one to enter changes the settings, and the last one to leave restores them. On a CPU with
    the default settings, which is the usual case, no setting is changed.

    Three limits remain:

    - A backend of torch can inherit its precision from torch.backends.fp32_precision. After the block, the backend no
      longer inherits it, because the inherited value is restored as the backend's own setting.
    - If torch.set_float32_matmul_precision was called, torch may raise an error in a thread that reads the older
      setting torch.backends.cuda.matmul.allow_tf32 during the block.
    - cuDNN's convolutions, which ConvBERT and SqueezeBERT use, still compute in TF32 on CUDA, which is torch's default.
      Turning TF32 off could cause the same error in threads that read torch.backends.cudnn.allow_tf32.

    Args:
        device: The device on which the block computes.
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
        _users[device] += 1  # comes last, so that a call that failed above is not counted


def _release(device: str) -> None:
    if device not in _SETTINGS:
        return
    with _lock:
        _users[device] -= 1
        if _users[device] == 0:
            while _found[device]:
                setting, value = _found[device].pop()
                if setting.read() == setting.exact:  # if not, another thread has changed it since
                    setting.write(value)


def keep_freed_memory() -> None:
    """Make glibc keep up to 64 MiB of freed memory for the next activations instead of returning it to the system.

    The activations of each layer take some megabytes. If they are in fresh memory, the system first clears it page by
    page, which takes a quarter of the encoding time of BERT-base in int8. glibc keeps up to twice as much free memory
    as the largest block that the process has ever freed. For this rule, only blocks of up to 32 MiB count (mallopt(3),
    M_MMAP_THRESHOLD and M_TRIM_THRESHOLD). So this function allocates and frees a block of almost 32 MiB, without
    writing to it. Other allocators, and thresholds that the user has set, are not affected.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")


class HeapTrimmer:
    """Gives free memory back to the system when the process has grown by more than 192 MiB.

    By default, glibc gives memory back only from the end of its heap. Encoded rows and compiled kernels are small and
    stay in memory, and they lie between activations of many sizes. When these activations are freed, the gaps that they
    leave add up to hundreds of megabytes. With a C library other than glibc, this class does nothing.
    """

    def __init__(self) -> None:
        self._least = resident_bytes()

    def after_batch(self) -> None:
        """Give memory back if the process has grown too much. Giving it back takes ten milliseconds or more."""
        resident = resident_bytes()
        if resident - self._least > MOST_GROWTH and (malloc_trim := _malloc_trim()):
            malloc_trim(0)
            resident = self._least = resident_bytes()
        self._least = min(self._least, resident)


def resident_bytes() -> int:
    """Return the number of bytes of this process's resident memory, or 0 on a system without Linux's /proc."""
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
