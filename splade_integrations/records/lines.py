"""Reads the lines of a UTF-8 file, with their numbers."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from splade_integrations.records.record import RecordError

__all__ = ["numbered_lines", "unreadable"]


def numbered_lines(path: str, *, blank: bool = False) -> Iterator[tuple[str, str]]:
    """Yield each line of a UTF-8 file as (file name and line number, line without its line ending).

    Args:
        path: The file, or "-" for standard input.
        blank: Whether to yield blank lines as well.
    Raises:
        RecordError: The file cannot be read or is empty, or a line is not UTF-8.
    """
    empty = True
    name = "standard input" if path == "-" else path
    try:
        with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as lines:
            for number, raw in enumerate(lines, start=1):
                place = f"{name}, line {number}"
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as err:
                    raise RecordError(
                        f"{place}: must be UTF-8, but has the byte 0x{raw[err.start]:02x}. Convert the file, for "
                        "instance with iconv. If the rest of the file is UTF-8, fix only this line."
                    ) from err
                if blank or line.strip():
                    empty = False
                    yield place, line
    except OSError as err:
        raise unreadable(path, err) from err
    if empty:
        raise RecordError(f"{name} must have at least one line, but is empty. Add one.")


def unreadable(path: str, err: OSError) -> RecordError:
    """Return the error for a file that cannot be read."""
    return RecordError(f"{path} cannot be read: {err.strerror or err}. Check the name.")
