"""Remembers which rows are in the finished files of a folder, by two digests (hashes) of 8 bytes for each row."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from splade_integrations.ray.rows import ERROR, ID, METADATA, SKIPPED, TEXT, good_rows, mark, without_repeated_ids

__all__ = ["SkipDone", "digests", "name_of", "read_digests", "write_digests"]

_FOLDER = ".progress"


def digests(table: pa.Table) -> NDArray[np.uint64]:
    """Return two digests for each row, (N, 2). The first is of the row's id, the second of its text and metadata.

    Example:
        >>> rows = pa.table({"id": ["a", "a"], "text": ["one", "two"], "metadata": ["{}", "{}"]})
        >>> found = digests(rows)
        >>> found[0, 0] == found[1, 0], found[0, 1] == found[1, 1]
        (np.True_, np.False_)
    """
    rows = zip(*(table[name].to_pylist() for name in (ID, TEXT, METADATA)), strict=True)
    parts = [_digest(identifier) + _digest(f"{len(text)} {text}{metadata}") for identifier, text, metadata in rows]
    return np.frombuffer(b"".join(parts), np.uint64).reshape(-1, 2)


def name_of(rows: NDArray[np.uint64]) -> str:
    """Return a file name made from the digests of the rows.

    The same rows always give the same name. So if Ray runs a task again, the new file replaces the first one.
    """
    return f"part-{hashlib.blake2b(rows.tobytes(), digest_size=12).hexdigest()}"


def write_digests(folder: Path, name: str, rows: NDArray[np.uint64]) -> None:
    """Store the digests of the rows of a data file.

    Call this function before the data file appears, so that a finished data file always has digests. Digests are
    ignored as long as their data file is missing.
    """
    place = folder / _FOLDER
    place.mkdir(exist_ok=True)
    partial = place / f".{name}.partial.npy"
    np.save(partial, rows)
    partial.replace(place / f"{name}.npy")


def read_digests(folder: Path) -> NDArray[np.uint64]:
    """Return the digests of all rows in finished files, (N, 2), sorted by the first digest."""
    found = [
        np.load(note)
        for note in sorted((folder / _FOLDER).glob("*.npy"))
        if not note.name.startswith(".") and (folder / f"{note.stem}.parquet").exists()
    ]
    rows = np.concatenate(found) if found else np.empty((0, 2), np.uint64)
    return rows[np.argsort(rows[:, 0], kind="stable")]


class SkipDone:
    """An actor (a process of Ray) that marks the rows that are in a finished file.

    Args:
        done: The digests of all rows in finished files, (N, 2), sorted by the first digest.
    """

    def __init__(self, done: NDArray[np.uint64]) -> None:
        self._done = done

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the batch with its finished rows marked. A row gets an error if its text or metadata has changed."""
        table = without_repeated_ids(table)
        wanted = good_rows(table)
        found = digests(table.take(pa.array(wanted, pa.int64())))
        places = np.searchsorted(self._done[:, 0], found[:, 0])
        inside = places < len(self._done)
        known = inside.copy()
        known[inside] = self._done[places[inside], 0] == found[inside, 0]
        skipped, reasons = [False] * len(table), table[ERROR].to_pylist()
        for position in np.flatnonzero(known):
            row = wanted[position]
            if self._done[places[position], 1] == found[position, 1]:
                skipped[row] = True
            else:
                reasons[row] = (
                    "a finished file holds this id with another text or metadata, and files cannot be changed. Write "
                    "all files again, into an empty folder"
                )
        return mark(mark(table, SKIPPED, pa.array(skipped, pa.bool_())), ERROR, pa.array(reasons, pa.string()))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
