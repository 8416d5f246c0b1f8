"""Write many documents to Milvus in bounded memory: encode, write and release one chunk, then take the next.

This module needs no framework, no encoder and no pymilvus.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["ROWS_PER_WRITE", "ingest"]

T = TypeVar("T")

# Documents encoded together: enough for full batches. As dicts, a chunk's sparse rows take about 10 MB.
_CHUNK = 512
# Rows of one write. Few enough that building and sending the message does not hold up an event loop.
ROWS_PER_WRITE = 100
# milvus-lite holds unflushed rows in memory twice, and indexes them anew for each query. Each flush writes a file, and
# milvus-lite merges four files of one size in memory. The peak memory for 50 000 rows was 990 MiB if a flush came after
# every 2 048 rows, 1 060 MiB after 4 096, 1 340 MiB after 1 024, and 1 300 MiB after 25 600.
_ROWS_PER_FLUSH = 4 * _CHUNK


def ingest(
    items: Sequence[T],
    write: Callable[[Sequence[T]], list[str]],
    flush: Callable[[], object] | None,
    *,
    once: bool = False,
) -> list[str]:
    """Write items, a few hundred at a time.

    Args:
        items: N items for `write`. Check them first: after an error, earlier chunks stay written.
        write: Encodes and writes one chunk, and returns its keys.
        flush: Makes written rows quick to search and frees their memory, or None. Called every few chunks.
        once: Whether to call `flush` only at the end.
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
