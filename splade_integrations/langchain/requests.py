"""Checks the keywords of a store's search, and translates them to the keywords of `Collection.search`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from pymilvus import RRFRanker, WeightedRanker

from splade_integrations.fusion import RRF_K, Fusion
from splade_integrations.langchain.options import by_side
from splade_integrations.milvus.calls import check_search_options
from splade_integrations.milvus.schema import Side

__all__ = ["Asked", "Mode", "one_filter", "translate"]

Mode = Literal["hybrid", "dense", "sparse", "bm25"] | Sequence[Side]

_KNOWN = (
    "k", "param", "expr", "filter", "timeout", "mode", "fetch_k", "fusion", "reranker", "ranker_type", "ranker_params",
    "group_by", "partition_names",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A search that a caller asks for.

    Args:
        sides: The sides to search. A side is one kind of vector: dense, sparse or BM25.
        how: Keywords for `Collection.search`.
    """

    sides: tuple[Side, ...]
    how: Mapping[str, Any]


def translate(
    store_sides: Sequence[Side],
    hybrid: Callable[[], Fusion],
    k: int = 4,
    param: Any = None,
    expr: str | None = None,
    timeout: float | None = None,
    *,
    filter: Any = None,
    mode: Mode = "hybrid",
    fetch_k: int | None = None,
    fusion: Fusion | Mapping[str, Any] | None = None,
    reranker: Any = None,
    ranker_type: str | None = None,
    ranker_params: Mapping[str, Any] | None = None,
    group_by: str | None = None,
    partition_names: Sequence[str] | None = None,
    **options: Any,
) -> Asked:
    """Translate the keywords of a store's search to sides and to keywords of `Collection.search`.

    Args:
        store_sides: The store's sides: some of "dense", "sparse" and "bm25".
        hybrid: A function that returns the store's own fusion. It is called only if this search uses that fusion.
        k: The largest number of documents to return.
        param: Milvus's search parameters: a list with one dict for each of the store's sides, or a single dict if only
            one side is searched.
        expr: The condition that documents must satisfy on every side, as a Milvus expression such as `year > 2000`.
        timeout: The time limit for each call of Milvus, in seconds.
        filter: The same condition, as a dict in LangChain's usual form, such as {"year": {"$gt": 2000}}, or as a Milvus
            expression. Give either `filter` or `expr`.
        mode: "hybrid" searches the sides of the store's own fusion, and fuses their hits. "dense", "sparse" or "bm25"
            searches only that side. A list of sides, such as ["dense", "bm25"], searches these sides and fuses their
            hits.
        fetch_k: The number of hits to fetch from each side before fusion. None means the fusion's own `depth` or, if it
            has none, max(100, 10 * k).
        fusion: A `Fusion`, or its dict, that states the sides to search and how their hits are fused. It replaces the
            store's own fusion.
        reranker: A pymilvus ranker or rerank function that fuses the hits instead of a `Fusion`. If `reranker` or
            `ranker_type` is given, mode "hybrid" searches all sides.
        ranker_type: A ranker's name, "rrf" or "weighted", instead of `reranker`.
        ranker_params: The parameters of `ranker_type`: {"k": 60} for "rrf", or {"weights": [.7, .3]} for "weighted",
            with one weight for each side.
        group_by: A metadata key. Of the documents with the same value under this key, only the best is returned.
        partition_names: The partitions to search.
        **options: Options of `MilvusClient.search`: consistency_level, offset, round_decimal, …
    Raises:
        TypeError: An option is unknown, or both `filter` and `expr` are given.
        ValueError: The mode or the ranker is unknown, or `param` does not have one item for each side.
    """
    check_search_options(options, _KNOWN)
    ranker = _ranker(reranker, ranker_type, ranker_params or {})
    if ranker_params and ranker_type is None:
        raise TypeError(
            "ranker_params must be given with ranker_type, got only ranker_params. Name the ranker as well."
        )
    chosen = Fusion.of(fusion)
    if chosen is not None:
        if ranker is not None or mode != "hybrid":
            raise TypeError(
                "fusion must be given without mode, reranker and ranker_type, got one of these as well. Give only "
                "fusion. It already says which sides to search, and how to fuse their hits."
            )
        if missing := [side for side in chosen.sides if side not in store_sides]:
            raise ValueError(
                f"a fusion must use only this store's sides ({', '.join(map(repr, store_sides))}), got {missing[0]!r}. "
                "Open the store with that side as well, or leave it out of the fusion."
            )
    elif mode == "hybrid" and ranker is None:
        chosen = hybrid()
    sides = _sides(mode, store_sides) if chosen is None else cast("tuple[Side, ...]", chosen.sides)
    ranker = ranker or chosen
    if fetch_k is not None and (isinstance(fetch_k, bool) or not isinstance(fetch_k, int) or fetch_k < 1):
        raise ValueError(f"fetch_k must be an int of at least 1, got {fetch_k!r}. Leave it out for max(100, 10 * k).")
    single = isinstance(param, Mapping) and len(sides) == 1
    params = dict.fromkeys(sides, param) if single else by_side(param, store_sides, "param")
    return Asked(
        sides,
        {
            "k": k,
            "depth": fetch_k,
            "params": {side: value for side, value in params.items() if side in sides and value},
            "filter": one_filter(filter, expr),
            "ranker": ranker,
            "group_by": group_by,
            "partition_names": partition_names,
            "timeout": timeout,
            "options": options,
        },
    )


def _sides(mode: Mode, store_sides: Sequence[Side]) -> tuple[Side, ...]:
    if mode == "hybrid":
        return tuple(store_sides)
    sides = tuple(mode) if isinstance(mode, Sequence) and not isinstance(mode, str) else (mode,)
    if not sides or len(set(sides)) < len(sides) or not set(sides) <= set(store_sides):
        raise ValueError(
            f"mode must be 'hybrid', one of this store's sides ({', '.join(map(repr, store_sides))}) or a list of some "
            f"of them, got {mode!r}. Use one of these."
        )
    return cast("tuple[Side, ...]", sides)


def one_filter(filter: Any, expr: Any) -> Any:
    """Return the filter, which callers can pass as `filter` or as `expr`.

    Raises:
        TypeError: Both are given.
    """
    if filter and expr:
        raise TypeError(
            "filter and expr must not be given together, got both. Join the two conditions in one of them: "
            "filter={'$and': […]}, or expr='(…) and (…)'."
        )
    return filter if filter is not None else expr


def _ranker(reranker: Any, ranker_type: str | None, params: Mapping[str, Any]) -> Any:
    if ranker_type is None:
        return reranker
    if reranker is not None:
        raise TypeError("reranker and ranker_type must not be given together, got both. Drop one of them.")
    if ranker_type == "rrf" and params.keys() <= {"k"}:
        return RRFRanker(params.get("k", RRF_K))
    if ranker_type == "weighted" and params.keys() == {"weights"}:
        return WeightedRanker(*params["weights"])
    raise ValueError(
        "ranker_type must be 'rrf' (ranker_params: {'k': …} or none) or 'weighted' (ranker_params: {'weights': […]}), "
        f"got {ranker_type!r} with ranker_params {dict(params)!r}. Use one of these two."
    )
