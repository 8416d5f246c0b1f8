"""One Milvus collection of any sides (dense, SPLADE, BM25), for both stores, the evaluation and the command line.

Everything that makes it right lives here and in the modules beside: fields, indexes and search parameters, fusion,
empty texts, locks, flushes, fingerprints and retries. Knows no framework and no encoder.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.defaults import READ_TIMEOUT, ROWS_PER_WRITE, WRITE_TIMEOUT
from splade_integrations.milvus.filters import And, Engine, Filter, Layout, ids_expr
from splade_integrations.milvus.fingerprint import check_encoder, description_with, record
from splade_integrations.milvus.ingest import ingest
from splade_integrations.milvus.retries import aask, ask
from splade_integrations.milvus.rows import Hit, Row, check_rows, entity_of, key_of
from splade_integrations.milvus.schema import Fields, Schema
from splade_integrations.milvus.searching import Conversation, Reader, Search, as_filter
from splade_integrations.models.fingerprint import Fingerprint

with require_extra("milvus", module=__name__):
    from pymilvus import AsyncMilvusClient, MilvusClient

__all__ = ["Collection"]

T = TypeVar("T")
AnyFilter = Filter | Mapping[str, Any] | str | None

_IDS_AT_ONCE = 1000
_UNFIT_FOR_LITE2 = re.compile(r"['\\\x00-\x1f]")


class Collection:
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

    def __init__(
        self,
        name: str,
        schema: Schema,
        connection: Connection,
        *,
        fingerprint: Fingerprint | None = None,
        allow_other_encoder: bool = False,
        drop_old: bool = False,
        timeout: float | None = None,
        partition_names: Sequence[str] | None = None,
        create_options: Mapping[str, Any] | None = None,
        description: str = "",
        replica_number: int = 1,
    ) -> None:
        self.name, self.schema, self.connection = name, schema, connection
        schema.typed()  # says what is wrong with it
        self._fingerprint, self._allow_other_encoder = fingerprint, allow_other_encoder
        self._timeout, self._partition_names = timeout, partition_names
        self._create_options, self._description = dict(create_options or {}), description
        self._replica_number = replica_number
        self._fields: Fields | None = None
        self._partitions: set[str] = set()
        if drop_old:
            self._drop()
        elif self.exists():
            self._learn()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Collection":
        return self  # clients and locks are made to be shared

    # What it is

    @property
    def client(self) -> MilvusClient:
        """The client."""
        return self.connection.client

    @property
    def aclient(self) -> AsyncMilvusClient | None:
        """The async client of the running event loop; None if there is only another's sync client."""
        return self.connection.aclient

    @property
    def engine(self) -> Engine:
        """What answers."""
        return self.connection.engine

    @property
    def fields(self) -> Fields | None:
        """The fields that it has, or None if there is no collection yet."""
        if self._fields is None and self.exists():
            self._learn()
        return self._fields

    @property
    def layout(self) -> Layout | None:
        """Where its metadata are, as filters ask for it; None if there is no collection yet."""
        fields = self.fields
        return None if fields is None else _layout(fields)

    def dense_metric(self) -> str:
        """Return the metric of the dense side: of its index if the collection is there, else of the one wanted."""
        if (fields := self.fields) is None:
            return self.schema.metric_type
        found = self.client.describe_index(self.name, fields.sides["dense"], timeout=self._read_timeout()) or {}
        return str(found.get("metric_type", self.schema.metric_type))

    def exists(self) -> bool:
        """Return whether there is such a collection."""
        return bool(self.client.has_collection(self.name, timeout=self._read_timeout()))

    def count(self) -> int:
        """Return how many documents there are."""
        if self.fields is None:
            return 0
        how = {"filter": "", "output_fields": ["count(*)"], "consistency_level": "Strong"}
        rows = self.client.query(self.name, **how, timeout=self._read_timeout())
        return int(rows[0]["count(*)"])

    # Creating

    def create(self, dense_dim: int | None = None) -> None:
        """Create the collection, unless another has.

        Args:
            dense_dim: Width of the dense vectors, if there is a dense side.
        Raises:
            ValueError: There is one, and it has other fields or another encoder.
        """
        with self.connection.lock:  # of threads that add first, one creates the collection
            if not self.exists():
                self._create(dense_dim)
            self._learn()

    def _create(self, dense_dim: int | None) -> None:
        client = self.client
        text = description_with(self._fingerprint, self._description)
        definition = self.schema.definition(self.engine, dense_dim, text)
        client.create_collection(self.name, schema=definition, timeout=self._write_timeout(), **self._create_options)
        record(client, self.name, self._fingerprint)
        # Not waited for: milvus-lite has not the call by which pymilvus waits.
        client.create_index(self.name, self.schema.indexes(self.engine), sync=False)
        self.load()

    def _learn(self) -> None:
        description = self.client.describe_collection(self.name, timeout=self._read_timeout())
        where = self.connection.uri or str(id(self.client))
        check_encoder(description, where, self._fingerprint, allow_other_encoder=self._allow_other_encoder)
        fields = Fields.of(description, self.schema)
        self.load()  # milvus-lite opens a file with its collections released
        self._fields = fields

    def load(self) -> None:
        """Make the collection ready to search."""
        how = {} if self._replica_number == 1 else {"replica_number": self._replica_number}
        if self._partition_names and self.engine is Engine.SERVER:
            self.client.load_partitions(self.name, list(self._partition_names), **how)
        else:
            self.client.load_collection(self.name, **how)

    def _drop(self) -> None:
        with self.connection.lock:
            if not self.exists():
                return
            name = self.client.describe_collection(self.name, timeout=self._read_timeout())["collection_name"]
            if name != self.name:
                raise ValueError(
                    f"drop_old must name a collection, got {self.name!r}, an alias of {name!r}, which would be deleted "
                    "with it. Name the collection, or index anew behind the alias."
                )
            self.client.drop_collection(self.name)
            self._fields = None

    # Writing

    def check(self, rows: Sequence[Row]) -> None:
        """Raise if rows, whose vectors may still lack, could not be written.

        Raises:
            TypeError, ValueError: An id, a text or a value of the metadata; its position is named.
        """
        check_rows(rows)
        if (fields := self.fields) is not None:
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
        check_rows(rows)
        if self._fields is not None and not self.exists():  # dropped since
            self._fields = None
        fields = self.fields
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
        write = self.client.insert if replaces else self.client.upsert
        where = {} if partition_name is None else {"partition_name": partition_name}
        with self.connection.lock:
            answer = write(self.name, entities, timeout=self._write_timeout(timeout), **where)
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
            self.client.flush(self.name, timeout=self._write_timeout())

    def _flush_lite(self) -> None:
        if self.connection.lite and self._fields is not None:
            self.flush()

    # Deleting

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
                self.client.delete(self.name, filter=expr, timeout=self._write_timeout(timeout))

    def clear(self) -> None:
        """Delete all documents. Fields, alias and properties stay."""
        if (fields := self.fields) is None:
            return
        every = f"{fields.primary} >= {-(2**63)}" if fields.primary_is_number else f'{fields.primary} >= ""'
        with self.connection.lock:
            self.client.delete(self.name, filter=every, timeout=self._write_timeout())
            self._flush_lite()

    # Reading

    def search(self, sides: Mapping[Any, Any], *, filter: AnyFilter = None, **how: Any) -> list[Hit]:
        """Return the best documents, best first.

        One side gives its own scores; several are fused by reciprocal rank, also if only one can answer.

        Args:
            sides: {side: its query}, as `Search` takes them.
            filter: A dict, a filter, or an expression of Milvus; it binds every side.
            **how: What else `Search` takes.
        Raises:
            ValueError: An unknown side, partition or parameter.
            TimeoutError: The server does not answer.
        """
        asked = self._asked(sides, filter, how)
        reader = self._reader()
        return [] if reader is None else self._ask(reader.search(asked))

    async def asearch(self, sides: Mapping[Any, Any], *, filter: AnyFilter = None, **how: Any) -> list[Hit]:
        """Search as `search` does."""
        asked = self._asked(sides, filter, how)
        reader = await self._areader()
        return [] if reader is None else await self._aask(reader.search(asked))

    def get(self, ids: Sequence[str], **how: Any) -> list[Hit]:
        """Return the documents of these ids, in their order; ids that are not there are left out.

        Args:
            ids: Their ids.
            **how: with_dense, partition_names, timeout.
        """
        reader = self._reader()
        return [] if reader is None else self._ask(reader.get(ids, **self._where(how)))

    async def aget(self, ids: Sequence[str], **how: Any) -> list[Hit]:
        """Read as `get` does."""
        reader = await self._areader()
        return [] if reader is None else await self._aask(reader.get(ids, **self._where(how)))

    def iterate(self, filter: AnyFilter = None, **how: Any) -> Iterator[Hit]:
        """Yield all documents that match, by rising id.

        Args:
            filter: A dict, a filter, an expression of Milvus, or None for all.
            **how: with_dense, partition_names, timeout.
        """
        condition, where = as_filter(filter), self._where(how)
        if (reader := self._reader()) is None:
            return
        expr = self._ask(reader.expression(condition, where["partition_names"], where["timeout"]))
        after: Any = None
        while True:
            hits, after = self._ask(reader.page(expr, after, **where))
            yield from hits
            if after is None:
                return

    async def aiterate(self, filter: AnyFilter = None, **how: Any) -> AsyncIterator[Hit]:
        """Yield as `iterate` does."""
        condition, where = as_filter(filter), self._where(how)
        if (reader := await self._areader()) is None:
            return
        expr = await self._aask(reader.expression(condition, where["partition_names"], where["timeout"]))
        after: Any = None
        while True:
            hits, after = await self._aask(reader.page(expr, after, **where))
            for hit in hits:
                yield hit
            if after is None:
                return

    # Writing builds rows and messages, which would hold an event loop up: a thread does it.

    async def awrite(self, rows: Sequence[Row], **how: Any) -> list[str]:
        """Write as `write` does, in a thread."""
        return await asyncio.to_thread(self.write, rows, **how)

    async def aingest(
        self, items: Sequence[T], rows_of: Callable[[Sequence[T]], Sequence[Row]], **how: Any
    ) -> list[str]:
        """Write as `ingest` does, in a thread."""
        return await asyncio.to_thread(self.ingest, items, rows_of, **how)

    async def adelete(self, **how: Any) -> None:
        """Delete as `delete` does, in a thread."""
        await asyncio.to_thread(self.delete, **how)

    async def aclear(self) -> None:
        """Delete as `clear` does, in a thread."""
        await asyncio.to_thread(self.clear)

    # The way to Milvus

    def _asked(self, sides: Mapping[Any, Any], filter: AnyFilter, how: dict[str, Any]) -> Search:
        return Search(sides=sides, filter=as_filter(filter), **{**how, **self._where(how)})

    def _where(self, how: dict[str, Any]) -> dict[str, Any]:
        names = how.get("partition_names") or self._partition_names
        return {**how, "partition_names": names, "timeout": self._read_timeout(how.get("timeout"))}

    def _reader(self) -> Reader | None:
        if (fields := self.fields) is None:
            return None
        params: dict[str, Mapping[str, Any]] = {str(side): value for side, value in self.schema.search_params.items()}
        return Reader(
            name=self.name,
            fields=fields,
            layout=_layout(fields),
            engine=self.engine,
            columns=tuple(self.schema.columns),
            search_params=params,
            partitions=self._partitions,
        )

    async def _areader(self) -> Reader | None:
        return self._reader() if self._fields is not None else await asyncio.to_thread(self._reader)

    def _ask(self, conversation: Conversation[T]) -> T:
        return ask(self.client, self.name, conversation, self.connection.uri)

    async def _aask(self, conversation: Conversation[T]) -> T:
        client = self.aclient
        if client is None:
            return await asyncio.to_thread(self._ask, conversation)
        return await aask(client, self.name, conversation, self.connection.uri)

    def _read_timeout(self, timeout: float | None = None) -> float:
        return timeout or self._timeout or READ_TIMEOUT

    def _write_timeout(self, timeout: float | None = None) -> float:
        return timeout or self._timeout or WRITE_TIMEOUT


def _layout(fields: Fields) -> Layout:
    return Layout(
        primary=fields.primary,
        primary_is_text=not fields.primary_is_number,
        metadata=fields.metadata,
        columns={name: int(kind) for name, (kind, _) in fields.typed.items()},
        **(
            {"own": {name: int(kind) for name, (kind, _) in fields.columns.items()}}
            if "own" in Layout.__dataclass_fields__
            else {}
        ),
    )
