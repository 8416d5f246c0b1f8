"""Runs work in threads of this package instead of the caller's thread.

There are three kinds:

- Threads that compute separately, for several batches, and for a single batch that one thread computes. A matrix
  product that several threads compute together ends when the last thread has finished its part. If another process
  keeps a core busy, one of these threads is often not running, and the other threads wait for it. Threads that compute
  separately do not wait for each other.
- One thread that starts the matrix products that several threads compute together, for a request of only one batch. All
  callers share it, except the main thread, which starts such products itself.
- A thread that ends after its work, for loading a model.

The last two kinds exist because GNU's OpenMP gives helper threads to each thread that starts such a product, and keeps
these helper threads. If OpenMP then has more threads than there are cores, all of them sleep between products instead
of spinning for a moment. Waking them for each product makes a single query take 39 ms instead of 29 ms (a model of
BERT-base's size on 2 cores).

All encoders of a process share the first two kinds. This module uses torch, but no models.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event, current_thread, main_thread
from typing import TypeVar

import torch

from splade_integrations.engine.products import product_threads, thread_setters
from splade_integrations.forks import ForkSafeLock, this_thread

__all__ = ["can_run_apart", "computes_together", "run_alone", "run_apart", "run_in_own_thread", "run_together"]

_T = TypeVar("_T")


def can_run_apart() -> bool:
    """Return whether `run_apart` works with this build of torch."""
    return thread_setters() is not None


class _Workers:
    """The threads of this process that are kept for later calls. They start when they are first needed."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self.restart()

    def restart(self) -> None:
        self._size = 0
        self._pool: ThreadPoolExecutor | None = None
        self._starter: ThreadPoolExecutor | None = None
        self.together: list[None] = []  # one item for each call of `run_together` that has not returned

    def starter(self) -> ThreadPoolExecutor:
        """Return a pool of one thread, which starts the products that several threads compute together."""
        with self._lock:
            if self._starter is None:
                self._starter = ThreadPoolExecutor(1, "splade-together")
            return self._starter

    def pool(self, size: int) -> ThreadPoolExecutor:
        """Return a pool of at least `size` threads that compute separately.

        An earlier, smaller pool ends once its calls have ended.
        """
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
        # If `submit` came first, the next call could put a None into `results` before this result. The loop below stops
        # at the last None, and would lose this result.
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


def run_alone(work: Callable[[], _T], threads: int) -> _T:
    """Call `work` in one of the threads that compute separately, and return its result.

    So however many threads call this function, only about `threads` of them compute at the same time. If all of them
    did, each would lose its data from the processor's cache whenever another one gets the core.

    The main thread calls `work` itself, for the same reason as in `run_together`.

    Args:
        work: The function to call.
        threads: The number of threads that compute separately.

    Example:
        >>> run_alone(lambda: 6 * 7, threads=2)
        42
    """
    return work() if current_thread() is main_thread() else _result_of(work, _workers.pool(threads))


def computes_together() -> bool:
    """Return whether `run_together` is running in any thread."""
    return bool(_workers.together)


def run_together(work: Callable[[], _T]) -> _T:
    """Call `work` in the one thread that starts products of several threads, and return its result.

    The main thread calls `work` itself. In a program without other threads, passing the work on would gain nothing, and
    a query of the tiny model would take 0.15 ms longer.

    Example:
        >>> run_together(lambda: 6 * 7)
        42
    """
    running = _workers.together  # a forked child has a new list
    running.append(None)
    try:
        return work() if current_thread() is main_thread() else _result_of(work, _workers.starter())
    finally:
        running.pop()


def _result_of(work: Callable[[], _T], pool: ThreadPoolExecutor) -> _T:
    try:
        running = pool.submit(work)
    except RuntimeError:  # the interpreter is shutting down, so no thread can start
        return work()
    try:
        return running.result()
    finally:
        del running  # it holds an exception, which holds this frame and the tensors of all frames below


def run_in_own_thread(work: Callable[[], _T], threads: int) -> _T:
    """Call `work` in a new thread, and return its result. The thread and its helper threads end afterwards.

    After Ctrl-C, the caller does not wait for the new thread, but the process ends only when this thread has ended.

    Args:
        work: The function to call.
        threads: The number of threads that its products use.

    Example:
        >>> run_in_own_thread(torch.get_num_threads, threads=1)
        1
    """

    def limited() -> _T:
        with this_thread.no_fork, product_threads(threads):
            return work()

    pool = ThreadPoolExecutor(1, "splade-load")
    with this_thread.outside():
        try:
            running = pool.submit(limited)
        except RuntimeError:  # the interpreter is shutting down, so no thread can start
            return limited()
        try:
            result = running.result()
            pool.shutdown()  # waits until the thread has ended
            return result
        finally:
            pool.shutdown(wait=False)
            del running  # it holds an exception, which holds this frame and the tensors of all frames below
