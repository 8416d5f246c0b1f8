"""Reads texts and their ids from files of JSON lines, CSV, Parquet or plain lines.

Only one text at a time is in memory, or 1 024 texts of a Parquet file. Every fault raises `RecordError`, which names
the file and the line, and says what to do. This module knows nothing about models.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from splade_integrations.dependencies import require_extra

__all__ = ["Format", "Record", "RecordError", "Records", "format_of", "numbered_lines"]

Format = Literal["jsonl", "csv", "tsv", "parquet", "lines"]

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "lines",
}
_ID_FIELDS = ("_id", "id")
_ROWS_AT_ONCE = 1024


class RecordError(ValueError):
    """A file does not have the expected content. The message names the place and says what to do."""


@dataclass(frozen=True)
class Record:
    """A text and its id."""

    id: str
    text: str


@dataclass(frozen=True)
class Records:
    """The texts of a file. Each iteration reads the file again.

    Only the ids stay in memory (about 100 bytes per text), to detect duplicates. For plain lines no ids are
    kept, because the ids are line numbers, which never repeat.

    Args:
        path: The file, or "-" for standard input.
        format: "jsonl" has one JSON object per line. "csv" and "tsv" have a header line. "parquet" is a Parquet file.
            With "lines", each line is a text, and its id is the line number.
        text_field: The field, or column, that holds the text.
        title_field: A field whose content is put before the text, followed by a space, if the record has that field.
            None puts nothing before the text.
        id_field: The field that holds the id. None takes `_id` or `id`. If a record has neither field, the record's
            number in the file is its id.
        need_id: Whether a record without an id is an error. If `id_field` is given, it always is.

    Raises:
        RecordError: Raised during iteration. The file is missing, empty or broken, or an id is not valid Unicode or
            occurs twice.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "texts.jsonl"
        >>> _ = path.write_text('{"id": 7, "title": "Cats", "text": "They purr."}')
        >>> list(Records(str(path), "jsonl"))
        [Record(id='7', text='Cats They purr.')]
    """

    path: str
    format: Format
    text_field: str = "text"
    title_field: str | None = "title"
    id_field: str | None = None
    need_id: bool = False

    def __iter__(self) -> Iterator[Record]:
        if self.format == "lines":
            for number, (_, line) in enumerate(numbered_lines(self.path, blank=True), start=1):
                yield Record(str(number), line)
            return
        seen: set[str] = set()
        for number, (place, row) in enumerate(self._rows(), start=1):
            record = self._record(place, row, number)
            if record.id in seen:
                raise RecordError(
                    f"{place}: id {record.id!r} must be unique, but an earlier record has it. Change or drop one."
                )
            seen.add(record.id)
            yield record

    def count(self) -> int | None:
        """Estimate the number of records by counting lines. Return None for standard input."""
        if self.path == "-":
            return None
        try:
            if self.format == "parquet":
                return int(self._open_parquet().metadata.num_rows)
            with Path(self.path).open("rb") as file:
                lines = sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
        except OSError as err:
            raise RecordError(_unreadable(self.path, err)) from err
        return lines - (self.format in ("csv", "tsv"))

    def _rows(self) -> Iterator[tuple[str, Any]]:
        reader: dict[str, Callable[[], Iterator[tuple[str, Any]]]] = {
            "jsonl": self._read_jsonl,
            "csv": self._read_csv,
            "tsv": self._read_csv,
            "parquet": self._read_parquet,
        }
        return reader[self.format]()

    def _record(self, place: str, row: Any, number: int) -> Record:
        text = row.get(self.text_field) if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise RecordError(
                f"{place}: must have the text under {self.text_field!r}, {_found(row)}. "
                "Name the right field with --text-field, or fix the line."
            )
        fields = _ID_FIELDS if self.id_field is None else (self.id_field,)
        identifier = next((row[name] for name in fields if row.get(name) is not None), None)
        if identifier is None:
            if self.need_id or self.id_field is not None:
                raise RecordError(
                    f"{place}: must have an id under {' or '.join(map(repr, fields))}, {_found(row)}. Add one."
                )
            identifier = number
        title = (row.get(self.title_field) if self.title_field else None) or ""
        return Record(_unicode(place, str(identifier)), f"{title} {text}".strip() if title else text)

    def _read_jsonl(self) -> Iterator[tuple[str, Any]]:
        for place, line in numbered_lines(self.path):
            try:
                yield place, json.loads(line)
            except (json.JSONDecodeError, RecursionError) as err:
                raise RecordError(
                    f"{place}: must be one JSON object, but does not parse ({err}). Fix or drop the line."
                ) from err

    def _read_csv(self) -> Iterator[tuple[str, Any]]:
        csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, is too little for some texts
        lines = (f"{line}\n" for _, line in numbered_lines(self.path, blank=True))  # a quoted text may have blank lines
        reader = csv.DictReader(lines, delimiter="\t" if self.format == "tsv" else ",", strict=True)
        empty = True
        try:
            for row in reader:
                if None in row.values() and not "".join(filter(None, row.values())).strip():
                    continue  # a line of spaces
                empty = False
                place = f"{self.path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise RecordError(
                        f"{place}: must have {len(reader.fieldnames or [])} columns, like the header, but has "
                        f"{'more' if None in row else 'fewer'}. Quote texts that contain the separator."
                    )
                yield place, row
        except csv.Error as err:
            raise RecordError(
                f"{self.path}, line {reader.line_num}: must be CSV, but does not parse ({err}). Fix the line."
            ) from err
        if empty:
            raise RecordError(f"{self.path} must have at least one row below its header, but has none. Add one.")

    def _read_parquet(self) -> Iterator[tuple[str, Any]]:
        file = self._open_parquet()
        wanted = {self.text_field, self.title_field, *(_ID_FIELDS if self.id_field is None else [self.id_field])}
        columns = [name for name in file.schema_arrow.names if name in wanted]
        if self.text_field not in columns:
            raise RecordError(
                f"{self.path} must have a column {self.text_field!r}, but has {', '.join(file.schema_arrow.names)}. "
                "Name the right column with --text-field."
            )
        number = 0
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield f"{self.path}, row {number}", row
        if not number:
            raise RecordError(f"{self.path} must have at least one row, but is empty. Add one.")

    def _open_parquet(self) -> Any:
        with require_extra("cli", module="Reading Parquet"):
            import pyarrow
            import pyarrow.parquet
        try:
            return pyarrow.parquet.ParquetFile(self.path)
        except pyarrow.ArrowInvalid as err:
            raise RecordError(
                f"{self.path} must be a Parquet file, but is not. State its real format with --input-format."
            ) from err
        except OSError as err:
            raise RecordError(_unreadable(self.path, err)) from err


def format_of(path: str) -> Format:
    """Return the format of a file, which the ending of its name shows. Standard input, "-", has plain lines.

    Raises:
        RecordError: The name has no known ending.
    """
    suffix = Path(path).suffix.lower()
    if path == "-":
        return "lines"
    if suffix not in _FORMATS:
        raise RecordError(
            f"{path} must end in {', '.join(_FORMATS)}, got {suffix or 'no ending'}. "
            "State its format with --input-format."
        )
    return _FORMATS[suffix]


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
        raise RecordError(_unreadable(path, err)) from err
    if empty:
        raise RecordError(f"{name} must have at least one line, but is empty. Add one.")


def _unicode(place: str, identifier: str) -> str:
    """Return the id. Raise RecordError if it has a lone surrogate, which JSON allows but no file or store can hold."""
    try:
        identifier.encode()
    except UnicodeEncodeError as err:
        raise RecordError(
            f"{place}: the id must be valid Unicode, got {identifier[err.start]!r} in it. Fix the line."
        ) from err
    return identifier


def _found(row: Any) -> str:
    if not isinstance(row, dict):
        return f"got {json.dumps(row, ensure_ascii=False, default=str)[:60]}"
    return f"got the fields {', '.join(map(str, row))[:120]}" if row else "got no field"


def _unreadable(path: str, err: OSError) -> str:
    return f"{path} cannot be read: {err.strerror or err}. Check the name."
