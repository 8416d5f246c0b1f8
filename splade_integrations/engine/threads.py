"""Spreads batches over threads that each compute alone, and chooses how many threads compute a lone batch.

A product over several threads ends when the last of them has done its part. Beside a busy neighbour one of them is
often not running, and the others wait for it. Threads that compute apart never wait for each other.

The threads are the process's, whatever encoder they work for, so that several encoders share its cores. Knows threads
only, nothing of models.
"""

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event, Lock
from typing import NamedTuple, TypeVar

from splade_integrations.engine.process import is_computing

__all__ = ["ThreadChoice", "apart", "spread"]

_T = TypeVar("_T")
# Trials that a choice looks back on: their median forgives one slow call.
_TRIALS = 3
_COLD = 2
# Share of the time that trying the slower way may cost.
_TRYING = 0.01
# A slower way counts as at most this many times slower, so that it is tried again after some hundred calls: the
# neighbour that made it slow may be gone.
_MOST_SLOWER = 4.0


class _Pools:
    """The threads of this process, started when they are first needed."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.size = 0
        self.workers: ThreadPoolExecutor | None = None
        self.apart: ThreadPoolExecutor | None = None


_pools = _Pools()


def spread(step: Callable[[], _T | None], threads: int) -> Iterator[_T]:
    """Yield what `step` returns, called in this many threads at once until it returns None in each.

    After each call a thread serves what others have queued meanwhile, so that a short call need not wait for a long
    one's end. If the consumer stops, no further call starts, and it does not wait for those under way.

    Args:
        step: Does one piece of work, or returns None if none is left.
        threads: Most calls at a time.
    Raises:
        BaseException: What a call raised.

    Example:
        >>> numbers = [1, 2, 3]
        >>> sorted(spread(lambda: numbers.pop() if numbers else None, threads=2))
        [1, 2, 3]
    """
    workers = _workers(threads)
    done: SimpleQueue[tuple[_T | None, BaseException | None]] = SimpleQueue()
    stopped = Event()

    def work() -> None:
        try:
            result = None if stopped.is_set() else step()
            done.put((result, None))  # before the next call, which may find nothing left and say so
            if result is not None:
                workers.submit(work)
        except BaseException as err:
            done.put((None, err))

    for _ in range(threads):
        workers.submit(work)
    working = threads
    try:
        while working:
            result, error = done.get()
            if error is not None:
                raise error
            if result is None:
                working -= 1
            else:
                yield result
    finally:
        stopped.set()


def apart(work: Callable[[], _T]) -> _T:
    """Return what `work` returns, called in a thread that is kept for products over several threads.

    Their pool of threads then belongs to that thread, and not to the caller, whose forked child would lack it.
    """
    with _pools.lock:
        if _pools.apart is None:
            _pools.apart = ThreadPoolExecutor(1, thread_name_prefix="splade-apart")
        thread = _pools.apart
    return thread.submit(work).result()


class _Lately(NamedTuple):
    """Seconds of the last calls of one size, with one thread and with several."""

    one: deque[float]
    several: deque[float]


class ThreadChoice:
    """Chooses between one thread and several for lone batches, by what both took lately.

    Several threads are faster on a quiet machine, and many times slower beside a busy neighbour. Both ways are tried
    first. Then the faster one is taken, and the other one tried again whenever that would cost a hundredth of the time
    since it was last tried.

    Args:
        clock: Returns seconds.
        cold: The number of first calls of each size and way that are not counted, because kernels compile in them.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter, cold: int = _COLD) -> None:
        self._clock = clock
        self._lately: defaultdict[int, _Lately] = defaultdict(
            lambda: _Lately(deque(maxlen=_TRIALS), deque(maxlen=_TRIALS))
        )
        self._cold: defaultdict[tuple[int, bool], int] = defaultdict(lambda: cold)
        self._since_trial: defaultdict[int, float] = defaultdict(float)  # seconds of the faster way

    def run(self, size: int, one: Callable[[], _T], several: Callable[[], _T]) -> _T:
        """Return the result of `one` or `several`, which compute the same.

        If another thread of this process is computing, `one` is taken, and teaches nothing.

        Args:
            size: Tokens. Sizes between the same two powers of two are taken to behave alike.
            one: Computes with one thread.
            several: Computes with several.
        """
        if is_computing():
            return one()
        size = size.bit_length()
        chooses_several = self.prefers_several(size)
        start = self._clock()
        result = several() if chooses_several else one()
        self.note(size, chooses_several, self._clock() - start)
        return result

    def prefers_several(self, size: int) -> bool:
        """Return whether the next call of a size is to use several threads."""
        lately = self._lately[size]
        if len(lately.several) < _TRIALS or len(lately.one) < _TRIALS:
            calls_of_several = len(lately.several) - self._cold[size, True]
            return calls_of_several <= len(lately.one) - self._cold[size, False]
        one, several = _median(lately.one), _median(lately.several)
        excess = min(abs(one - several), (_MOST_SLOWER - 1) * min(one, several))
        tries_slower = self._since_trial[size] * _TRYING > excess
        return (several < one) != tries_slower

    def note(self, size: int, several: bool, seconds: float) -> None:
        """Remember what a call of a size took."""
        if self._cold[size, several]:
            self._cold[size, several] -= 1
            return
        lately = self._lately[size]
        mine, other = (lately.several, lately.one) if several else (lately.one, lately.several)
        is_faster = bool(mine and other) and _median(mine) <= _median(other)
        if other and not is_faster and seconds < _median(other):
            mine.clear()  # times have changed: both ways are tried anew
        mine.append(seconds)
        self._since_trial[size] = self._since_trial[size] + seconds if is_faster else 0.0


def _median(seconds: deque[float]) -> float:
    return sorted(seconds)[len(seconds) // 2]


def _workers(threads: int) -> ThreadPoolExecutor:
    """Return the pool, of at least this many threads. A smaller one before it ends with the calls that use it."""
    with _pools.lock:
        if _pools.workers is None or _pools.size < threads:
            _pools.workers = ThreadPoolExecutor(threads, thread_name_prefix="splade-encode")
            _pools.size = threads
        return _pools.workers


def _after_fork_in_child() -> None:
    """Start anew: the parent's threads do not exist here."""
    global _pools
    _pools = _Pools()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
