"""What a batch shares with its process: settings of float32 arithmetic, threads, forks, and the memory malloc keeps.

Knows torch and the process, nothing of models.
"""

import ctypes
import mmap
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

import torch

__all__ = [
    "ForkSafeLock",
    "HeapTrimmer",
    "can_limit_threads",
    "computing",
    "exact_float32",
    "is_computing",
    "keep_freed_memory",
    "resident_bytes",
    "torch_threads",
]

# Growth after which free memory is given back. It is well over what a batch takes, which the next batch takes again.
MOST_GROWTH = 192 * 2**20
_STATM = Path("/proc/self/statm")
# Longest wait of a fork for the batches under way. A batch takes well under a second; code of a repository's own could
# hang.
_FORK_PATIENCE_SECONDS = 30.0


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


class ForkSafeLock:
    """A lock that is open in a forked child, whoever held it in the parent: that thread is not there."""

    def __init__(self) -> None:
        self.renew()
        _fork_safe_locks.add(self)

    def renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_fork_safe_locks: WeakSet[ForkSafeLock] = WeakSet()


class _Gate:
    """Counts who computes, and lets a fork wait until nobody does.

    A child has the thread that forked and no other. A lock that another thread held (oneDNN, OpenVINO and tokenizers
    have some) would stay locked in it for ever.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._closed = False
        self._of_thread = threading.local()

    @property
    def inside(self) -> int:
        return self._inside

    def enter(self) -> None:
        depth: int = getattr(self._of_thread, "depth", 0)
        with self._changed:
            while self._closed and not depth:  # who is inside already must get out, or the fork would wait for ever
                self._changed.wait()
            self._inside += 1
        self._of_thread.depth = depth + 1

    def leave(self) -> None:
        self._of_thread.depth -= 1
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Keep others out, and wait until nobody but the calling thread is inside."""
        own: int = getattr(self._of_thread, "depth", 0)
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._inside <= own, _FORK_PATIENCE_SECONDS)

    def open(self) -> None:
        with self._changed:
            self._closed = False
            self._changed.notify_all()


_gate = _Gate()


@contextmanager
def computing(device: torch.device, threads: int = 1) -> Iterator[None]:
    """Run the block as `exact_float32` does, with this many threads for each product. A fork waits for its end.

    With one thread, the calling thread computes alone. It waits for no other one, which a busy machine may not be
    running, and it opens no pool of threads, which a forked child would lack: OpenMP's pool belongs to the thread that
    opened it, and a child of that thread would wait for the pool for ever.

    Args:
        device: Where the block computes.
        threads: Threads of each product on a CPU.
    """
    _gate.enter()
    try:
        with torch_threads(threads if device.type == "cpu" else 1), exact_float32(device):
            yield
    finally:
        _gate.leave()


def is_computing() -> bool:
    """Return whether any thread of this process is within `computing`."""
    return _gate.inside > 0


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let the calling thread's products use this many threads within the block; other threads see no change.

    `torch.set_num_threads` would also change what threads that start later begin with. So this calls OpenMP's and MKL's
    functions for the calling thread. If torch was built without OpenMP, the block runs as torch is set.

    Args:
        number: Threads of each product.

    Example:
        >>> with torch_threads(1):
        ...     torch.get_num_threads()
        1
    """
    setters = _thread_setters()
    if setters is None:
        yield
        return
    set_openmp, set_mkl = setters
    found = torch.get_num_threads()  # also makes torch set up this thread, which it would otherwise do later
    found_mkl = set_mkl(number)
    set_openmp(number)
    try:
        yield
    finally:
        set_openmp(found)
        set_mkl(found_mkl)


def can_limit_threads() -> bool:
    """Return whether `torch_threads` has an effect here."""
    return _thread_setters() is not None


@cache
def _thread_setters() -> tuple[Callable[[int], object], Callable[[int], int]] | None:
    """Return what sets the calling thread's number in OpenMP and in MKL, or None if torch does not obey it.

    MKL's returns the number that it replaces. MKL has a number of its own once `torch.set_num_threads` was called, and
    follows OpenMP's before.
    """
    try:
        library = ctypes.CDLL(torch._C.__file__)  # also finds the functions of what it is linked with
        set_openmp: Callable[[int], object] = library.omp_set_num_threads
    except (OSError, AttributeError):
        return None
    found = torch.get_num_threads()
    set_openmp(found + 1)
    obeyed = torch.get_num_threads() == found + 1  # another OpenMP than torch's may have answered
    set_openmp(found)
    if not obeyed:
        return None
    try:
        return set_openmp, library.MKL_Set_Num_Threads_Local
    except AttributeError:
        return set_openmp, lambda _: 0


def _after_fork_in_child() -> None:
    """Forget the parent's other threads, which do not exist here, and put back the settings that they had changed."""
    global _gate, _lock
    _gate = _Gate()
    _lock = threading.Lock()
    for lock in list(_fork_safe_locks):
        lock.renew()
    for device, found in _found.items():
        _users[device] = 0
        while found:
            setting, value = found.pop()
            setting.write(value)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=lambda: _gate.close(), after_in_parent=lambda: _gate.open(), after_in_child=_after_fork_in_child
    )


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
