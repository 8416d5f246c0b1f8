"""Makes matrix products exact in float32, and sets how many threads compute them.

This module uses torch, but no models.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any, NamedTuple

import torch

from splade_integrations.engine.cpu_quota import cpu_quota
from splade_integrations.forks import this_thread

__all__ = ["exact_float32", "product_threads", "thread_setters", "usable_threads"]


class _Setting(NamedTuple):
    """A process-wide setting of torch, and the value that makes products exact."""

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
_lock = Lock()  # held only inside `with this_thread.no_fork:`, so no thread forks while another thread holds it
_users: dict[str, int] = dict.fromkeys(_SETTINGS, 0)
_found: dict[str, list[tuple[_Setting, Any]]] = {device: [] for device in _SETTINGS}  # the values to restore


@contextmanager
def exact_float32(device: torch.device, threads: int | None = None) -> Iterator[None]:
    """Within the block, make float32 products exact, sum 16-bit products in float32, and turn autograd off.

    A float32 product is exact if it is computed in float32 and not in a narrower type. `torch.autocast` would compute
    it in 16 bits, so autocast is turned off as well. Process-wide settings can let oneDNN and cuBLAS compute float32
    products in bfloat16 or TF32. Other settings let them sum 16-bit products in 16 bits. All these settings are turned
    off within the block. They belong to the user, so they are restored afterwards. Several threads may run such blocks
    at once: the first thread to enter changes the settings, and the last thread to leave restores them. On a CPU with
    the default settings, which is the usual case, no setting is changed.

    Three limits remain:

    - A backend of torch can inherit its precision from torch.backends.fp32_precision. Restoring a setting writes the
      inherited precision into the backend's own setting. So after the block, the backend ignores later changes of
      torch.backends.fp32_precision.
    - If torch.set_float32_matmul_precision was called, torch may raise an error in a thread that reads the older
      setting torch.backends.cuda.matmul.allow_tf32 during the block.
    - cuDNN's convolutions, which ConvBERT and SqueezeBERT use, still compute in TF32 on CUDA. TF32 is torch's default
      for them. Turning it off could cause the error of the previous point in threads that read
      torch.backends.cudnn.allow_tf32.

    A fork of this process waits until the block ends. A forked child has one thread, and computes its
    products in this thread alone (see `forks.py`).

    Args:
        device: The device on which the block computes.
        threads: The number of threads that the products use on a CPU. None means torch's own number.
    """
    with (
        this_thread.no_fork,
        product_threads(threads),
        torch.inference_mode(),
        torch.autocast(device.type, enabled=False),
    ):
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
        _users[device] += 1  # comes last, so that a user is not counted if a line above fails


def _release(device: str) -> None:
    if device not in _SETTINGS:
        return
    with _lock:
        _users[device] -= 1
        if _users[device] == 0:
            while _found[device]:
                setting, value = _found[device].pop()
                if setting.read() == setting.exact:  # if not, other code has changed the setting since
                    setting.write(value)


@contextmanager
def product_threads(number: int | None = None) -> Iterator[None]:
    """Let matrix products of the calling thread use `number` threads within the block. Other threads are not affected.

    `torch.set_num_threads` would also change the number for threads that start later. So this function sets the calling
    thread's own number in OpenMP and in MKL. If torch was built without OpenMP, this function does nothing.

    Args:
        number: The number of threads. None leaves the number as it is. If this process is a forked child, the number is
            always 1 in the thread that forked, because OpenMP's other threads do not exist (see `forks.py`).

    Example:
        >>> with product_threads(1):
        ...     torch.get_num_threads()
        1
    """
    if this_thread.has_forked:
        number = 1
    setters, found = thread_setters(), torch.get_num_threads()  # `get_num_threads` also makes torch set up this thread
    if setters is None or number is None or number == found:
        yield
        return
    set_openmp, set_mkl = setters
    set_openmp(number)
    found_mkl = set_mkl(number)
    try:
        yield
    finally:
        set_openmp(found)
        set_mkl(found_mkl)


@cache
def thread_setters() -> tuple[Callable[[int], object], Callable[[int], int]] | None:
    """Return the functions of OpenMP and MKL that set the calling thread's number of threads.

    If torch does not obey OpenMP's function, the result is None.

    MKL's function returns the number that it replaces. 0 means that no number was set for the calling thread.
    """
    try:
        library = ctypes.CDLL(torch._C.__file__)  # also finds the functions of the libraries that torch is linked with
        set_openmp: Callable[[int], object] = library.omp_set_num_threads
    except (OSError, AttributeError):
        return None
    found = torch.get_num_threads()
    set_openmp(found + 1)
    obeyed = torch.get_num_threads() == found + 1  # False if the function is of an OpenMP that torch does not use
    set_openmp(found)
    if not obeyed:
        return None
    return set_openmp, getattr(library, "MKL_Set_Num_Threads_Local", lambda _: 0)


def usable_threads(requested: int | None = None) -> int:
    """Return the number of threads that compute on a CPU.

    Args:
        requested: The number that the user wants. None means the smaller of two numbers: the number of cores that
            this process may use, and torch's number of threads. The process may use the cores of its affinity, up to
            its CPU quota.
    """
    if requested:
        return requested
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(torch.get_num_threads(), allowed, cpu_quota())))
