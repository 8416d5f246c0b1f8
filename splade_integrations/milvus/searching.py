"""Search a collection. Every operation is a conversation: a generator that yields the calls to make (see `fetching`).

A search uses one or more sides of a collection: its dense, its sparse and its BM25 vectors. If it uses several sides,
their hits are fused into one ranking. A search may have many queries, which are sent together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from splade_integrations.dependencies import require_extra
from splade_integrations.fusion import RRF_K, Fusion, Hits
from splade_integrations.milvus.bm25 import ENGLISH, split_words
from splade_integrations.milvus.calls import Call, Conversation, Search
from splade_integrations.milvus.defaults import MOST_CANDIDATES, candidates, has_terms, is_blank
from splade_integrations.milvus.fetching import Fetcher
from splade_integrations.milvus.filters import Engine
from splade_integrations.milvus.rows import Hit, hit_of
from splade_integrations.milvus.schema import Side
from splade_integrations.milvus.values import check_dense

with require_extra("milvus", module=__name__):
    from pymilvus import AnnSearchRequest, RRFRanker

__all__ = ["Reader"]

_RANGES = ("radius", "range_filter")
_FRESHNESS = ("consistency_level", "guarantee_timestamp")


@dataclass(frozen=True, kw_only=True)
class Reader(Fetcher):
    """Searches one collection, and reads it like `Fetcher`."""

    def search(self, asked: Search) -> Conversation[list[Hit]]:
        """Return the best documents, best first."""
        [hits] = yield from self.search_many(asked, [asked.sides])
        return hits

    def search_many(self, asked: Search, queries: Sequence[Mapping[Side, Any]]) -> Conversation[list[list[Hit]]]:
        """Return the best documents for each of N queries. Queries that use the same sides are sent together.

        Args:
            asked: The search. Its own queries are not used.
            queries: N dicts {side: its query}, for the sides of `asked`.
        """
        self._check(asked)
        answering = [self._answering(one) for one in queries]
        found: list[list[Hit]] = [[] for _ in queries]
        if not any(answering):
            return found
        expr = yield from self.expression(asked.filter, asked.partition_names, asked.timeout)
        if asked.group_by is not None:
            for place in (place for place, one in enumerate(answering) if one):
                found[place] = yield from self._grouped(asked, asked.group_by, answering[place], expr)
            return found
        depth = self._depth(asked)
        together: dict[Any, list[int]] = {}
        for place, one in enumerate(answering):
            if one:
                # In a hybrid search of several queries, milvus-lite 2 does not restart the ranks for each query, but
                # continues to count. So on milvus-lite 2, each query is sent separately.
                together.setdefault((tuple(one), place if self.engine is Engine.LITE2 else None), []).append(place)
        for (sides, _), places in together.items():
            many = {side: [answering[place][side] for place in places] for side in sides}
            hits = yield from self._found(asked, many, expr, asked.k, depth)
            for place, hits_of_one in zip(places, hits, strict=True):
                found[place] = hits_of_one
        return found

    def _answering(self, queries: Mapping[Side, Any]) -> dict[Side, Any]:
        """Return the queries that can find documents, in the form that Milvus accepts."""
        made = {side: self._query_of(side, query) for side, query in queries.items()}
        return {side: query for side, query in made.items() if query is not None}

    def _check(self, asked: Search) -> None:
        if isinstance(asked.k, bool) or not isinstance(asked.k, int) or not 1 <= asked.k <= MOST_CANDIDATES:
            raise ValueError(
                f"k must be an int from 1 to {MOST_CANDIDATES}, got {asked.k!r}. Give a k in this range. To get more "
                "documents, read them by filter."
            )
        offset, decimals = (asked.options.get(name, least) for name, least in (("offset", 0), ("round_decimal", -1)))
        if not isinstance(offset, int) or offset < 0 or not isinstance(decimals, int) or not -1 <= decimals <= 6:
            raise ValueError(
                "offset must be an int of at least 0, and round_decimal an int from -1 (no rounding) to 6, got "
                f"{offset!r} and {decimals!r}. Leave them out to use 0 and -1."
            )
        if missing := [side for side in asked.sides if side not in self.fields.sides]:
            raise ValueError(
                f"a search must use the sides of collection {self.name!r} ({', '.join(self.fields.sides)}), got "
                f"{missing[0]!r}. Use one of them."
            )
        if isinstance(asked.ranker, Fusion) and set(asked.ranker.sides) != set(asked.sides):
            raise ValueError(
                f"a fusion must use exactly the sides that are searched ({', '.join(asked.sides)}), got a fusion of "
                f"{', '.join(asked.ranker.sides)}. Search the sides of the fusion, or leave the fusion out."
            )
        if len(asked.sides) > 1 and self.engine is Engine.LITE3:
            for side in asked.sides:
                params = self._params(side, asked)
                if used := [name for name in _RANGES if name in {**params, **params.get("params", {})}]:
                    raise ValueError(
                        f"{used[0]} must not be given to a search of several sides on milvus-lite 3, got it for "
                        f"{side!r} in a search of {len(asked.sides)} sides. milvus-lite 3 ignores it in such a search. "
                        "Search only that side."
                    )

    def _params(self, side: Side, asked: Search) -> dict[str, Any]:
        params = {**self.search_params.get(side, {}), **asked.params.get(side, {})}
        return {"params": {}, **params}

    def _found(
        self, asked: Search, answering: Mapping[Side, Sequence[Any]], expr: str, limit: int, depth: int
    ) -> Conversation[list[list[Hit]]]:
        """Return the hits of each of N queries. `answering` is {side: N queries}."""
        fusion = asked.ranker if isinstance(asked.ranker, Fusion) else None
        if len(asked.sides) > 1 and fusion is not None and not fusion.plain:
            return (yield from self._fused_here(asked, fusion, answering, expr, limit, depth))
        # The list of output fields must not be empty, because milvus-lite's hybrid search would then return every
        # field, even the vectors.
        fields = [self.fields.primary] if asked.ids_only else self.fields.output(with_dense=asked.with_dense)
        if len(asked.sides) == 1:
            [(side, queries)] = answering.items()
            answers = yield self._one_side(asked, side, queries, expr, limit=limit, output_fields=fields)
            sign = -1 if side == "bm25" and self.engine is Engine.LITE3 else 1
            return [self._ranked(answer, sign) for answer in answers]
        requests = [
            AnnSearchRequest(list(queries), self.fields.sides[side], self._params(side, asked), depth, expr)
            for side, queries in answering.items()
        ]
        # A pymilvus ranker may have one weight for each side. So it is used only if every side has a query.
        ranker = asked.ranker if fusion is None and len(answering) == len(asked.sides) else None
        ranker = ranker or RRFRanker(RRF_K if fusion is None else fusion.k)
        how = {"reqs": requests, "ranker": ranker, "limit": limit, "output_fields": fields}
        answers = yield Call("hybrid_search", {**self._common(asked), **how})
        return [self._ranked(answer, 1) for answer in answers]

    def _fused_here(
        self,
        asked: Search,
        fusion: Fusion,
        answering: Mapping[Side, Sequence[Any]],
        expr: str,
        limit: int,
        depth: int,
    ) -> Conversation[list[list[Hit]]]:
        """Fuse the hits of all sides in Python, and read the documents with the best fused scores.

        Python does this, because Milvus has no reciprocal rank fusion with weights, and cannot scale the scores of each
        side before fusion.
        """
        places = {name: asked.options[name] for name in ("offset", "round_decimal") if name in asked.options}
        options = {name: value for name, value in asked.options.items() if name not in places}
        plain = replace(asked, options=options)
        count = len(next(iter(answering.values())))
        rankings: list[list[Hits]] = [[] for _ in range(count)]
        for side in cast("tuple[Side, ...]", fusion.sides):
            answers: Any = [[]] * count
            if side in answering:
                fields = [self.fields.primary]
                answers = yield self._one_side(plain, side, answering[side], expr, limit=depth, output_fields=fields)
            for ranking, hits in zip(rankings, answers, strict=True):
                ranking.append(([self._key(hit) for hit in hits], [float(hit["distance"]) for hit in hits]))
        start, decimals = places.get("offset", 0), places.get("round_decimal", -1)
        best = [_cut(fusion.fuse(ranking), start, limit, decimals) for ranking in rankings]
        if asked.ids_only:
            return [
                [Hit(id=key, score=score, text="", metadata={}, columns={}) for key, score in one.items()]
                for one in best
            ]
        read = yield from self.get(
            list({key: None for one in best for key in one}),
            with_dense=asked.with_dense,
            partition_names=asked.partition_names,
            timeout=asked.timeout,
            options={name: value for name, value in options.items() if name in _FRESHNESS},
        )
        hit_of_key = {hit.id: hit for hit in read}
        return [
            [replace(hit_of_key[key], score=score) for key, score in one.items() if key in hit_of_key] for one in best
        ]

    def _one_side(self, asked: Search, side: Side, queries: Sequence[Any], expr: str, **how: Any) -> Call:
        field = {"anns_field": self.fields.sides[side], "search_params": self._params(side, asked), "filter": expr}
        return Call("search", {**self._common(asked), "data": list(queries), **field, **how})

    def _common(self, asked: Search) -> dict[str, Any]:
        """Return the arguments that every search needs, whether it uses one side or several."""
        partitions = {"partition_names": list(asked.partition_names)} if asked.partition_names else {}
        return {"collection_name": self.name, "timeout": asked.timeout, **partitions, **asked.options}

    def _query_of(self, side: Side, query: Any) -> Any:
        """Return a side's query in the form that Milvus accepts, or None if this query cannot find documents."""
        if query is None or (side == "sparse" and not has_terms(query)) or (side == "bm25" and is_blank(query)):
            return None
        if side == "bm25" and self.fields.bm25_words is not None:
            return " ".join(split_words(query, self.fields.bm25_language or ENGLISH)) or None
        return check_dense(query, "the query") if side == "dense" else query

    def _key(self, hit: Any) -> Any:
        return hit["id"] if "id" in hit else hit[self.fields.primary]

    def _grouped(self, asked: Search, key: str, answering: Mapping[Side, Any], expr: str) -> Conversation[list[Hit]]:
        """Search, and keep only the best hit of each group.

        The hits are grouped in Python, because no engine can group by an arbitrary metadata key. Also, milvus-lite's
        own grouping considers only the best 10 * k rows.
        """
        offset = asked.options.get("offset", 0)
        options = {name: value for name, value in asked.options.items() if name != "offset"}
        plain = replace(asked, options=options)
        wanted, depth = asked.k + offset, self._depth(asked)
        while True:
            one = {side: [query] for side, query in answering.items()}
            limit = min(max(wanted, depth * len(answering)), MOST_CANDIDATES)
            [hits] = yield from self._found(plain, one, expr, limit, depth)
            best: dict[Any, Hit] = {}
            for hit in hits:
                best.setdefault(self._group(hit, key), hit)
            if len(best) >= wanted or len(hits) < depth or depth == MOST_CANDIDATES:
                return list(best.values())[offset:wanted]
            depth = min(4 * depth, MOST_CANDIDATES)

    def _depth(self, asked: Search) -> int:
        """Return the number of hits to fetch from each side."""
        wanted = asked.k + asked.options.get("offset", 0)
        own = asked.ranker.depth if isinstance(asked.ranker, Fusion) else None
        return asked.depth or min(max(own or candidates(wanted), wanted), MOST_CANDIDATES)

    def _group(self, hit: Hit, key: str) -> Any:
        own = key in self.columns
        value = hit.columns.get(key) if own else hit.metadata.get(key)
        # LlamaIndex's Milvus store writes "None" for a node that has no source document.
        if value is None or (own and value in ("", "None")):
            return "no value", hit.id
        return type(value).__name__, repr(value)

    def _ranked(self, hits: Any, sign: int) -> list[Hit]:
        """Return the hits, best first. `sign` is -1 if Milvus negates the scores, as milvus-lite 3 does for BM25."""
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


def _cut(fused: tuple[list[Any], list[float]], start: int, limit: int, decimals: int) -> dict[str, float]:
    """Return {key: score} for up to `limit` hits, starting with the hit at position `start`.

    Scores are rounded to `decimals` decimals. They are not rounded if `decimals` is negative.
    """
    keys, scores = (values[start : start + limit] for values in fused)
    return {
        str(key): score if decimals < 0 else round(score, decimals) for key, score in zip(keys, scores, strict=True)
    }
