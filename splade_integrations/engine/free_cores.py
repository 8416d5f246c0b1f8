"""Counts the cores that are free at the moment.

This module reads files of Linux, and needs no torch.
"""

import os
import threading
from pathlib import Path

__all__ = ["threads_with_a_core"]

_PROC = Path("/proc")


def threads_with_a_core(wanted: int, proc: Path = _PROC, cores: int | None = None) -> int:
    """Return how many of `wanted` threads would find a free core now. The calling thread's own core counts as free.

    The result is `wanted`, or a smaller power of 2. It is also `wanted` if this cannot be known: on other systems than
    Linux, or if the process may use only some of the machine's cores.

    The cost is about 5 µs if enough cores are free. Otherwise each thread of this process adds about 5 µs.

    Args:
        wanted: The number of threads that would compute together, at least 1.
        proc: The folder /proc of Linux.
        cores: The number of cores of the machine, or None for the true number.

    Source:
        Linux, Documentation/filesystems/proc.rst: the fourth field of loadavg is the number of threads that run or wait
        for a core now, on the whole machine.

    Example:
        >>> threads_with_a_core(1)
        1
    """
    if cores is None:
        cores = os.cpu_count() or 1
        if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < cores:
            return wanted
    try:
        free = cores + 1 - _running(proc)
        if free < wanted:
            spinning = _spinning(proc)
            # A thread that ran only for a moment is gone at the second look.
            free = max(free, cores + 1 - _running(proc)) + spinning
    except (OSError, ValueError, IndexError):  # not Linux, or the file has another format
        return wanted
    return wanted if free >= wanted else 2 ** (max(free, 1).bit_length() - 1)


def _running(proc: Path) -> int:
    """Return how many threads of the whole machine run or wait for a core."""
    return int((proc / "loadavg").read_bytes().split()[3].split(b"/")[0])


def _spinning(proc: Path) -> int:
    """Return how many threads of this process run without being threads of Python.

    Nearly always they are helper threads of OpenMP. These spin for some milliseconds after each product, until they get
    new work. So they do not take a core from the next product.
    """
    python = {str(thread.native_id) for thread in threading.enumerate()}
    return sum(_runs(thread) for thread in (proc / "self/task").iterdir() if thread.name not in python)


def _runs(thread: Path) -> bool:
    try:
        return (thread / "stat").read_bytes().rpartition(b") ")[2].startswith(b"R")
    except OSError:  # the thread has ended
        return False
