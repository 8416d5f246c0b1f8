"""A search's keywords, checked and translated to those of a collection. Knows no client and no embedding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pymilvus import RRFRanker, WeightedRanker

from splade_integrations.langchain.options import by_side
from splade_integrations.milvus.defaults import RRF_K
from splade_integrations.milvus.schema import Side
from splade_integrations.milvus.searching import check_search_options

__all__ = ["Asked", "Mode", "one_filter", "translate"]

Mode = Literal["hybrid", "dense", "sparse", "bm25"]

_KNOWN = (
    "k", "param", "expr", "filter", "timeout", "mode", "fetch_k", "reranker", "ranker_type", "ranker_params",
    "group_by", "partition_names",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A search: which sides it uses, and the keywords of `Collection.search` beside their queries."""

    sides: tuple[Side, ...]
    how: Mapping[str, Any]


def translate(
    store_sides: Sequence[Side],
    k: int = 4,
    param: Any = None,
    expr: str | None = None,
    timeout: float | None = None,
    *,
    filter: Any = None,
    mode: Mode = "hybrid",
    fetch_k: int | None = None,
    reranker: Any = None,
    ranker_type: str | None = None,
    ranker_params: Mapping[str, Any] | None = None,
    group_by: str | None = None,
    partition_names: Sequence[str] | None = None,
    **options: Any,
) -> Asked:
    """Return a search as a collection takes it.

    Args:
        store_sides: Of the store.
        k: Most documents to return.
        param: Search parameters of Milvus: a list with a dict for each side, or a dict for the one side searched.
        expr: An expression of Milvus, such as `year > 2000`; it binds every side.
        timeout: Seconds.
        filter: A dict in LangChain's usual form, such as {"year": {"$gt": 2000}}, or an expression.
        mode: "hybrid", all sides fused, or one side alone: "dense", "sparse", "bm25".
        fetch_k: Candidates of each side. None takes max(100, 10 k).
        reranker: A ranker or rerank function of pymilvus. None is reciprocal rank fusion, k = 60.
        ranker_type: Or its name, "rrf" or "weighted", with its `ranker_params`, {"k": 60} or {"weights": [.7, .3]}.
        ranker_params: See there.
        group_by: A key of the metadata: the best document of each value alone is returned.
        partition_names: Where to search.
        **options: consistency_level, offset, round_decimal, … of `MilvusClient.search`.
    Raises:
        TypeError: There is no such option, or both `filter` and `expr` are given.
        ValueError: An unknown mode or ranker, or parameters of another number than the sides.
    """
    check_search_options(options, _KNOWN)
    modes: dict[str, tuple[Side, ...]] = {"hybrid": tuple(store_sides), **{side: (side,) for side in store_sides}}
    if mode not in modes:
        *most, last = map(repr, modes)
        raise ValueError(f"mode must be {', '.join(most)} or {last}, got {mode!r}. Use one of them.")
    sides = modes[mode]
    if fetch_k is not None and (isinstance(fetch_k, bool) or not isinstance(fetch_k, int) or fetch_k < 1):
        raise ValueError(f"fetch_k must be an int of at least 1, got {fetch_k!r}. Leave it out for max(100, 10 k).")
    single = isinstance(param, Mapping) and len(sides) == 1
    params = dict.fromkeys(sides, param) if single else by_side(param, store_sides, "param")
    return Asked(
        sides,
        {
            "k": k,
            "depth": fetch_k,
            "params": {side: value for side, value in params.items() if side in sides and value},
            "filter": one_filter(filter, expr),
            "ranker": _ranker(reranker, ranker_type, ranker_params or {}),
            "group_by": group_by,
            "partition_names": partition_names,
            "timeout": timeout,
            "options": options,
        },
    )


def one_filter(filter: Any, expr: Any) -> Any:
    """Return the one filter that was given by either name.

    Raises:
        TypeError: Both are.
    """
    if filter and expr:
        raise TypeError(
            "filter and expr must not be given together, got both. Join them: {'$and': […]}, or '(…) and (…)'."
        )
    return filter if filter is not None else expr


def _ranker(reranker: Any, ranker_type: str | None, params: Mapping[str, Any]) -> Any:
    if ranker_type is None:
        return reranker
    if reranker is not None:
        raise TypeError("reranker and ranker_type must not be given together, got both. Drop one.")
    if ranker_type == "rrf" and params.keys() <= {"k"}:
        return RRFRanker(params.get("k", RRF_K))
    if ranker_type == "weighted" and params.keys() == {"weights"}:
        return WeightedRanker(*params["weights"])
    raise ValueError(
        "ranker_type must be 'rrf', with ranker_params {'k': …} or none, or 'weighted', with {'weights': […]}, got "
        f"{ranker_type!r} with {dict(params)!r}. Use one of them."
    )
