"""Chooses, from the times of earlier batches, whether one thread or several threads compute a batch.

Only requests that consist of a single batch use this choice.

This module only counts and compares. It does not use torch.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

__all__ = ["ThreadChoice"]

_LATEST = 3  # each number of threads is judged by the median time of its last `_LATEST` batches
# The slower number of threads is tried again after 8 batches, then after 16 more, and so on up to 256.
_LEAST_PATIENCE, _MOST_PATIENCE = 8, 256


class ThreadChoice:
    """Chooses between several threads and one thread.

    If each thread has a core of its own, several threads are faster than one thread, except for short texts and small
    models. If another process keeps a core busy, several threads wait for each other in each matrix product. One thread
    is then several times faster. `threads_with_a_core` notices most busy processes, but not all. So the first batches
    of each size are timed with both numbers of threads. Later batches use the faster number. The slower number is tried
    again now and then. Each time that it is still slower, the next try comes after more batches.

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
            several: The number of threads that may compute. If it is 1, there is no choice, and nothing is timed.
            tokens: The number of tokens of the batch, padding included.
        """
        if several == 1:
            yield 1
            return
        # Two batches count as the same size if their numbers of tokens have equally many binary digits.
        size = self._sizes.setdefault((several, tokens.bit_length()), _Size(several))
        number = size.next_number()
        start = time.perf_counter()
        yield number
        size.add(number, time.perf_counter() - start)


class _Size:
    """The times of batches of one size.

    Several Python threads may use one `_Size` at the same time. A race between them can only change which number of
    threads is tried next.
    """

    def __init__(self, several: int) -> None:
        self._seconds: dict[int, tuple[float, ...]] = {several: (), 1: ()}
        self._faster = several
        self._patience = _LEAST_PATIENCE
        self._batches = 0  # the number of batches since the slower number was last tried

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
            self._patience = _LEAST_PATIENCE  # the load may have changed, so the slower number is tried again soon
        self._faster = faster
