"""Lets a process fork while it loads a model or encodes, so that the child can encode as well.

A forked child gets a copy of the parent's memory, but only one of the parent's threads: the thread that forked. Two
things could therefore make the child wait for ever:

- A lock that another thread of the parent held stays locked in the child. Torch, OpenVINO and tokenizers have such
  locks. So each thread has a lock of its own, `this_thread.no_fork`, and holds it while it uses these libraries. A fork
  first acquires the `no_fork` of every thread. This package's other locks are `ForkSafeLock`s, which are open in the
  child.
- OpenMP's threads do not exist in the child. There, the thread that forked would wait for these missing threads if it
  computed a matrix product with several threads. So this thread must compute each product alone there.
  `this_thread.has_forked` marks it.

This module loads no other module of this package.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, RLock, local
from time import monotonic
from typing import Any
from weakref import WeakSet

__all__ = ["ForkSafeLock", "this_thread"]

# The longest time that a fork waits for other threads. A batch takes a second at most, and loading a model takes some
# seconds. The limit is for code from a model's repository, which might never end.
_LONGEST_WAIT_SECONDS = 30.0

_forking = RLock()  # a fork holds it, so that meanwhile no new thread adds its `no_fork`
_of_threads: WeakSet[Any] = WeakSet()  # the `no_fork` of each thread
_taken: list[Any] = []  # the `no_fork` locks that the fork has acquired


class _ThisThread(local):
    """What is known about the calling thread.

    Attributes:
        no_fork: A lock that only this thread and forks acquire. While this thread is in a block
            `with this_thread.no_fork:`, forks by other threads wait, but for at most 30 seconds. Blocks may be nested.
        has_forked: Whether this process is a forked child, and this thread is the one that forked.
    """

    has_forked = False

    def __init__(self) -> None:
        self.no_fork: Any = RLock()
        with _forking:
            _of_threads.add(self.no_fork)

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Leave all of this thread's `no_fork` blocks, and enter them again afterwards.

        A thread does so while it waits for another thread. Otherwise, a fork would wait for the first thread, the first
        thread for the other one, and the other one for the fork.
        """
        depth = 0
        while self.no_fork._is_owned():
            self.no_fork.release()
            depth += 1
        try:
            yield
        finally:
            for _ in range(depth):
                self.no_fork.acquire()


this_thread = _ThisThread()


class ForkSafeLock:
    """A lock that is always open at the start of a forked child.

    The thread that held the lock in the parent may not exist in the child, so it could never release the lock there.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        _fork_safe_locks.add(self)

    def renew(self) -> None:
        """Replace the lock by a new, open lock."""
        self._lock = Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        if self._lock.locked():  # it is open if this process is a child that was forked within the block
            self._lock.release()


_fork_safe_locks: WeakSet[ForkSafeLock] = WeakSet()


def _before_fork() -> None:
    """Wait until all other threads have left their `no_fork` blocks, and keep them from starting new blocks."""
    _forking.acquire()
    end = monotonic() + _LONGEST_WAIT_SECONDS
    for lock in list(_of_threads):
        if lock.acquire(timeout=max(0.0, end - monotonic())):
            _taken.append(lock)


def _after_fork() -> None:
    while _taken:
        _taken.pop().release()
    _forking.release()


def _after_fork_in_child() -> None:
    _after_fork()
    this_thread.has_forked = True
    _of_threads.clear()  # the other threads do not exist here
    _of_threads.add(this_thread.no_fork)
    for lock in list(_fork_safe_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
