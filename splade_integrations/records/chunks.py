"""Cuts records into chunks, which are records themselves. The caller gives the function that cuts a text."""

from collections.abc import Callable, Iterable, Iterator

from splade_integrations.records.record import Record, RecordError

__all__ = ["Split", "in_chunks"]

# Returns (where the chunk starts, its text) for each chunk of a record's text.
Split = Callable[[Record], Iterable[tuple[int, str]]]

_OWN = ("document", "position", "start")


def in_chunks(records: Iterable[Record], split: Split) -> Iterator[Record]:
    """Yield the chunks of each record. If `split` returns no chunks, for example for "", the text is one chunk.

    A chunk's id is the record's id, a "#" and the chunk's number. The chunk has the record's metadata and, in addition,
    `document` (the record's id), `position` (the chunk's number, from 0) and `start` (the number of characters before
    the chunk in the record's text).

    Args:
        records: The records.
        split: Cuts a record's text.
    Raises:
        RecordError: A record's metadata already has a field with one of these three names.

    Example:
        >>> for chunk in in_chunks([Record("a", "one two", {"year": 1})], lambda record: [(0, "one"), (4, "two")]):
        ...     print(chunk.id, chunk.text, chunk.metadata)
        a#0 one {'year': 1, 'document': 'a', 'position': 0, 'start': 0}
        a#1 two {'year': 1, 'document': 'a', 'position': 1, 'start': 4}
    """
    for record in records:
        if taken := [name for name in _OWN if name in record.metadata]:
            raise RecordError(
                f"with --chunk, the field {taken[0]!r} must not be kept, got it in the record {record.id!r}. Each "
                "chunk gets a field of that name. List the fields to keep with --keep, and leave this field out."
            )
        chunks = list(split(record)) or [(0, record.text)]
        for number, (start, text) in enumerate(chunks):
            place = dict(zip(_OWN, (record.id, number, start), strict=True))
            yield Record(f"{record.id}#{number}", text, {**record.metadata, **place}, record.id)
