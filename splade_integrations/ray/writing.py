"""Actors (processes of Ray) that look up and write the rows of a Milvus collection."""

import json
import random
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayTaskError

from splade_integrations.arrow import sparse_rows
from splade_integrations.errors import first_line
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.defaults import DOCUMENT_COLUMN, ROWS_PER_WRITE, document_terms
from splade_integrations.milvus.ingest import ROWS_PER_FLUSH
from splade_integrations.milvus.patience import Pace, Patience, is_passing
from splade_integrations.milvus.rows import Row
from splade_integrations.ray.encoding import Encode, EncodeStage
from splade_integrations.ray.place import Place
from splade_integrations.ray.report import result
from splade_integrations.ray.rows import (
    DENSE,
    DOCUMENT,
    ERROR,
    ID,
    METADATA,
    SKIPPED,
    SPARSE,
    TEXT,
    good_rows,
    mark,
    without_repeated_ids,
)
from splade_integrations.sparse import to_dicts

__all__ = ["EncodeAndWrite", "SkipStored", "WriteRows"]


class SkipStored:
    """An actor that marks rows that are stored already, with the same text and metadata.

    Args:
        place: The collection.
        patience_seconds: How many seconds to wait while Milvus does not answer.
    """

    def __init__(self, place: Place, patience_seconds: float) -> None:
        self._patience = Patience(patience_seconds)
        self._collection: Collection = self._patience.call(place.open)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return a batch, with a mark in each row that is stored already."""
        table = without_repeated_ids(table)
        wanted = good_rows(table)
        ids = table[ID].take(pa.array(wanted, pa.int64())).to_pylist()
        hits = self._patience.call(lambda: self._collection.get(ids))
        stored = {hit.id: (hit.text, hit.metadata) for hit in hits}
        texts, metadata = table[TEXT].to_pylist(), table[METADATA].to_pylist()
        skipped = [False] * len(table)
        for row, key in zip(wanted, ids, strict=True):
            if key in stored:
                skipped[row] = stored[key] == (texts[row], json.loads(metadata[row]))
        return mark(table, SKIPPED, pa.array(skipped, pa.bool_()))


class WriteRows:
    """An actor that writes rows. A row replaces the stored row with the same id.

    Args:
        place: The collection.
        patience_seconds: How many seconds to wait while Milvus does not answer, or asks for fewer requests.
        rows_per_second: The largest number of rows per second that this actor writes.
    """

    def __init__(self, place: Place, patience_seconds: float, rows_per_second: float | None) -> None:
        self._place, self._patience = place, Patience(patience_seconds)
        self._pace = Pace(rows_per_second)
        self._unflushed = 0

    # The collection is opened here, because an error in __init__ would reach the caller only as the text of a
    # traceback.
    @cached_property
    def _collection(self) -> Collection:
        return self._patience.call(self._place.open)

    def write(self, table: pa.Table) -> pa.Table:
        """Write the rows of a batch, and return what was done (see `result`)."""
        start, waited = time.perf_counter(), self._patience.waited
        fields = self._patience.call(lambda: self._collection.fields)  # the first call asks Milvus
        table = without_repeated_ids(table)
        reasons: list[str | None] = table[ERROR].to_pylist()
        wanted = good_rows(table)
        rows = _rows(table, wanted, has_documents=fields is not None and DOCUMENT_COLUMN in fields.columns)
        written = 0
        for first in range(0, len(rows), ROWS_PER_WRITE):
            some = range(first, min(first + ROWS_PER_WRITE, len(rows)))
            waited -= self._pace.wait(len(some))
            written += self._write([rows[place] for place in some], [wanted[place] for place in some], reasons)
        self._flush(written)
        waited = self._patience.waited - waited
        seconds = time.perf_counter() - start - waited
        return result(
            mark(table, ERROR, pa.array(reasons, pa.string())), written=written, seconds=seconds, waited=waited
        )

    def _write(self, rows: Sequence[Row], places: Sequence[int], reasons: list[str | None]) -> int:
        """Write rows, and return the number of rows written.

        If Milvus refuses the rows, write them one by one, and put the reasons for the refusals into `reasons`.
        """
        write: Callable[[Sequence[Row]], Any] = lambda some: self._collection.write(some, flush=False)  # noqa: E731
        try:
            self._patience.call(lambda: write(rows))
            return len(rows)
        except Exception as err:
            if is_passing(err):
                raise
        written = 0
        for row, place in zip(rows, places, strict=True):
            try:
                self._patience.call(lambda row=row: write([row]))  # type: ignore[misc]
                written += 1
            except Exception as err:
                if is_passing(err):
                    raise
                reasons[place] = f"{type(err).__name__}: {first_line(err)}"
        return written

    def _flush(self, written: int) -> None:
        """Flush milvus-lite now and then to free its memory. A server flushes by itself."""
        self._unflushed += written
        if self._collection.connection.lite and self._unflushed >= ROWS_PER_FLUSH:
            self._patience.call(self._collection.flush)
            self._unflushed = 0


class EncodeAndWrite:
    """An actor that encodes batches, and gives each encoded batch to a writer.

    It has at most two batches in hand, and takes a further one only when one of the two is written. So if the run is
    killed, few encoded texts are lost, however slow Milvus is. If encoding and writing were two stages of Ray Data,
    encoding would run ahead of writing until Ray's object store is half full.

    Args:
        stage: What to encode, and how.
        writers: Handles of `WriteRows` actors.
    """

    # The number of batches that an actor works on at the same time: it encodes one while the other is being written.
    BATCHES = 2

    def __init__(self, stage: EncodeStage, writers: Sequence[Any]) -> None:
        self._encode, self._writers = Encode(stage), writers
        self._turn = Lock()

    def __call__(self, table: pa.Table) -> pa.Table:
        """Encode and write the rows of a batch, and return what was done (see `result`)."""
        with self._turn:
            encoded = self._encode(table)
        try:
            written: pa.Table = ray.get(random.choice(self._writers).write.remote(encoded))
        except RayTaskError as err:
            raise err.cause from err
        return written


def _rows(table: pa.Table, wanted: list[int], *, has_documents: bool) -> list[Row]:
    some = table.take(pa.array(wanted, pa.int64()))
    vectors: Any = [None] * len(some)
    if DENSE in some.column_names:
        vectors = np.array(some[DENSE].to_pylist(), np.float32)
    columns = (some[name].to_pylist() for name in (ID, TEXT, METADATA, DOCUMENT))
    return [
        Row(
            id=key,
            text=text,
            metadata=json.loads(metadata),
            columns={DOCUMENT_COLUMN: document or key} if has_documents else {},
            sparse=document_terms(terms, text),
            dense=vector,
        )
        for key, text, metadata, document, terms, vector in zip(
            *columns, to_dicts(sparse_rows(some[SPARSE])), vectors, strict=True
        )
    ]
