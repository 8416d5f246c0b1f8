"""A text with its id and metadata, and the error that says what is wrong with a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Record", "RecordError"]


class RecordError(ValueError):
    """A file does not have the expected content. The message names the place and says what to do."""


@dataclass(frozen=True)
class Record:
    """A text, its id, and what else is known about it.

    Args:
        id: The id. It is not empty.
        text: The text.
        metadata: {name: a value of a plain JSON type}. A value may contain None, but is not itself None.
        document: The id of the record that this one is a chunk of. None if this record is whole.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    document: str | None = field(default=None, repr=False)
