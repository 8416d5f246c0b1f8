"""Read a collection by ids or by filter. Every operation is a generator, which this package calls a conversation.

A conversation yields the calls to make, and receives the answer to each call. The sync and the async methods of
`Collection` run the same conversations, so they behave in the same way. This module makes no calls itself, and needs no
client.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from splade_integrations.milvus.calls import Call, Conversation
from splade_integrations.milvus.fields import Fields
from splade_integrations.milvus.filters import Compare, Engine, Filter, Layout, ids_expr, keys_like_ids, make_plan
from splade_integrations.milvus.paging import IN_KEY_ORDER, ROWS_PER_PAGE, key_range, next_key, query_call
from splade_integrations.milvus.rows import Hit, hit_of, key_of

__all__ = ["Fetcher"]

_IDS_AT_ONCE = 1000
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Reads from one collection.

    Args:
        name: The collection's name, or an alias.
        fields: The collection's fields.
        layout: The same fields in the form that filters need.
        engine: The engine that holds the collection.
        columns: The names of the caller's additional columns.
        search_params: {side: search parameters}. A side is a kind of vector: dense, sparse or BM25.
        partitions: The names of partitions that are known to exist. `Fetcher` adds the names that Milvus lists.
        checked_keys: The metadata keys that `Fetcher` has already checked. If a filter asks for a key with a name like
            "id", `Fetcher` checks whether any document has this key, because the author of the filter may have meant
            the document's id.
    """

    name: str
    fields: Fields
    layout: Layout
    engine: Engine
    columns: Sequence[str]
    search_params: Mapping[str, Mapping[str, Any]]
    partitions: set[str]
    checked_keys: set[str]

    def get(
        self,
        ids: Sequence[str],
        *,
        with_dense: bool = False,
        with_sparse: bool = False,
        partition_names: Sequence[str] | None = None,
        timeout: float | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Conversation[list[Hit]]:
        """Return the documents with these ids, in the order of the ids. Unknown ids are left out."""
        yield from self._check_partitions(partition_names, timeout)
        keys = [key for key in (key_of(value, self.fields) for value in ids) if key is not None]
        found: dict[str, Hit] = {}
        for start in range(0, len(keys), _IDS_AT_ONCE):
            expr = ids_expr(self.fields.primary, keys[start : start + _IDS_AT_ONCE])
            rows = yield self._query(
                expr, _IDS_AT_ONCE, with_dense, partition_names, timeout, with_sparse=with_sparse, options=options
            )
            found |= {hit.id: hit for hit in self._read(rows)}
        return [found[value] for value in dict.fromkeys(map(str, keys)) if value in found]

    def page(
        self,
        expr: str,
        after: Any,
        *,
        with_dense: bool = False,
        partition_names: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Conversation[tuple[list[Hit], Any]]:
        """Return one page of documents, and the key after which the next page starts.

        The key is None if this page is the last. A page has up to 1000 documents, in ascending order of their primary
        keys.

        Args:
            expr: The Milvus expression that selects the documents. The method `expression` returns it.
            after: The key that was returned with the previous page, or None for the first page.
            with_dense: Whether to return dense vectors as well.
            partition_names: The partitions to read.
            timeout: The time limit for the call, in seconds.
        """
        if after is not None:
            cursor = key_range(self.fields.primary, after)
            expr = f"({expr}) and {cursor}" if expr else cursor
        rows = yield self._query(expr, ROWS_PER_PAGE, with_dense, partition_names, timeout, options=IN_KEY_ORDER)
        return self._read(rows), next_key(rows, self.fields.primary)

    def all_of(self, expr: str, **how: Any) -> Conversation[list[Hit]]:
        """Return all documents that match `expr`, in ascending order of primary keys. `how` is passed on to `page`."""
        found, after = yield from self.page(expr, None, **how)
        while after is not None:
            more, after = yield from self.page(expr, after, **how)
            found += more
        return found

    def expression(
        self, filter: Filter | str | None, partition_names: Sequence[str] | None, timeout: float | None
    ) -> Conversation[str]:
        """Return the Milvus expression that stands for a filter in this collection.

        On milvus-lite, an expression may be wrong on some rows. Those rows are read, and Python evaluates the filter on
        them. The returned expression then includes or excludes each of those rows by its id.

        Args:
            filter: The filter.
            partition_names: The partitions to search. They must exist.
            timeout: The time limit for each call, in seconds.
        """
        yield from self._check_partitions(partition_names, timeout)
        if filter is None:
            return ""
        yield from self._check_keys(filter, timeout)
        if isinstance(filter, str):
            return filter
        plan = make_plan(filter, self.layout, self.engine)
        if plan.doubtful is None:
            return plan.expr
        rows = yield from self.all_of(plan.doubtful, partition_names=partition_names, timeout=timeout)
        return plan.resolve([(key_of(hit.id, self.fields), hit.metadata, self.judged(hit)) for hit in rows])

    def judged(self, hit: Hit) -> dict[str, Any]:
        """Return {name: value} for all columns of the hit that filters can ask for, including the primary key."""
        return {**hit.columns, self.fields.primary: key_of(hit.id, self.fields)}

    def _check_keys(self, filter: Filter | str, timeout: float | None) -> Conversation[None]:
        """Log a warning if a filter asks for a metadata key with a name like "id", but no document has this key.

        The author of the filter then probably means the documents' ids.
        """
        for key in keys_like_ids(filter, self.layout):
            if key in self.checked_keys:
                continue
            self.checked_keys.add(key)
            has_key = make_plan(Compare(key, "exists"), self.layout, self.engine)
            rows = yield self._query(has_key.reach, 1, False, None, timeout)
            if not rows:
                logger.warning(
                    "A filter asks for the metadata key %r, which no document of collection %r has. The documents' ids "
                    "are in the field %r. To filter by ids, give the ids themselves (LlamaIndex: node_ids), or a "
                    'Milvus expression such as %s in ["a"].',
                    key,
                    self.name,
                    self.fields.primary,
                    self.fields.primary,
                )

    def _check_partitions(self, names: Sequence[str] | None, timeout: float | None) -> Conversation[None]:
        """Raise a ValueError if a partition does not exist. milvus-lite itself would find nothing, without an error."""
        if not names or self.partitions.issuperset(names):
            return
        if self.engine is Engine.LITE2:
            raise ValueError(
                f"partition_names must not be given on milvus-lite 2, got {list(names)}. milvus-lite 2 has no "
                "partitions. Filter by metadata, or install milvus-lite 3."
            )
        there = yield Call("list_partitions", {"collection_name": self.name, "timeout": timeout})
        self.partitions.update(there)
        if missing := [name for name in names if name not in there]:
            raise ValueError(
                f"partition_names must be partitions of collection {self.name!r} ({', '.join(there)}), got "
                f"{missing[0]!r}. Correct the name, or create the partition with the client's create_partition."
            )

    def _query(
        self,
        expr: str,
        limit: int,
        with_dense: bool,
        partition_names: Sequence[str] | None,
        timeout: float | None,
        *,
        with_sparse: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> Call:
        names = [self.fields.primary, *self.fields.output(with_dense=with_dense, with_sparse=with_sparse)]
        how: dict[str, Any] = {
            "limit": limit,
            "partition_names": partition_names,
            "timeout": timeout,
            **(options or {}),
        }
        return query_call(self.name, expr, names, **how)

    def _read(self, rows: Sequence[Mapping[str, Any]]) -> list[Hit]:
        return [hit_of(row[self.fields.primary], 0.0, row, self.fields, self.columns) for row in rows]
