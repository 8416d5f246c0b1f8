"""Chooses whether the products of a lone batch use several threads or one, by the times of earlier batches.

This module only counts and compares. It uses no torch.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

__all__ = ["ThreadChoice"]

_LATEST = 3  # a number of threads is judged by the median of its latest times
# The slower number is tried again after 8 batches, then after 16 more, and so on up to 256.
_LEAST_PATIENCE, _MOST_PATIENCE = 8, 256


class ThreadChoice:
    """Chooses between several threads and one thread.

    While all cores are idle, several threads are faster, except for short texts and small models. If another process
    keeps a core busy, the threads wait for each other in each product, and one thread is several times faster. So the
    first batches of each size are timed with both numbers of threads. Later batches use the faster number. The slower
    number is tried again now and then. Each time that it is still slower, the next try comes later.

    Example:
        >>> choice = ThreadChoice()
        >>> with choice.threads(2, tokens=20) as number:
        ...     number
        2
    """

    def __init__(self) -> None:
        self._sizes: dict[tuple[int, int], _Size] = {}

    @contextmanager
    def threads(self, several: int, tokens: int) -> Iterator[int]:
        """Yield the number of threads for a batch, and remember how long the block takes.

        Args:
            several: The number of threads that may compute, at least 2.
            tokens: The number of tokens of the batch, padding included.
        """
        # Batches are of one size if their numbers of tokens have equally many bits.
        size = self._sizes.setdefault((several, tokens.bit_length()), _Size(several))
        number = size.next_number()
        start = time.perf_counter()
        yield number
        size.add(number, time.perf_counter() - start)


class _Size:
    """The times of batches of one size.

    Several Python threads may use it at the same time. A race can only change which number is tried.
    """

    def __init__(self, several: int) -> None:
        self._seconds: dict[int, tuple[float, ...]] = {several: (), 1: ()}
        self._faster = several
        self._patience = _LEAST_PATIENCE
        self._batches = 0  # since the slower number was last tried

    def next_number(self) -> int:
        known = {number: len(seconds) for number, seconds in self._seconds.items()}
        least_known = min(known, key=known.__getitem__)
        if known[least_known] < _LATEST:
            return least_known
        self._batches += 1
        if self._batches <= self._patience:
            return self._faster
        self._batches = 0
        self._patience = min(2 * self._patience, _MOST_PATIENCE)
        return next(number for number in self._seconds if number != self._faster)

    def add(self, number: int, seconds: float) -> None:
        self._seconds[number] = (*self._seconds[number], seconds)[-_LATEST:]
        if not all(self._seconds.values()):
            return
        typical = {number: median(seconds) for number, seconds in self._seconds.items()}
        faster = min(typical, key=typical.__getitem__)
        if faster != self._faster or (number != faster and seconds < typical[faster]):
            self._patience = _LEAST_PATIENCE  # the machine may have changed, so the other number is tried soon
        self._faster = faster
