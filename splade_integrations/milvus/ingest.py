"""Many documents into Milvus in bounded memory: some are encoded, written and let go, then the next.

Knows neither a framework, nor an encoder, nor pymilvus.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["ROWS_PER_WRITE", "ingest"]

T = TypeVar("T")

# Documents encoded together: enough for full batches. As dicts a chunk's sparse rows take some 10 MB.
_CHUNK = 512
# Rows of one write: its message is built and sent in so little time that an event loop beside it is not held up.
ROWS_PER_WRITE = 100
# milvus-lite holds what is not flushed in memory, twice, and indexes it anew for each query. Each flush is a file, and
# of four of a size it makes one, in memory: 50 000 rows peaked at 990 MiB by flushes of 2 048, 1 060 by 4 096, 1 340
# by 1 024 and 1 300 by 25 600.
_ROWS_PER_FLUSH = 4 * _CHUNK


def ingest(
    items: Sequence[T],
    write: Callable[[Sequence[T]], list[str]],
    flush: Callable[[], object] | None,
    *,
    once: bool = False,
) -> list[str]:
    """Write items, some hundreds at a time.

    Args:
        items: N of what `write` takes, checked beforehand: an error part-way leaves earlier chunks written.
        write: Encodes and writes one chunk, and returns its keys.
        flush: What makes written rows quick to search and frees their memory, or None. Called now and then.
        once: Call it only at the end.
    Returns:
        N keys.

    Example:
        >>> ingest(range(3), lambda chunk: [str(item) for item in chunk], lambda: print("flushed"))
        flushed
        ['0', '1', '2']
    """
    keys: list[str] = []
    for start in range(0, len(items), _CHUNK):
        keys += write(items[start : start + _CHUNK])
        last = start + _CHUNK >= len(items)
        if flush is not None and (last or (not once and (start + _CHUNK) % _ROWS_PER_FLUSH == 0)):
            flush()
    return keys
