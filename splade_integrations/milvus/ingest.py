"""Write many documents to Milvus in bounded memory: encode, write and release one chunk after another.

This module does not need LangChain, LlamaIndex, an encoder or pymilvus.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["ROWS_PER_FLUSH", "ingest"]

T = TypeVar("T")

# The number of documents in a chunk. The documents of a chunk are encoded together. A chunk is large enough to fill the
# encoder's batches. As dicts, the sparse vectors of a chunk take about 10 MB.
_CHUNK = 512
# milvus-lite holds unflushed rows in memory twice, and indexes them again for each query. Each flush writes a file.
# Whenever there are four files of similar size, milvus-lite merges them in memory. So both too few and too many
# flushes cost memory. For 50 000 rows, the peak memory was 1 340 MiB with a flush after every 1 024 rows, 990 MiB with
# a flush after every 2 048, 1 060 MiB with a flush after every 4 096, and 1 300 MiB with a flush after every 25 600.
ROWS_PER_FLUSH = 4 * _CHUNK


def ingest(
    items: Sequence[T],
    write: Callable[[Sequence[T]], list[str]],
    flush: Callable[[], object] | None,
    *,
    once: bool = False,
) -> list[str]:
    """Write items in chunks of a few hundred.

    Args:
        items: N items for `write`. Check them before this call. If a chunk raises an error, the chunks before it have
            been written and stay stored.
        write: Encodes and writes one chunk, and returns the primary keys of its items.
        flush: Makes the written rows quick to search and frees their memory. It is called after every few chunks and at
            the end. None means no flush.
        once: Whether to call `flush` only at the end.
    Returns:
        N primary keys.

    Example:
        >>> ingest(range(3), lambda chunk: [str(item) for item in chunk], lambda: print("flushed"))
        flushed
        ['0', '1', '2']
    """
    keys: list[str] = []
    for start in range(0, len(items), _CHUNK):
        keys += write(items[start : start + _CHUNK])
        last = start + _CHUNK >= len(items)
        if flush is not None and (last or (not once and (start + _CHUNK) % ROWS_PER_FLUSH == 0)):
            flush()
    return keys
