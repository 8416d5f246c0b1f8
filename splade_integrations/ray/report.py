"""Adds up the results of a run's batches: numbers of rows, rates of the stages, and the rows that were left out."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
from ray.data import Dataset

from splade_integrations.ray.rows import CUT, ERROR, ID, SECONDS, SKIPPED, TEXT

__all__ = ["RunReport", "TooManyBadRowsError", "collect", "result"]

_TEXT_SHOWN = 200  # at most this many characters of a text go into the side file, which lists the bad rows
_BUSY = 0.6  # a stage that is busy for less than this share of the time is not the bottleneck

_BAD = pa.list_(pa.struct([("id", pa.string()), ("reason", pa.string()), ("text", pa.string())]))
_SCHEMA = pa.schema(
    [
        ("rows", pa.int64()),
        ("written", pa.int64()),
        ("skipped", pa.int64()),
        ("cut", pa.int64()),
        ("encoded", pa.int64()),
        ("encode_seconds", pa.float64()),
        ("write_seconds", pa.float64()),
        ("waited_seconds", pa.float64()),
        ("bad", _BAD),
    ]
)


class TooManyBadRowsError(ValueError):
    """The number of rows that cannot be indexed is larger than the caller allows."""


@dataclass
class RunReport:
    """What a run did.

    Args:
        rows: The number of rows that were read.
        written: The number of rows that were written.
        skipped: The number of rows that were stored already, with the same text and metadata.
        bad: The number of rows that were left out because they cannot be indexed.
        cut: The number of texts that were too long for Milvus, so their ends are not stored.
        start_seconds: The time from the start until the first batch was written.
        seconds: The time from the first written batch to the last written batch.
        encode_seconds, write_seconds: The total times that all actors spent on encoding and on writing.
        waited_seconds: The time that the writers waited for Milvus, or paused to keep to the rate that the caller
            allows.
        encoded: The number of texts that were encoded.
        encoders, writers: The number of actors that encode, and the number of actors that write.
        side_file: The file that lists the bad rows with the reasons, or None if there is no such file.
    """

    rows: int = 0
    written: int = 0
    skipped: int = 0
    bad: int = 0
    cut: int = 0
    start_seconds: float = 0.0
    seconds: float = 0.0
    encode_seconds: float = 0.0
    write_seconds: float = 0.0
    waited_seconds: float = 0.0
    encoded: int = 0
    encoders: int = 1
    writers: int = 1
    side_file: str | None = None
    _first_rows: int = field(default=0, repr=False)

    def rates(self) -> dict[str, float]:
        """Return {stage: texts per second while the stage works}. The key "all" holds the rate of the whole run."""
        rates = {
            "encode": self.encoded * self.encoders / max(self.encode_seconds, 1e-9),
            "write": self.written * self.writers / max(self.write_seconds, 1e-9),
            "all": (self.rows - self._first_rows) / max(self.seconds, 1e-9) if self.seconds else 0.0,
        }
        return {stage: round(rate, 1) for stage, rate in rates.items()}

    def bottleneck(self) -> str:
        """Return the stage that the other stages waited for: "encode", "write", "milvus" or "read"."""
        wall = max(self.seconds, 1e-9)
        busy = {
            "encode": self.encode_seconds / self.encoders / wall,
            "write": self.write_seconds / self.writers / wall,
            "milvus": self.waited_seconds / self.writers / wall,
        }
        stage = max(busy, key=lambda name: busy[name])
        return stage if busy[stage] >= _BUSY else "read"

    def summary(self) -> dict[str, Any]:
        """Return the figures as a dict that can be written as JSON."""
        return {
            "rows": self.rows,
            "added": self.written,
            "already_there": self.skipped,
            "bad": self.bad,
            "cut": self.cut,
            "bad_rows": self.side_file,
            "start_seconds": round(self.start_seconds, 1),
            "seconds": round(self.seconds, 1),
            "waited_seconds": round(self.waited_seconds, 1),
            "texts_per_second": self.rates(),
            "bottleneck": self.bottleneck(),
        }


def result(table: pa.Table, *, written: int, seconds: float, waited: float) -> pa.Table:
    """Return what happened to a batch, as a table of one row.

    Args:
        table: The batch. Its columns say which rows were left out, cut or skipped.
        written: The number of rows written.
        seconds: The time that writing took.
        waited: The time that the writer waited or paused.
    """
    bad = table.filter(pc.is_valid(table[ERROR]))
    texts = [None if text is None else text[:_TEXT_SHOWN] for text in bad[TEXT].to_pylist()]
    rows = zip(bad[ID].to_pylist(), bad[ERROR].to_pylist(), texts, strict=True)
    skipped = pc.sum(table[SKIPPED], min_count=0).as_py()
    encode_seconds = pc.sum(table[SECONDS], min_count=0).as_py() if SECONDS in table.column_names else 0.0
    return pa.Table.from_pylist(
        [
            {
                "rows": len(table),
                "written": written,
                "skipped": skipped,
                "cut": pc.sum(table[CUT], min_count=0).as_py(),
                "encoded": len(table) - skipped - len(bad),
                "encode_seconds": encode_seconds,
                "write_seconds": seconds,
                "waited_seconds": waited,
                "bad": [{"id": key, "reason": reason, "text": text} for key, reason, text in rows],
            }
        ],
        schema=_SCHEMA,
    )


def collect(
    dataset: Dataset,
    report: RunReport,
    *,
    side_file: str | Path | None,
    max_bad_rows: int,
    advance: Callable[[int], object],
) -> RunReport:
    """Run the stages of a dataset, and add up the results of its batches.

    Args:
        dataset: The dataset. Each of its rows is the result of one batch, as `result` returns it.
        report: The report to fill.
        side_file: The file for the rows that are left out, with one JSON object per line. It is created for the first
            row that is left out.
        max_bad_rows: The largest number of rows that may be left out.
        advance: A function that is called with the number of rows of each batch.
    Raises:
        TooManyBadRowsError: More than `max_bad_rows` rows are left out.
    """
    start = time.perf_counter()
    first: float | None = None
    path = None if side_file is None else Path(side_file)
    if path is not None:
        path.unlink(missing_ok=True)
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in batch.to_pylist():
            for name in ("rows", "written", "skipped", "cut", "encoded"):
                setattr(report, name, getattr(report, name) + row[name])
            for name in ("encode_seconds", "write_seconds", "waited_seconds"):
                setattr(report, name, getattr(report, name) + row[name])
            _put_aside(row["bad"], report, path, max_bad_rows)
            advance(row["rows"])
        now = time.perf_counter()
        if first is None:
            first, report.start_seconds, report._first_rows = now, now - start, report.rows
        report.seconds = now - first
    return report


def _put_aside(bad: list[dict[str, Any]], report: RunReport, path: Path | None, max_bad_rows: int) -> None:
    if not bad:
        return
    report.bad += len(bad)
    if path is not None:
        report.side_file = str(path)
        with path.open("a", encoding="utf-8") as file:
            _write_lines(file, bad)
    if report.bad > max_bad_rows:
        where = "" if path is None else f" {path} lists these rows with the reasons."
        raise TooManyBadRowsError(
            f"at most {max_bad_rows} rows may be left out of the run, got {report.bad}. These rows cannot be indexed. "
            f"One is {bad[0]['id']!r}: {bad[0]['reason']}.{where} Correct the data, or allow more bad rows."
        )


def _write_lines(file: IO[str], rows: list[dict[str, Any]]) -> None:
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
