"""Work that runs one step ahead of its consumer. Knows nothing of texts or models."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

__all__ = ["one_ahead"]

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def one_ahead(function: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """Yield `function(item)` for each item, computed in a thread while the consumer works on the one before.

    Items are drawn in the consumer's own thread, one more than has been asked for and no further. An exception from
    them is raised when all that came before it has been yielded. A consumer that stops early waits for the one step
    under way. A single item is computed on the spot, without a thread.

    Args:
        function: What to compute; it may not depend on its thread.
        items: What to compute it of.

    Example:
        >>> list(one_ahead(len, ["a", "bc"]))
        [1, 2]
    """
    drawn = iter(items)
    first = list(islice(drawn, 1))
    try:
        second = list(islice(drawn, 1))
    except BaseException:
        yield from map(function, first)
        raise
    if not second:
        yield from map(function, first)
        return
    started: deque[Future[_Out]] = deque()
    error: BaseException | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="splade-prefetch") as thread:
        remaining = chain(first, second, drawn)
        while True:
            try:
                started.append(thread.submit(function, next(remaining)))
            except StopIteration:
                break
            except BaseException as err:  # raised below, after what came before it
                error = err
                break
            if len(started) > 1:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()
    if error is not None:
        raise error
