"""Reads the records of a file of JSON lines, CSV, Parquet or plain lines."""

import csv
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from splade_integrations.dependencies import require_extra
from splade_integrations.records.lines import numbered_lines, unreadable
from splade_integrations.records.record import Record, RecordError
from splade_integrations.records.values import number_columns, plain, valid_unicode

__all__ = ["Format", "Records", "format_of"]

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


@dataclass(frozen=True)
class Records:
    """The texts of a file. Each iteration reads the file again.

    Only the ids stay in memory (about 100 bytes per text), to detect duplicates. For plain lines, no ids are kept,
    because the ids are line numbers, which never repeat.

    Args:
        path: The file, or "-" for standard input.
        format: "jsonl" has one JSON object per line. "csv" and "tsv" have a header line. "parquet" is a Parquet file.
            With "lines", each line is a text, and its id is the line number.
        text_field: The field, or column, that holds the text.
        title_field: A field whose content is put before the text, followed by a space, if the record has that field.
            None puts nothing before the text.
        id_field: The field that holds the id. None means `_id` or `id`. If a record has neither field, the record's
            number in the file is its id.
        need_id: Whether a record without an id is an error. If `id_field` is given, it is always an error.
        keep: The fields to keep as metadata. None keeps all fields except those of the id and of the text. A field
            without a value is left out. `values.plain` says what becomes of dates and other types. In CSV, a column
            that holds only numbers becomes numbers, and other columns stay texts. To find the columns of numbers, a CSV
            file is read twice. Standard input can be read only once, so all its columns stay texts.

    Raises:
        RecordError: Raised during iteration. The file is missing, empty or broken. Or a value cannot be kept as
            metadata. Or an id is empty, is not valid Unicode or occurs twice.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "texts.jsonl"
        >>> _ = path.write_text('{"id": 7, "title": "Cats", "text": "They purr.", "legs": 4}')
        >>> list(Records(str(path), "jsonl", keep=["legs"]))
        [Record(id='7', text='Cats They purr.', metadata={'legs': 4})]
    """

    path: str
    format: Format
    text_field: str = "text"
    title_field: str | None = "title"
    id_field: str | None = None
    need_id: bool = False
    keep: Collection[str] | None = ()

    def __iter__(self) -> Iterator[Record]:
        missing = set(self.keep or ())
        if self.format == "lines":
            self._check_kept(missing, {})
            for number, (_, line) in enumerate(numbered_lines(self.path, blank=True), start=1):
                yield Record(str(number), line)
            return
        seen: set[str] = set()
        row: Mapping[str, Any] = {}
        for number, (place, row) in enumerate(self._rows(), start=1):
            try:
                record = self._record(place, row, number)
            except RecursionError as err:
                raise RecordError(
                    f"{place}: must have fields that are nested at most a few hundred levels deep, got deeper ones. "
                    "Fix or drop the line."
                ) from err
            if record.id in seen:
                raise RecordError(
                    f"{place}: id {record.id!r} must be unique, but an earlier record has it. Change the id, or drop "
                    "the record."
                )
            seen.add(record.id)
            missing.difference_update(record.metadata)
            yield record
        self._check_kept(missing, row)

    def count(self) -> int | None:
        """Read all records, and return their number. Return None if they can be read only once.

        Raises:
            RecordError: A record is broken.
        """
        return sum(1 for _ in self) if self.rereadable else None

    def _check_kept(self, missing: Collection[str], row: Mapping[str, Any]) -> None:
        if missing:
            raise RecordError(
                f"{self.path} must have a value for each field that --keep names, but no record has a value for "
                f"{min(missing)!r}, {_found(row)}. Correct --keep."
            )

    @property
    def rereadable(self) -> bool:
        """Whether the texts can be read more than once. Standard input and pipes can be read only once."""
        path = Path(self.path)
        return self.path != "-" and (path.is_file() or not path.exists())

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
        named = next((name for name in fields if row.get(name) is not None), None)
        identifier = None if named is None else row[named]
        if identifier is None:
            if self.need_id or self.id_field is not None:
                raise RecordError(
                    f"{place}: must have an id under {' or '.join(map(repr, fields))}, {_found(row)}. Add one."
                )
            identifier = number
        title = (row.get(self.title_field) if self.title_field else None) or ""
        return Record(
            _checked_id(place, str(identifier)),
            f"{title} {text}".strip() if title else text,
            self._metadata(place, row, {self.text_field, named}),
        )

    def _metadata(self, place: str, row: Mapping[str, Any], others: Collection[str | None]) -> dict[str, Any]:
        if self.keep is not None and not self.keep:
            return {}
        found = {}
        for name, value in row.items():
            # A column without a name is left out, because pandas writes row numbers into such a column.
            if name and (name not in others if self.keep is None else name in self.keep):
                value = self._from_csv(name, value) if self.format in ("csv", "tsv") else plain(value, place, name)
                if value is not None:
                    found[valid_unicode(name)] = value
        return found

    def _from_csv(self, name: str, cell: str) -> str | int | float | None:
        kind = self._numbers.get(name, str)
        return None if cell == "" else kind(cell)

    @cached_property
    def _numbers(self) -> dict[str, type[int] | type[float]]:
        """The columns of a CSV file that hold only numbers."""
        if not self.rereadable:
            return {}
        kept = self.keep
        found = number_columns(
            {name: cell for name, cell in row.items() if kept is None or name in kept} for _, row in self._read_csv()
        )
        return {name: kind for name, kind in found.items() if name not in (self.text_field, self.title_field)}

    def _read_jsonl(self) -> Iterator[tuple[str, Any]]:
        for place, line in numbered_lines(self.path):
            try:
                yield place, json.loads(line)
            except (ValueError, RecursionError) as err:
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
        names = file.schema_arrow.names
        columns = [name for name in names if self.keep is None or name in wanted or name in self.keep]
        if self.text_field not in columns:
            raise RecordError(
                f"{self.path} must have a column {self.text_field!r}, but has {', '.join(names)}. "
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
            raise unreadable(self.path, err) from err


def format_of(path: str) -> Format:
    """Return the format that the ending of a file's name stands for. Standard input, "-", counts as plain lines.

    Raises:
        RecordError: The name has no known ending.
    """
    suffix = Path(path).suffix.lower()
    if path == "-":
        return "lines"
    if suffix not in _FORMATS:
        raise RecordError(
            f"{path} must be a folder, or end in .md, .rst, {', '.join(_FORMATS)}, got {suffix or 'no ending'}. "
            "State its format with --input-format. Load PDF and HTML with a loader of LangChain or LlamaIndex."
        )
    return _FORMATS[suffix]


def _checked_id(place: str, identifier: str) -> str:
    """Return the id. Raise RecordError if it is empty, or has a lone surrogate, which no file or store can hold."""
    if not identifier:
        raise RecordError(f"{place}: the id must not be empty, got ''. Add one.")
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
