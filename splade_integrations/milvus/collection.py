"""One Milvus collection of any sides (dense, SPLADE, BM25), for both stores, the evaluation and the command line.

Everything that makes it right lives here and in the modules beside: fields, indexes and search parameters, fusion,
empty texts, locks, flushes, fingerprints and retries. Knows no framework and no encoder.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from splade_integrations.milvus.defaults import ROWS_PER_WRITE
from splade_integrations.milvus.filters import And, Engine, Filter, ids_expr
from splade_integrations.milvus.ingest import ingest
from splade_integrations.milvus.reading import AnyFilter, Reading
from splade_integrations.milvus.rows import Row, check_rows, entity_of, key_of
from splade_integrations.milvus.schema import Fields
from splade_integrations.milvus.searching import as_filter

__all__ = ["Collection"]

T = TypeVar("T")

_IDS_AT_ONCE = 1000
_UNFIT_FOR_LITE2 = re.compile(r"['\\\x00-\x1f]")


class Collection(Reading):
    """A collection of documents: text, metadata, and one vector for each side.

    The first write creates it. One that exists is taken as it is, with its own fields, and loaded.

    Args:
        name: Its name, or an alias of one that exists.
        schema: The fields wanted.
        connection: Where it is.
        fingerprint: Of the encoder that fills its sparse side; the collection remembers it, and refuses another.
        allow_other_encoder: Open one that was made with another encoder.
        drop_old: Delete one of that name, with its documents.
        timeout: Seconds for each call of Milvus. None is 30 for one that reads and 120 for one that writes. After that
            time the server counts as down, and a TimeoutError says so.
        partition_names: Where to search and read, if a call does not say. None is everywhere.
        create_options: What else `MilvusClient.create_collection` takes: `properties`, `consistency_level`, …
        description: Of a new collection.
        replica_number: Copies of it that a server loads.
    Raises:
        ValueError: It has other fields or another encoder, or `drop_old` is asked for an alias.

    Example:
        >>> import tempfile
        >>> from splade_integrations.milvus.clients import Connection
        >>> from splade_integrations.milvus.schema import Schema
        >>> place = Connection(tempfile.mkdtemp() + "/example.db")
        >>> collection = Collection("animals", Schema(dense_field=None), place)
        >>> collection.write([
        ...     Row(id="cat", text="Cats purr.", sparse={4937: 1.2}, metadata={"legs": 4}),
        ...     Row(id="bird", text="Birds sing.", sparse={4743: 0.9, 4937: 0.1}, metadata={"legs": 2}),
        ... ])
        ['cat', 'bird']
        >>> [hit.id for hit in collection.search({"sparse": {4937: 1.0}}, k=2)]
        ['cat', 'bird']
        >>> [hit.id for hit in collection.search({"sparse": {4937: 1.0}}, filter={"legs": 2})]
        ['bird']
    """

    def check(self, rows: Sequence[Row]) -> None:
        """Raise if rows, whose vectors may still lack, could not be written.

        Raises:
            TypeError, ValueError: An id, a text or a value of the metadata; its position is named.
        """
        fields = self.fields
        check_rows(rows, metadata=fields is None)
        if fields is not None:
            self._entities(rows, fields)
        elif self.schema.auto_id and (given := [row.id for row in rows if row.id is not None]):
            raise ValueError(
                f"ids must not be given with auto_id=True, by which Milvus numbers the documents, got {given[0]!r}. "
                "Add without ids, or make the collection without auto_id."
            )

    def write(
        self,
        rows: Sequence[Row],
        *,
        partition_name: str | None = None,
        batch_size: int = ROWS_PER_WRITE,
        timeout: float | None = None,
        flush: bool = True,
    ) -> list[str]:
        """Write rows in place of those of the same ids; metadata is replaced whole.

        Args:
            rows: N documents.
            partition_name: Where to. None is the default, or what the partition key says.
            batch_size: Rows of one message.
            timeout: Seconds for each message.
            flush: Whether to make them quick to search, on milvus-lite. A server does so by itself.
        Returns:
            N ids.
        Raises:
            TypeError, ValueError: As `check`. Nothing has been written then.
        """
        if not rows:
            return []
        if self._fields is not None and not self.exists(timeout):  # dropped since
            self._fields = None
        fields = self.fields
        check_rows(rows, metadata=fields is None)
        if fields is None:
            self.create(next((len(row.dense) for row in rows if row.dense is not None), None))
            fields = self.fields
            assert fields is not None
        entities = self._entities(rows, fields)
        ids: list[str] = []
        for start in range(0, len(entities), batch_size):
            ids += self._send(entities[start : start + batch_size], fields, partition_name, timeout)
        if flush:
            self._flush_lite()
        return ids

    def _entities(self, rows: Sequence[Row], fields: Fields) -> list[dict[str, Any]]:
        entities = [entity_of(row, position, fields) for position, row in enumerate(rows)]
        if self.engine is Engine.LITE2:
            for position, entity in enumerate(entities):
                if _UNFIT_FOR_LITE2.search(str(entity.get(fields.primary, ""))):
                    raise ValueError(
                        f"ids[{position}] must have no apostrophe, backslash or control character on milvus-lite 2, "
                        f"which writes ids into its queries unescaped, got {entity[fields.primary]!r}. Rename it, or "
                        "install milvus-lite 3."
                    )
        return entities

    def _send(
        self, entities: list[dict[str, Any]], fields: Fields, partition_name: str | None, timeout: float | None
    ) -> list[str]:
        # milvus-lite 3's insert replaces the row that has the same key; its upsert keeps that row's dynamic keys, and
        # filters go on finding it by them. A server's insert would keep both rows.
        replaces = fields.auto_id or self.engine is Engine.LITE3
        how: dict[str, Any] = {"data": entities, "timeout": self._write_timeout(timeout)}
        if partition_name is not None:
            how["partition_name"] = partition_name
        with self.connection.lock:
            answer = self._do("insert" if replaces else "upsert", **how)
        return [str(key) for key in (answer["ids"] if fields.auto_id else [row[fields.primary] for row in entities])]

    def ingest(self, items: Sequence[T], rows_of: Callable[[Sequence[T]], Sequence[Row]], **how: Any) -> list[str]:
        """Encode and write many documents in bounded memory, some hundreds at a time.

        Args:
            items: N of what `rows_of` takes, checked beforehand: an error part-way leaves earlier chunks written.
            rows_of: Makes the rows of a chunk.
            **how: As `write`.
        Returns:
            N ids.
        """
        flush = how.pop("flush", True)
        return ingest(
            items,
            lambda chunk: self.write(rows_of(chunk), flush=False, **how),
            self._flush_lite if flush else None,
        )

    def flush(self) -> None:
        """Make what was written quick to search, and lasting."""
        with self.connection.lock:
            self._do("flush", timeout=self._write_timeout())

    def _flush_lite(self) -> None:
        if self.connection.lite and self._fields is not None:
            self.flush()

    def delete(
        self,
        *,
        ids: Sequence[str] | None = None,
        filter: AnyFilter = None,
        partition_names: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Delete documents: those of these ids, those that match a filter, or those of these ids that match it.

        A filter's matches are read, judged once more here, and deleted by id. Ids that are not there are no error.

        Args:
            ids: Their ids; [] deletes nothing.
            filter: A dict, a filter, or an expression of Milvus.
            partition_names: Where to look.
            timeout: Seconds for each call.
        Raises:
            ValueError: Neither is given, or the filter says nothing.
        """
        condition = as_filter(filter)
        if condition == And() or (ids is None and condition is None) or (filter is not None and condition is None):
            raise ValueError(
                f"delete must be given ids, or a filter that says something, got {filter!r}. To delete all documents "
                "call clear()."
            )
        fields = self.fields
        if fields is None or (ids is not None and not len(ids)):
            return
        keys = [] if ids is None else [key for key in (key_of(value, fields) for value in ids) if key is not None]
        if condition is not None or partition_names:
            reader = self._reader()
            assert reader is not None
            only = None if ids is None else set(map(str, keys))
            found = self.iterate(condition, partition_names=partition_names, timeout=timeout)
            keys = [
                key_of(hit.id, fields)
                for hit in found
                if (only is None or hit.id in only)
                and (not isinstance(condition, Filter) or condition.matches(hit.metadata, reader.judged(hit)))
            ]
        if self.engine is Engine.LITE2:  # it has no such ids, and would run them as SQL
            keys = [key for key in keys if not _UNFIT_FOR_LITE2.search(str(key))]
        for start in range(0, len(keys), _IDS_AT_ONCE):
            expr = ids_expr(fields.primary, keys[start : start + _IDS_AT_ONCE])
            with self.connection.lock:
                self._do("delete", filter=expr, timeout=self._write_timeout(timeout))

    def clear(self) -> None:
        """Delete all documents. Fields, alias and properties stay."""
        if (fields := self.fields) is None:
            return
        every = f"{fields.primary} >= {-(2**63)}" if fields.primary_is_number else f'{fields.primary} >= ""'
        with self.connection.lock:
            self._do("delete", filter=every, timeout=self._write_timeout())
            self._flush_lite()

    # Writing builds rows and messages, which would hold an event loop up: a thread does it.

    async def awrite(self, rows: Sequence[Row], **how: Any) -> list[str]:
        """Write as `write` does, in a thread."""
        return await asyncio.to_thread(self.write, rows, **how)

    async def aingest(
        self, items: Sequence[T], rows_of: Callable[[Sequence[T]], Sequence[Row]], **how: Any
    ) -> list[str]:
        """Write as `ingest` does, in a thread."""
        return await asyncio.to_thread(lambda: self.ingest(items, rows_of, **how))

    async def adelete(self, **how: Any) -> None:
        """Delete as `delete` does, in a thread."""
        await asyncio.to_thread(self.delete, **how)

    async def aclear(self) -> None:
        """Delete as `clear` does, in a thread."""
        await asyncio.to_thread(self.clear)
