"""One Milvus collection with up to three kinds of vectors, called sides: dense, SPLADE and BM25.

The LangChain store, the LlamaIndex store, the evaluation and the command line all use `Collection`. So this class
handles fields, indexes, search parameters, fusion, empty texts, locks, flushes, encoder fingerprints and retries for
all of them. This module does not need LangChain, LlamaIndex or an encoder.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from splade_integrations.milvus.calls import as_filter
from splade_integrations.milvus.defaults import ROWS_PER_WRITE
from splade_integrations.milvus.fields import Fields
from splade_integrations.milvus.filters import And, Engine, Filter, ids_expr
from splade_integrations.milvus.ingest import ingest
from splade_integrations.milvus.reading import AnyFilter, Reading
from splade_integrations.milvus.rows import Row, check_rows, entity_of, key_of

__all__ = ["Collection"]

T = TypeVar("T")

_IDS_AT_ONCE = 1000
_UNFIT_FOR_LITE2 = re.compile(r"['\\\x00-\x1f]")


class Collection(Reading):
    """A collection of documents: text, metadata, and one vector for each side.

    The first write creates the collection. An existing collection is loaded and keeps its fields.

    Args:
        name: The collection's name, or an alias of an existing collection.
        schema: The fields that the collection should have.
        connection: The server or file.
        fingerprint: The fingerprint of the encoder that fills the sparse side. It describes the encoder's weights and
            settings. The collection stores the fingerprint and refuses other encoders.
        allow_other_encoder: Whether to open a collection that was made with another encoder.
        drop_old: Whether to delete an existing collection of this name, with its documents.
        timeout: The time limit for each call to Milvus, in seconds. None means 30 for a call that reads and 120 for a
            call that writes. If a server takes longer, the call raises a TimeoutError.
        partition_names: The partitions to search and read by default. A call can name others. None means all
            partitions.
        create_options: Further arguments of `MilvusClient.create_collection`: `properties`, `consistency_level`, …
        description: The description of a new collection.
        replica_number: The number of copies of the collection that a server loads.
        fusion: How a hybrid search fuses the sides. None means the fusion that is stored in the collection, if any.
    Raises:
        ValueError: The existing collection lacks a field of the schema, or was made with another encoder. Or `drop_old`
            is true and `name` is an alias.

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
        """Raise if `write` would refuse these rows. The rows need no vectors yet.

        Raises:
            TypeError, ValueError: An id, a text or a metadata value is wrong. The message names the row's position.
        """
        fields = self.fields
        check_rows(rows, metadata=fields is None)
        if fields is not None:
            self._entities(rows, fields)
        elif self.schema.auto_id and (given := [row.id for row in rows if row.id is not None]):
            raise ValueError(
                f"ids must not be given with auto_id=True, got {given[0]!r}. With auto_id=True, Milvus numbers the "
                "documents. Leave out the ids, or create the collection without auto_id."
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
        """Write rows. A row replaces the stored row with the same id, including all of its metadata.

        Args:
            rows: N documents.
            partition_name: The partition to write to. None means the partition that the partition key selects, or the
                default partition if the collection has no partition key.
            batch_size: The largest number of rows in one message to Milvus.
            timeout: The time limit for each message, in seconds.
            flush: Whether milvus-lite flushes afterwards, which makes the rows quick to search. A server flushes by
                itself.
        Returns:
            N ids.
        Raises:
            TypeError, ValueError: The rows do not pass `check`. Nothing has been written.
        """
        if not rows:
            return []
        if self._fields is not None and not self.exists(timeout):  # another client has dropped the collection
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
                        f"got {entity[fields.primary]!r}. milvus-lite 2 writes ids into its queries without escaping "
                        "them. Change the id, or install milvus-lite 3."
                    )
        return entities

    def _send(
        self, entities: list[dict[str, Any]], fields: Fields, partition_name: str | None, timeout: float | None
    ) -> list[str]:
        how: dict[str, Any] = {"data": entities, "timeout": self._write_timeout(timeout)}
        if partition_name is not None:
            how["partition_name"] = partition_name
        with self.connection.lock:
            answer = self._do(self.connection.write_method(auto_id=fields.auto_id), **how)
        return [str(key) for key in (answer["ids"] if fields.auto_id else [row[fields.primary] for row in entities])]

    def ingest(self, items: Sequence[T], rows_of: Callable[[Sequence[T]], Sequence[Row]], **how: Any) -> list[str]:
        """Encode and write many documents in bounded memory, in chunks of a few hundred.

        Args:
            items: N items for `rows_of`. Check them before this call. If a chunk raises an error, the chunks before it
                have been written and stay stored.
            rows_of: Makes the rows of one chunk of items.
            **how: The keyword arguments of `write`.
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
        """Make written rows durable and quick to search."""
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
        """Delete documents by ids or by a filter. If both are given, only documents that match both are deleted.

        The rows that match a filter are first read, and then deleted by their ids. If the filter is a dict or a
        `Filter`, Python checks each row again before it is deleted. Unknown ids are not an error.

        Args:
            ids: The documents' ids. [] deletes nothing.
            filter: A dict, a `Filter`, or a Milvus expression.
            partition_names: The partitions to delete from.
            timeout: The time limit for each call, in seconds.
        Raises:
            ValueError: Neither ids nor a filter is given, or the filter has no condition.
        """
        condition = as_filter(filter)
        if condition == And() or (ids is None and condition is None) or (filter is not None and condition is None):
            raise ValueError(
                f"delete must be given ids, or a filter with a condition, or both, got filter={filter!r}. To delete "
                "all documents, call clear()."
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
        # milvus-lite 2 does not escape ids, so it would run parts of some ids as SQL. These ids can be skipped, because
        # `write` refuses them and so no row has such an id.
        if self.engine is Engine.LITE2:
            keys = [key for key in keys if not _UNFIT_FOR_LITE2.search(str(key))]
        for start in range(0, len(keys), _IDS_AT_ONCE):
            expr = ids_expr(fields.primary, keys[start : start + _IDS_AT_ONCE])
            with self.connection.lock:
                self._do("delete", filter=expr, timeout=self._write_timeout(timeout))

    def clear(self) -> None:
        """Delete all documents. The collection keeps its fields, aliases and properties."""
        if (fields := self.fields) is None:
            return
        every = f"{fields.primary} >= {-(2**63)}" if fields.primary_is_number else f'{fields.primary} >= ""'
        with self.connection.lock:
            self._do("delete", filter=every, timeout=self._write_timeout())
            self._flush_lite()

    # Building rows and messages would block the event loop, so the async methods run the sync methods in a thread.

    async def awrite(self, rows: Sequence[Row], **how: Any) -> list[str]:
        """Run `write` in a thread."""
        return await asyncio.to_thread(self.write, rows, **how)

    async def aingest(
        self, items: Sequence[T], rows_of: Callable[[Sequence[T]], Sequence[Row]], **how: Any
    ) -> list[str]:
        """Run `ingest` in a thread."""
        return await asyncio.to_thread(lambda: self.ingest(items, rows_of, **how))

    async def adelete(self, **how: Any) -> None:
        """Run `delete` in a thread."""
        await asyncio.to_thread(self.delete, **how)

    async def aclear(self) -> None:
        """Run `clear` in a thread."""
        await asyncio.to_thread(self.clear)
