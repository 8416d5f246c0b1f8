"""Search a collection, and read it by ids or by filter. The sync and the async methods make the same calls."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from splade_integrations.milvus.calls import Conversation, Search, as_filter
from splade_integrations.milvus.filters import Engine, Filter
from splade_integrations.milvus.opening import Opening, layout_of
from splade_integrations.milvus.retries import aask, ask
from splade_integrations.milvus.rows import Hit
from splade_integrations.milvus.searching import Reader

__all__ = ["AnyFilter", "Reading"]

T = TypeVar("T")
_QUERIES_AT_ONCE = 256  # limits the size of an answer, which holds k documents for each query
logger = logging.getLogger(__name__)

AnyFilter = Filter | Mapping[str, Any] | str | None


class Reading(Opening):
    """The part of `Collection` that searches and reads."""

    _has_warned = False  # becomes True after a search in a collection that does not exist

    def search(self, sides: Mapping[Any, Any], *, filter: AnyFilter = None, **how: Any) -> list[Hit]:
        """Return the best documents, best first.

        A search of one side (dense, sparse or BM25) returns that side's scores. A search of several sides returns
        fused scores, even if the queries of all sides but one are empty.

        Args:
            sides: {side: its query}. See `Search`.
            filter: A dict, a `Filter`, or a Milvus expression. It applies to every side.
            **how: Further arguments of `Search`.
        Raises:
            ValueError: `k` is out of range, a side or a partition does not exist, or milvus-lite 3 would ignore a
                search parameter.
            TimeoutError: The server does not answer.
        """
        asked = self._asked(sides, filter, how)
        reader = self._searcher()
        return [] if reader is None else self._ask(reader.search(asked))

    async def asearch(self, sides: Mapping[Any, Any], *, filter: AnyFilter = None, **how: Any) -> list[Hit]:
        """Do the same as `search`."""
        asked = self._asked(sides, filter, how)
        reader = await self._asearcher()
        return [] if reader is None else await self._aask(reader.search(asked))

    def search_many(
        self, queries: Sequence[Mapping[Any, Any]], *, filter: AnyFilter = None, **how: Any
    ) -> list[list[Hit]]:
        """Do the same as `search` for each of N queries, and send the queries to Milvus together.

        Args:
            queries: N dicts {side: its query}. All must have the same sides.
            filter: The filter, which applies to all queries.
            **how: Further arguments of `Search`.
        """
        if not queries:
            return []
        asked = self._asked(queries[0], filter, how)
        reader = self._searcher()
        found: list[list[Hit]] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = queries[start : start + _QUERIES_AT_ONCE]
            found += [[] for _ in some] if reader is None else self._ask(reader.search_many(asked, some))
        return found

    async def asearch_many(
        self, queries: Sequence[Mapping[Any, Any]], *, filter: AnyFilter = None, **how: Any
    ) -> list[list[Hit]]:
        """Do the same as `search_many`."""
        if not queries:
            return []
        asked = self._asked(queries[0], filter, how)
        reader = await self._asearcher()
        found: list[list[Hit]] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = queries[start : start + _QUERIES_AT_ONCE]
            found += [[] for _ in some] if reader is None else await self._aask(reader.search_many(asked, some))
        return found

    def get(self, ids: Sequence[str], **how: Any) -> list[Hit]:
        """Return the documents with these ids, in the order of the ids. Unknown ids are left out.

        Args:
            ids: The documents' ids.
            **how: `with_dense`, `with_sparse`, `partition_names` and `timeout`.
        """
        reader = self._reader()
        return [] if reader is None else self._ask(reader.get(ids, **self._where(how)))

    async def aget(self, ids: Sequence[str], **how: Any) -> list[Hit]:
        """Do the same as `get`."""
        reader = await self._areader()
        return [] if reader is None else await self._aask(reader.get(ids, **self._where(how)))

    def iterate(self, filter: AnyFilter = None, **how: Any) -> Iterator[Hit]:
        """Yield all documents that match the filter, in ascending order of their ids.

        Args:
            filter: A dict, a `Filter`, a Milvus expression, or None for all documents.
            **how: The arguments `with_dense`, `partition_names` and `timeout` of `Search`.
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
        """Do the same as `iterate`."""
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

    # Calls to Milvus

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
            layout=layout_of(fields),
            engine=self.engine,
            columns=tuple(self.schema.columns),
            search_params=params,
            partitions=self._partitions,
            checked_keys=self._checked_keys,
        )

    def _searcher(self) -> Reader | None:
        """Return the same as `_reader`. If this collection does not exist, log once which collections exist."""
        reader = self._reader()
        if reader is None and not self._has_warned:
            self._has_warned = True
            with self.connection.turn:
                others = self.client.list_collections(timeout=self._read_timeout())
            if others:
                logger.warning(
                    "The collection %r does not exist in %s, so a search finds nothing. These collections exist there: "
                    "%s. To search one of them, give its name as collection_name.",
                    self.name, self.connection.uri, ", ".join(sorted(others)),
                )  # fmt: skip
        return reader

    async def _asearcher(self) -> Reader | None:
        return self._reader() if self._fields is not None else await asyncio.to_thread(self._searcher)

    async def _areader(self) -> Reader | None:
        return self._reader() if self._fields is not None else await asyncio.to_thread(self._reader)

    def _ask(self, conversation: Conversation[T]) -> T:
        with self.connection.turn:
            return ask(self.client, self.name, conversation, self.connection.uri)

    async def _aask(self, conversation: Conversation[T]) -> T:
        client = self.aclient
        # On milvus-lite 2, calls take turns. A thread can wait for its turn, but an event loop must not.
        if client is None or self.engine is Engine.LITE2:
            return await asyncio.to_thread(self._ask, conversation)
        return await aask(client, self.name, conversation, self.connection.uri)
