"""Counts the cores that are free at the moment.

This module reads files of Linux, and needs no torch.
"""

import os
import threading
import time
from itertools import islice

__all__ = ["free_cores"]

_MOMENT = 1e-4  # seconds


def free_cores(wanted: int, proc: str = "/proc", cores: int | None = None) -> int:
    """Return how many of `wanted` threads would find a free core now. The calling thread's own core counts as free.

    The result is `wanted` if this cannot be known: on other systems than Linux, or if the process may use only some of
    the machine's cores. Otherwise it is an estimate: it does not know how important the running threads are, nor, in a
    container, whether the count is that of the container or of the machine.

    The cost is about 5 µs if enough cores are free. Otherwise it is .2 ms or more, and each thread of this process adds
    up to 10 µs.

    Args:
        wanted: The number of threads that would compute together, at least 1.
        proc: The folder /proc of Linux.
        cores: The number of cores of the machine. None means the number that is online, if the process may use all.
    Returns:
        1 to `wanted`.

    Source:
        Linux, Documentation/filesystems/proc.rst: the fourth field of loadavg is the number of threads that run or wait
        for a core now, on the whole machine.

    Example:
        >>> free_cores(1)
        1
    """
    if cores is None:
        if not hasattr(os, "sched_getaffinity"):
            return wanted
        cores = os.sysconf("SC_NPROCESSORS_ONLN")  # os.cpu_count() obeys Python's option -X cpu_count
        if len(os.sched_getaffinity(0)) < cores:
            return wanted
    try:
        free = cores + 1 - _running(proc)
        if free < wanted:
            free += _spinning(proc, wanted - 1)
        if free < wanted:
            # A thread that runs only for a moment is gone at the second look, such as an event loop that has just
            # passed on the text. It could not end its work before, because Python runs one thread at a time.
            time.sleep(_MOMENT)
            free = max(free, cores + 1 - _running(proc) + _spinning(proc, wanted - 1))
    except (OSError, ValueError, IndexError):  # there is no such file, or it has another format
        return wanted
    return max(1, min(free, wanted))


def _running(proc: str) -> int:
    """Return how many threads of the whole machine run or wait for a core."""
    return int(_read(f"{proc}/loadavg").split()[3].split(b"/")[0])


def _spinning(proc: str, most: int) -> int:
    """Return how many threads of this process run without being threads of Python. Count no further than `most`.

    Nearly always they are helper threads of OpenMP. These spin for some milliseconds after each product, until they get
    new work. So they do not take a core from the next product.
    """
    python = {str(thread.native_id) for thread in threading.enumerate()}
    python |= {str(os.getpid()), str(threading.get_native_id())}  # in a forked child, `native_id` can be the parent's
    with os.scandir(f"{proc}/self/task") as entries:
        names = sorted((entry.name for entry in entries), reverse=True)  # helper threads are often the latest threads
    running = (name for name in names if name not in python and _runs(f"{proc}/self/task/{name}/stat"))
    return sum(1 for _ in islice(running, most))


def _runs(stat: str) -> bool:
    try:
        return _read(stat).rpartition(b") ")[2].startswith(b"R")
    except OSError:  # the thread has ended
        return False


def _read(file: str) -> bytes:
    """Read a short file. Each call of the system lets other threads of Python run, so there are as few as possible."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return os.read(descriptor, 512)
    finally:
        os.close(descriptor)
