"""Encodes records block by block, in order and in bounded memory.

A block is a list of records and the sparse matrix of their term weights. This module does not depend on file formats
or stores.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from scipy.sparse import csr_array

from splade_integrations.records import Record

if TYPE_CHECKING:
    from splade_integrations.encoder import SpladeEncoder

__all__ = ["Block", "encode_blocks"]

_QUERIES_AT_ONCE = 512


@dataclass(frozen=True)
class Block:
    """Records and their term weights.

    Args:
        records: N records.
        weights: (N, V) term weights, with one row for each record. V is the size of the vocabulary.
    """

    records: list[Record]
    weights: csr_array

    @property
    def ids(self) -> list[str]:
        """The ids of the N records."""
        return [record.id for record in self.records]

    @property
    def texts(self) -> list[str]:
        """The texts of the N records."""
        return [record.text for record in self.records]


def encode_blocks(
    encoder: "SpladeEncoder",
    records: Iterator[Record],
    *,
    queries: bool = False,
    advance: Callable[[int], object] = lambda _: None,
    block_rows: int | None = None,
) -> Iterator[Block]:
    """Encode records as they arrive, and yield them in blocks.

    Args:
        encoder: The encoder.
        records: The records to encode.
        queries: Whether the texts are queries.
        advance: Called with the number of texts encoded since the last call.
        block_rows: The number of records in a block. None means 512 for queries, and the encoder's default for
            documents.
    """
    waiting: deque[Record] = deque()

    def texts() -> Iterator[str]:
        for record in records:
            waiting.append(record)
            yield record.text

    if queries:
        matrices = _stream_queries(encoder, texts(), advance, block_rows or _QUERIES_AT_ONCE)
    else:
        matrices = encoder.stream_documents(texts(), show_progress=advance, block_rows=block_rows)
    for matrix in matrices:
        yield Block([waiting.popleft() for _ in range(matrix.shape[0])], matrix)


def _stream_queries(
    encoder: "SpladeEncoder", texts: Iterator[str], advance: Callable[[int], object], block_rows: int
) -> Iterator[csr_array]:
    while block := list(islice(texts, block_rows)):
        yield encoder.encode_queries(block, show_progress=advance)
