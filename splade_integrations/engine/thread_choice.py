"""Chooses, from the times of earlier batches, whether one thread or several threads compute a batch.

Only requests that consist of a single batch use this choice.

This module only counts and compares. It does not use torch.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

__all__ = ["ThreadChoice"]

_LATEST = 3  # each choice is judged by the median time of its last `_LATEST` batches
# The slower choice is tried again after 8 batches, then after 16 more, and so on up to 256.
_LEAST_PATIENCE, _MOST_PATIENCE = 8, 256
# If no other core is free, several threads can take 30 times as long. So this choice is tried far less often. It is
# tried at all because the number of free cores is an estimate.
_LEAST_PATIENCE_IF_BUSY, _MOST_PATIENCE_IF_BUSY = 200, 1600


class ThreadChoice:
    """Chooses between several threads and one thread.

    If each thread has a core of its own, several threads are faster than one thread, except for short texts and small
    models. If another process keeps a core busy, several threads wait for each other in each matrix product. One thread
    is then several times faster.

    If at least two cores are free, the first batches of each size are timed with both choices. Later batches use the
    faster choice. The slower choice is tried again now and then. Each time that it is still slower, the next try comes
    after more batches. If only one core is free, batches are timed separately, and the first batches use one thread.

    Example:
        >>> choice = ThreadChoice()
        >>> with choice.threads(4, free=3, tokens=20) as number:
        ...     number
        3
    """

    def __init__(self) -> None:
        self._sizes: dict[tuple[bool, int], _Size] = {}

    @contextmanager
    def threads(self, wanted: int, free: int, tokens: int) -> Iterator[int]:
        """Yield the number of threads for a batch, and remember how long the block takes.

        Args:
            wanted: The number of threads that may compute, at least 2.
            free: The number of these threads that would find a free core, 1 to `wanted`.
            tokens: The number of tokens of the batch, padding included.
        """
        # Two batches count as the same size if their numbers of tokens have equally many binary digits.
        size = self._sizes.setdefault((free > 1, tokens.bit_length()), _Size(busy=free == 1))
        several = size.next_is_several()
        start = time.perf_counter()
        yield 1 if not several else free if free > 1 else wanted
        size.add(several, time.perf_counter() - start)


class _Size:
    """The times of batches of one size, for each choice: True is several threads, and False is one thread.

    Several Python threads may use one `_Size` at the same time. A race between them can only change which choice is
    tried next.
    """

    def __init__(self, *, busy: bool) -> None:
        self._seconds: dict[bool, tuple[float, ...]] = {True: (), False: ()}
        self._faster = not busy
        self._least_patience = _LEAST_PATIENCE_IF_BUSY if busy else _LEAST_PATIENCE
        self._most_patience = _MOST_PATIENCE_IF_BUSY if busy else _MOST_PATIENCE
        self._tries_first = not busy  # whether the first batches try both choices
        self._patience = self._least_patience
        self._batches = 0  # the number of batches since the slower choice was last tried

    def next_is_several(self) -> bool:
        known = {several: len(seconds) for several, seconds in self._seconds.items()}
        least_known = min(known, key=known.__getitem__)
        if self._tries_first and known[least_known] < _LATEST:
            return least_known
        self._batches += 1
        if self._batches <= self._patience:
            return self._faster
        self._batches = 0
        self._patience = min(2 * self._patience, self._most_patience)
        return not self._faster

    def add(self, several: bool, seconds: float) -> None:
        self._seconds[several] = (*self._seconds[several], seconds)[-_LATEST:]
        if not all(self._seconds.values()):
            return
        typical = {choice: median(seconds) for choice, seconds in self._seconds.items()}
        faster = min(typical, key=typical.__getitem__)
        if faster != self._faster or (several != faster and seconds < typical[faster]):
            self._patience = self._least_patience  # the load may have changed, so the slower choice is tried again soon
        self._faster = faster
