"""Runs batches in threads that compute separately.

A matrix product that several threads compute together ends when the last thread has finished its part. If another
process keeps a core busy, one of these threads is often not running, and the other threads wait for it. Threads that
compute separately do not wait for each other. All encoders of a process share the threads of this module.

This module uses torch, but no models.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

import torch

from splade_integrations.engine.products import thread_setters
from splade_integrations.forks import ForkSafeLock

__all__ = ["can_run_apart", "run_apart"]

_T = TypeVar("_T")


def can_run_apart() -> bool:
    """Return whether `run_apart` works with this build of torch."""
    return thread_setters() is not None


class _Workers:
    """The threads of this process that compute separately. They start when they are first needed."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self.restart()

    def restart(self) -> None:
        self._size = 0
        self._pool: ThreadPoolExecutor | None = None

    def pool(self, size: int) -> ThreadPoolExecutor:
        """Return a pool of at least `size` threads. An earlier, smaller pool ends once its calls have ended."""
        with self._lock:
            if self._pool is None or self._size < size:
                self._pool = ThreadPoolExecutor(size, "splade-encode", initializer=_compute_alone)
                self._size = size
            return self._pool


def _compute_alone() -> None:
    """Make all matrix products of the calling thread use only this thread."""
    torch.get_num_threads()  # makes torch set up this thread now. A later setup would overwrite the number set below
    for set_number in thread_setters() or ():
        set_number(1)


_workers = _Workers()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_workers.restart)


def run_apart(step: Callable[[], _T | None], threads: int) -> Iterator[_T]:
    """Call `step` again and again in several threads, and yield its results. A thread stops when `step` returns None.

    Matrix products in each of these threads use only that thread. Several callers of this function share the threads.
    After each call of `step`, a thread first makes the calls that other callers have queued in the meantime. So a short
    request does not wait for the end of a long request. If the caller stops iterating early, no further call of `step`
    starts.

    Args:
        step: A function that does one piece of work and returns its result, or returns None if no work is left.
        threads: The largest number of calls of `step` at the same time.
    Raises:
        BaseException: A call of `step` raised it. No further call starts.

    Example:
        >>> numbers = [1, 2, 3]
        >>> sorted(run_apart(lambda: numbers.pop() if numbers else None, threads=2))
        [1, 2, 3]
    """
    pool = _workers.pool(threads)
    results: SimpleQueue[tuple[_T | None, BaseException | None]] = SimpleQueue()
    stopped = Event()

    def work() -> None:
        try:
            result = None if stopped.is_set() else step()
        except BaseException as err:
            results.put((None, err))
            return
        # If `submit` came first, the next call could put a None before this result. The loop below stops at the last
        # None, and would lose this result.
        results.put((result, None))
        if result is not None:
            try:
                pool.submit(work)
            except RuntimeError as err:  # the interpreter is shutting down
                results.put((None, err))

    for _ in range(threads):
        pool.submit(work)
    working = threads
    try:
        while working:
            result, error = results.get()
            if error is not None:
                raise error
            if result is None:
                working -= 1
            else:
                yield result
    finally:
        stopped.set()
