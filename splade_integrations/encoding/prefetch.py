"""Computes the next result in a thread while the caller uses the current one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

__all__ = ["one_ahead"]

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def one_ahead(function: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """Yield `function(item)` for each item. A thread computes the next result while the caller uses the current one.

    Items are read in the caller's thread, and at most one item is read ahead. If reading an item raises an exception,
    the results of all earlier items are yielded first. A caller that stops early waits until the running call of
    `function` ends. If there is only one item, no thread is started.

    Args:
        function: The function to call. It must work in any thread.
        items: The arguments, one for each call.

    Example:
        >>> list(one_ahead(len, ["a", "bc"]))
        [1, 2]
    """
    drawn = iter(items)
    first = list(islice(drawn, 1))
    try:
        second = list(islice(drawn, 1))
    except Exception:
        yield from map(function, first)
        raise
    if not second:
        yield from map(function, first)
        return
    started: deque[Future[_Out]] = deque()
    error: Exception | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="splade-prefetch") as thread:
        remaining = chain(first, second, drawn)
        while True:
            try:
                started.append(thread.submit(function, next(remaining)))
            except StopIteration:
                break
            except Exception as err:  # raised below, after all earlier results. Only Ctrl-C is raised at once
                error = err
                break
            if len(started) > 1:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()
    if error is not None:
        raise error
