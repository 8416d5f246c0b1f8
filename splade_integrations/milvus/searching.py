"""Search and read a collection. Every operation is a generator, which this package calls a conversation.

A conversation yields the calls to make, and is sent the answer to each call. The sync and the async methods run the
same conversations, so they follow the same rules. This module makes no calls itself, and needs no client.

A search uses one or more sides of a collection: its dense, its sparse and its BM25 vectors. If it uses several sides,
their hits are fused into one ranking.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from splade_integrations.dependencies import require_extra
from splade_integrations.fusion import RRF_K, Fusion
from splade_integrations.milvus.bm25 import ENGLISH, split_words
from splade_integrations.milvus.calls import Call, Conversation, Search
from splade_integrations.milvus.defaults import MOST_CANDIDATES, candidates, has_terms, is_blank
from splade_integrations.milvus.filters import Engine, Filter, Layout, ids_expr, make_plan, quote
from splade_integrations.milvus.rows import Hit, hit_of, key_of
from splade_integrations.milvus.schema import Fields, Side

with require_extra("milvus", module=__name__):
    from pymilvus import AnnSearchRequest, RRFRanker

__all__ = ["Reader"]

_IDS_AT_ONCE = 1000
_ROWS_AT_ONCE = 1000
_RANGES = ("radius", "range_filter")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads from one collection.

    Args:
        name: The collection's name, or an alias.
        fields: The collection's fields.
        layout: The same fields in the form that filters need.
        engine: The engine that holds the collection.
        columns: The names of the caller's additional columns.
        search_params: {side: search parameters}.
        partitions: The names of partitions that are known to exist. The reader adds the names that Milvus lists.
    """

    name: str
    fields: Fields
    layout: Layout
    engine: Engine
    columns: Sequence[str]
    search_params: Mapping[str, Mapping[str, Any]]
    partitions: set[str]

    def search(self, asked: Search) -> Conversation[list[Hit]]:
        """Return the best documents, best first."""
        self._check(asked)
        queries = {side: self._query_of(side, query) for side, query in asked.sides.items()}
        answering = {side: query for side, query in queries.items() if query is not None}
        if not answering:
            return []
        expr = yield from self.expression(asked.filter, asked.partition_names, asked.timeout)
        if asked.group_by is not None:
            return (yield from self._grouped(asked, asked.group_by, answering, expr))
        wanted = asked.k + asked.options.get("offset", 0)
        own = asked.ranker.depth if isinstance(asked.ranker, Fusion) else None
        depth = asked.depth or max(own or candidates(wanted), wanted)
        return (yield from self._found(asked, answering, expr, asked.k, depth))

    def get(
        self,
        ids: Sequence[str],
        *,
        with_dense: bool = False,
        partition_names: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Conversation[list[Hit]]:
        """Return the documents with these ids, in the order of the ids. Unknown ids are left out."""
        yield from self._check_partitions(partition_names, timeout)
        keys = [key for key in (key_of(value, self.fields) for value in ids) if key is not None]
        found: dict[str, Hit] = {}
        for start in range(0, len(keys), _IDS_AT_ONCE):
            expr = ids_expr(self.fields.primary, keys[start : start + _IDS_AT_ONCE])
            rows = yield self._query(expr, _IDS_AT_ONCE, with_dense, partition_names, timeout)
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
        """Return one page of documents, and the key that the next page starts after, or None if this page is the last.

        A page has up to 1000 documents, in ascending order of their primary keys. pymilvus's iterator cannot be used,
        because it does not escape keys: after a key with a backslash, it returns the first page again and again.

        Args:
            expr: The Milvus expression that selects the documents. `expression` returns it.
            after: The key that was returned with the previous page, or None for the first page.
            with_dense: Whether to return dense vectors as well.
            partition_names: The partitions to read.
            timeout: The time limit for the call, in seconds.
        """
        if after is not None:
            cursor = f"{self.fields.primary} > {quote(after) if isinstance(after, str) else after}"
            expr = f"({expr}) and {cursor}" if expr else cursor
        rows = yield self._query(expr, _ROWS_AT_ONCE, with_dense, partition_names, timeout, by_key=True)
        return self._read(rows), rows[-1][self.fields.primary] if len(rows) == _ROWS_AT_ONCE else None

    def all_of(self, expr: str, **how: Any) -> Conversation[list[Hit]]:
        """Return all documents that match `expr`, in ascending order of primary keys. `how` are arguments of `page`."""
        found, after = yield from self.page(expr, None, **how)
        while after is not None:
            more, after = yield from self.page(expr, after, **how)
            found += more
        return found

    def expression(
        self, filter: Filter | str | None, partition_names: Sequence[str] | None, timeout: float | None
    ) -> Conversation[str]:
        """Return the Milvus expression that stands for a filter in this collection.

        On milvus-lite, an expression may be wrong on some rows. Those rows are read, Python evaluates the filter on
        them, and the returned expression names them by id.

        Args:
            filter: The filter.
            partition_names: The partitions to search. They must exist.
            timeout: The time limit for each call, in seconds.
        """
        yield from self._check_partitions(partition_names, timeout)
        if filter is None:
            return ""
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

    def _check_partitions(self, names: Sequence[str] | None, timeout: float | None) -> Conversation[None]:
        """Raise a ValueError if a partition does not exist. milvus-lite would find nothing and raise no error."""
        if not names or self.partitions.issuperset(names):
            return
        if self.engine is Engine.LITE2:
            raise ValueError(
                f"partition_names must not be given on milvus-lite 2, which has no partitions, got {list(names)}. "
                "Filter by metadata, or install milvus-lite 3."
            )
        there = yield Call("list_partitions", {"collection_name": self.name, "timeout": timeout})
        self.partitions.update(there)
        if missing := [name for name in names if name not in there]:
            raise ValueError(
                f"partition_names must be partitions of collection {self.name!r} ({', '.join(there)}), got "
                f"{missing[0]!r}. Correct the name, or create the partition with the client's create_partition."
            )

    def _check(self, asked: Search) -> None:
        if isinstance(asked.k, bool) or not isinstance(asked.k, int) or not 1 <= asked.k <= MOST_CANDIDATES:
            raise ValueError(
                f"k must be an int from 1 to {MOST_CANDIDATES}, got {asked.k!r}. Give a k in this range. To get more "
                "documents, read them by filter."
            )
        if missing := [side for side in asked.sides if side not in self.fields.sides]:
            raise ValueError(
                f"a search must use the sides of collection {self.name!r} ({', '.join(self.fields.sides)}), got "
                f"{missing[0]!r}. Use one of them."
            )
        if isinstance(asked.ranker, Fusion) and set(asked.ranker.sides) != set(asked.sides):
            raise ValueError(
                f"a fusion must be of the sides that are searched ({', '.join(asked.sides)}), got the sides "
                f"{', '.join(asked.ranker.sides)}. Search those sides, or leave the fusion out."
            )
        if len(asked.sides) > 1 and self.engine is Engine.LITE3:
            for side in asked.sides:
                params = self._params(side, asked)
                if used := [name for name in _RANGES if name in {**params, **params.get("params", {})}]:
                    raise ValueError(
                        f"{used[0]} must be given to a search of one side alone, because milvus-lite 3 ignores it "
                        f"in a fused search, got it for {side!r} in a search of {len(asked.sides)} sides. Search that "
                        "side alone."
                    )

    def _params(self, side: Side, asked: Search) -> dict[str, Any]:
        params = {**self.search_params.get(side, {}), **asked.params.get(side, {})}
        return {"params": {}, **params}

    def _found(
        self, asked: Search, answering: Mapping[Side, Any], expr: str, limit: int, depth: int
    ) -> Conversation[list[Hit]]:
        fusion = asked.ranker if isinstance(asked.ranker, Fusion) else None
        if len(asked.sides) > 1 and fusion is not None and not fusion.plain:
            return (yield from self._fused_here(asked, fusion, answering, expr, limit, depth))
        # For an empty list of output fields, milvus-lite's hybrid search would return every field, even the vectors.
        fields = [self.fields.primary] if asked.ids_only else self.fields.output(with_dense=asked.with_dense)
        if len(asked.sides) == 1:
            [(side, query)] = answering.items()
            answer = yield self._one_side(asked, side, query, expr, limit=limit, output_fields=fields)
            return self._ranked(answer[0], -1 if side == "bm25" and self.engine is Engine.LITE3 else 1)
        requests = [
            AnnSearchRequest([query], self.fields.sides[side], self._params(side, asked), depth, expr)
            for side, query in answering.items()
        ]
        # A pymilvus ranker may have one weight for each side. So it is used only if every side has a query.
        ranker = asked.ranker if fusion is None and len(answering) == len(asked.sides) else None
        ranker = ranker or RRFRanker(RRF_K if fusion is None else fusion.k)
        how = {"reqs": requests, "ranker": ranker, "limit": limit, "output_fields": fields}
        answer = yield Call("hybrid_search", {**self._common(asked), **how})
        return self._ranked(answer[0], 1)

    def _fused_here(
        self, asked: Search, fusion: Fusion, answering: Mapping[Side, Any], expr: str, limit: int, depth: int
    ) -> Conversation[list[Hit]]:
        """Fuse the hits of each side in Python, and read the documents that win.

        Milvus has no reciprocal rank fusion with weights, and does not scale each side's scores for a query.
        """
        places = {name: asked.options[name] for name in ("offset", "round_decimal") if name in asked.options}
        options = {name: value for name, value in asked.options.items() if name not in places}
        plain = replace(asked, options=options)
        rankings: list[tuple[list[Any], list[float]]] = []
        for side in cast("tuple[Side, ...]", fusion.sides):
            if side not in answering:
                rankings.append(([], []))
                continue
            fields = [self.fields.primary]
            [hits] = yield self._one_side(plain, side, answering[side], expr, limit=depth, output_fields=fields)
            rankings.append(([self._key(hit) for hit in hits], [float(hit["distance"]) for hit in hits]))
        keys, scores = fusion.fuse(rankings)
        start = places.get("offset", 0)
        decimals = places.get("round_decimal", -1)
        score_of = {
            str(key): score if decimals < 0 else round(score, decimals)
            for key, score in zip(keys[start : start + limit], scores[start : start + limit], strict=True)
        }
        if asked.ids_only:
            return [Hit(id=key, score=score, text="", metadata={}, columns={}) for key, score in score_of.items()]
        found = yield from self.get(
            [*score_of], with_dense=asked.with_dense, partition_names=asked.partition_names, timeout=asked.timeout
        )
        return [replace(hit, score=score_of[hit.id]) for hit in found]

    def _one_side(self, asked: Search, side: Side, query: Any, expr: str, **how: Any) -> Call:
        field = {"anns_field": self.fields.sides[side], "search_params": self._params(side, asked), "filter": expr}
        return Call("search", {**self._common(asked), "data": [query], **field, **how})

    def _common(self, asked: Search) -> dict[str, Any]:
        """Return the arguments of a search with one side or with several."""
        partitions = {"partition_names": list(asked.partition_names)} if asked.partition_names else {}
        return {"collection_name": self.name, "timeout": asked.timeout, **partitions, **asked.options}

    def _query_of(self, side: Side, query: Any) -> Any:
        """Return a side's query in the form that Milvus takes, or None if this query cannot find documents."""
        if query is None or (side == "sparse" and not has_terms(query)) or (side == "bm25" and is_blank(query)):
            return None
        if side == "bm25" and self.fields.bm25_words is not None:
            return " ".join(split_words(query, self.fields.bm25_language or ENGLISH)) or None
        return query

    def _key(self, hit: Any) -> Any:
        return hit["id"] if "id" in hit else hit[self.fields.primary]

    def _grouped(self, asked: Search, key: str, answering: Mapping[Side, Any], expr: str) -> Conversation[list[Hit]]:
        """Search, and keep only the best hit of each group. The hits are grouped in Python.

        No engine can group by an arbitrary metadata key, and milvus-lite groups only the best 10 * k rows.
        """
        offset = asked.options.get("offset", 0)
        options = {name: value for name, value in asked.options.items() if name != "offset"}
        plain = replace(asked, options=options)
        wanted, limit = asked.k + offset, candidates(asked.k + offset)
        while True:
            hits = yield from self._found(plain, answering, expr, limit, max(limit, asked.depth or 0))
            best: dict[Any, Hit] = {}
            for hit in hits:
                best.setdefault(self._group(hit, key), hit)
            if len(best) >= wanted or len(hits) < limit or limit == MOST_CANDIDATES:
                return list(best.values())[offset:wanted]
            limit = min(4 * limit, MOST_CANDIDATES)

    def _group(self, hit: Hit, key: str) -> Any:
        own = key in self.columns
        value = hit.columns.get(key) if own else hit.metadata.get(key)
        # LlamaIndex's Milvus store writes "None" for a node that has no source document.
        if value is None or (own and value in ("", "None")):
            return "no value", hit.id
        return type(value).__name__, repr(value)

    def _query(
        self,
        expr: str,
        limit: int,
        with_dense: bool,
        partition_names: Sequence[str] | None,
        timeout: float | None,
        *,
        by_key: bool = False,
    ) -> Call:
        # These two parameters make Milvus return the smallest keys first. pymilvus's iterator also sends them.
        order = {"iterator": "True", "reduce_stop_for_best": "True"} if by_key else {}
        return Call(
            "query",
            {
                "collection_name": self.name,
                "filter": expr,
                "output_fields": [self.fields.primary, *self.fields.output(with_dense=with_dense)],
                "limit": limit,
                "timeout": timeout,
                **({"partition_names": list(partition_names)} if partition_names else {}),
                **order,
            },
        )

    def _read(self, rows: Sequence[Mapping[str, Any]]) -> list[Hit]:
        return [hit_of(row[self.fields.primary], 0.0, row, self.fields, self.columns) for row in rows]

    def _ranked(self, hits: Any, sign: int) -> list[Hit]:
        """Return the hits, best first. `sign` is -1 if the scores are negated, as milvus-lite 3's BM25 scores are."""
        return [
            hit_of(
                self._key(hit),
                sign * float(hit["distance"]),
                hit["entity"],
                self.fields,
                self.columns,
            )
            for hit in hits
        ]
