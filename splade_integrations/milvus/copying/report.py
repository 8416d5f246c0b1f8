"""What was done to make a copy, and what a copy would cost. This module does not need pymilvus.

A copy is made in passes. Each pass compares all rows of the original with the copy, and writes what differs.
"""

from dataclasses import dataclass

__all__ = ["Estimate", "Report"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was done to make a copy.

    Args:
        original: The name of the collection that was copied.
        collection: The name of the copy.
        sparse_field: The field that holds the SPLADE vectors, or None if no field was added.
        rows: The number of rows in the original, as the last pass read it.
        written: The number of rows that all passes wrote.
        deleted: The number of rows that all passes deleted from the copy, because the original no longer has them.
        passes: The number of passes.
        unsettled: The number of rows in which the last pass still found a difference. That pass wrote these rows,
            but the original was still changing, so later changes may be missing in the copy. 0 means that the last
            pass found no difference.
        aliases: The aliases of the original.
    """

    original: str
    collection: str
    sparse_field: str | None
    rows: int
    written: int
    deleted: int
    passes: int
    unsettled: int
    aliases: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a copy would cost. Figures other than the number of rows come from a sample of the first rows.

    Args:
        original: The name of the collection to copy.
        collection: The name that the copy would get.
        sparse_field: The field that would hold the SPLADE vectors, or None if no field would be added.
        rows: The number of rows.
        hours: The time to encode all texts, in hours. It is 0.0 if no text needs encoding.
        sparse_bytes: The size of all SPLADE vectors: 8 bytes for each term.
        bytes: The size of all rows. It includes the SPLADE vectors, but no indexes.
    """

    original: str
    collection: str
    sparse_field: str | None
    rows: int
    hours: float
    sparse_bytes: int
    bytes: int
