"""What a copy did, and what it would cost. This module needs no pymilvus."""

from dataclasses import dataclass

__all__ = ["Estimate", "Report"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a copy did.

    Args:
        original: The name of the collection that was copied.
        collection: The name of the copy.
        sparse_field: The field that holds the SPLADE vectors, or None if no field was added.
        rows: The number of rows in the original, as the last pass read it.
        written: The number of rows that all passes wrote.
        deleted: The number of rows that all passes deleted from the copy, because the original no longer has them.
        passes: The number of times that the original was compared with the copy.
        unsettled: The number of rows in which the last pass still found a difference. It wrote them, but the original
            was still changing, so later changes may be missing. 0 means that the last pass found no difference.
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
        hours: The time to encode all texts, in hours. 0.0 if nothing must be encoded.
        sparse_bytes: The size of all SPLADE vectors: 8 bytes for each term.
        bytes: The size of all rows, with the SPLADE vectors, without indexes.
    """

    original: str
    collection: str
    sparse_field: str | None
    rows: int
    hours: float
    sparse_bytes: int
    bytes: int
