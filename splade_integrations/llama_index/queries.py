"""Translates a LlamaIndex query to a search of a collection, and the hits of the search to a LlamaIndex result.

This module uses neither a Milvus client nor an encoder.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode, VectorStoreQueryResult

from splade_integrations.fusion import Fusion
from splade_integrations.llama_index.filters import from_metadata_filters
from splade_integrations.llama_index.nodes import node_of
from splade_integrations.llama_index.options import search_params_of
from splade_integrations.milvus.defaults import MOST_CANDIDATES, is_blank
from splade_integrations.milvus.filters import And, Compare, Filter
from splade_integrations.milvus.rows import Hit
from splade_integrations.milvus.schema import Side

__all__ = ["KEYWORDS", "Plan", "plan_of"]

Mode = VectorStoreQueryMode

# The keywords that the store's method `query` accepts.
KEYWORDS = (
    "fusion",
    "group_by",
    "milvus_partition_names",
    "milvus_search_config",
    "mmr_prefetch_factor",
    "mmr_prefetch_k",
    "mmr_threshold",
    "reranker",
    "string_expr",
    "timeout",
)
_FUSED = (Mode.HYBRID, Mode.SEMANTIC_HYBRID)
_MMR_PREFETCH_FACTOR = 4.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The search that a query asks for.

    Args:
        sides: The sides to search. A side is one kind of vector: "dense", "sparse" or "bm25".
        text: The question.
        embedding: The question's dense vector.
        filter: The condition that nodes must satisfy. A str is a Milvus expression.
        k: The largest number of nodes to return.
        fetch_k: The number of hits to ask Milvus for. Without MMR (maximal marginal relevance), it is k. With MMR, it
            can be more than k, and MMR then selects k of the hits.
        depth: The number of hits to fetch from each side before fusion. None means the default of `Collection.search`.
        mmr_threshold: For MMR, a number from 0 (only novelty counts) to 1 (only relevance counts). None means a search
            without MMR.
        fusion: How the hits of the sides are fused. None means reciprocal rank fusion.
        keywords: Further keywords of `Collection.search`.
    """

    sides: tuple[Side, ...]
    text: str
    embedding: list[float] | None
    filter: Filter | str | None
    k: int
    fetch_k: int
    depth: int | None = None
    mmr_threshold: float | None = None
    fusion: Fusion | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs_terms(self) -> bool:
        """Whether the sparse encoder must encode the question."""
        return "sparse" in self.sides and not is_blank(self.text)

    def queries(self, terms: dict[int, float] | None) -> dict[Side, Any]:
        """Return {side: the question in the form of this side}.

        Args:
            terms: The question as {token id: weight}, or None if the question was not encoded.
        """
        asked: dict[Side, Any] = {"dense": self.embedding, "sparse": terms, "bm25": self.text}
        return {side: asked[side] for side in self.sides}

    def search(self) -> dict[str, Any]:
        """Return the keywords for `Collection.search`."""
        return {
            "k": self.fetch_k,
            "depth": self.depth,
            "filter": self.filter,
            "with_dense": self.mmr_threshold is not None,
            **self.keywords,
        }

    def result(self, hits: Sequence[Hit]) -> VectorStoreQueryResult:
        """Return the hits as a LlamaIndex result."""
        scores = [hit.score for hit in hits]
        if self.mmr_threshold is not None and hits:
            scores, places = get_top_k_mmr_embeddings(
                self.embedding or [],
                [hit.dense or [] for hit in hits],
                similarity_top_k=self.k,
                mmr_threshold=self.mmr_threshold,
            )
            hits = [hits[place] for place in places]
        nodes = [node_of(replace(hit, dense=None)) for hit in hits]
        return VectorStoreQueryResult(nodes=nodes, similarities=scores, ids=[hit.id for hit in hits])


def plan_of(
    query: VectorStoreQuery,
    keywords: dict[str, Any],
    *,
    sides: Sequence[Side],
    hybrid: Callable[[], Fusion],
    primary_field: str,
    doc_id_field: str,
    metric: str,
    hidden: Collection[str] = (),
) -> Plan:
    """Return the search that a query asks for.

    Args:
        query: The query.
        keywords: The keywords that were given with the query. Only keywords in `KEYWORDS` are allowed.
        sides: The sides that the collection has.
        hybrid: A function that returns the fusion for the modes `hybrid` and `mmr`. It is called only in these modes.
        primary_field: The column that holds the node's id.
        doc_id_field: The column that holds the source document's id.
        metric: The metric of the dense side.
        hidden: The metadata keys that filters cannot use.
    Raises:
        TypeError: A keyword is unknown.
        ValueError: The mode is not supported, the query lacks a value that the mode needs, or the query has a value
            that the mode cannot use.
    """
    if unknown := sorted(keywords.keys() - set(KEYWORDS)):
        raise TypeError(
            f"a query must be given known keywords, got {unknown[0]!r}. Use one of these: {', '.join(KEYWORDS)}."
        )
    mode = VectorStoreQueryMode(query.mode)
    given = [name for name in ("fusion", "reranker") if keywords.get(name) is not None]
    if given and (len(given) == 2 or mode not in (Mode.HYBRID, Mode.MMR)):
        raise ValueError(
            f"at most one of fusion and reranker may be given, and only in mode 'hybrid' or 'mmr', got "
            f"{' and '.join(given)} in mode {mode.value!r}. Leave both out, or give one of them in mode 'hybrid'."
        )
    fusion = Fusion.of(keywords.get("fusion"))
    if fusion is None and mode in (Mode.HYBRID, Mode.MMR):
        fusion = hybrid()
    searched = _sides_of(mode, sides, fusion)
    _check_fields(query, mode)
    text, embedding = _question(query, mode, searched)
    fused = mode in _FUSED
    k = query.hybrid_top_k if fused and query.hybrid_top_k is not None else query.similarity_top_k
    threshold, fetch_k = _mmr(query, mode, keywords)
    config = keywords.get("milvus_search_config")
    if config and "dense" not in searched:
        raise ValueError(
            f"milvus_search_config must be given only in a mode that searches the dense side, got it in mode "
            f"{mode.value!r}. Leave it out."
        )
    return Plan(
        sides=searched,
        text=text,
        embedding=embedding,
        filter=_filter_of(query, keywords.get("string_expr"), primary_field, doc_id_field, hidden),
        k=k,
        fetch_k=k if fetch_k is None else fetch_k,
        depth=query.sparse_top_k,
        mmr_threshold=threshold,
        fusion=fusion if fusion is not None and set(fusion.sides) == set(searched) else None,
        keywords={
            "group_by": keywords.get("group_by"),
            "partition_names": keywords.get("milvus_partition_names"),
            "params": {"dense": search_params_of("milvus_search_config", config, metric)} if config else {},
            "timeout": keywords.get("timeout"),
        },
    )


def _sides_of(mode: VectorStoreQueryMode, sides: Sequence[Side], fusion: Fusion | None) -> tuple[Side, ...]:
    fused = cast("tuple[Side, ...]", tuple(sides) if fusion is None else fusion.sides)
    if fusion is not None and (unknown := [side for side in fused if side not in sides]):
        raise ValueError(
            f"a fusion must use only this store's sides ({', '.join(sides)}), got {unknown[0]!r}. Open the store with "
            "that side as well, or leave it out of the fusion."
        )
    wanted: dict[VectorStoreQueryMode, tuple[Side, ...]] = {
        Mode.DEFAULT: ("dense",) if "dense" in sides else ("sparse",) if "sparse" in sides else ("bm25",),
        Mode.SPARSE: ("sparse",),
        Mode.TEXT_SEARCH: ("bm25",) if "bm25" in sides else ("sparse",),
        Mode.HYBRID: fused if len(sides) > 1 else ("dense", "sparse"),
        Mode.SEMANTIC_HYBRID: ("dense", "sparse"),
        Mode.MMR: fused if "dense" in sides else ("dense",),
    }
    if mode not in wanted:
        raise ValueError(
            f"mode must be one of {', '.join(repr(one.value) for one in wanted)}, got {mode.value!r}. Choose one."
        )
    if missing := [side for side in wanted[mode] if side not in sides]:
        raise ValueError(
            f"mode {mode.value!r} must be used with a store that has a {missing[0]} side, got a store with only "
            f"{' and '.join(sides)}. Use mode 'default'."
        )
    return wanted[mode]


def _check_fields(query: VectorStoreQuery, mode: VectorStoreQueryMode) -> None:
    """Raise a ValueError if the query has a value that the mode would ignore."""
    if query.output_fields is not None:
        raise ValueError(
            f"output_fields must be None, got {query.output_fields}. Leave it out: a query always returns whole nodes."
        )
    if query.embedding_field is not None:
        raise ValueError(
            f"embedding_field of a query must be None, got {query.embedding_field!r}. Name the field when "
            "you open the store."
        )
    for name in ("alpha", "sparse_top_k", "hybrid_top_k"):
        if mode not in _FUSED and getattr(query, name) is not None:
            raise ValueError(
                f"{name} must be None in mode {mode.value!r}, got {getattr(query, name)}. Use mode 'hybrid', or leave "
                f"{name} out. Mode {mode.value!r} would ignore it."
            )


def _question(
    query: VectorStoreQuery, mode: VectorStoreQueryMode, sides: Sequence[Side]
) -> tuple[str, list[float] | None]:
    """Return the question and its dense vector.

    LlamaIndex does not embed blank questions, so the vector of a blank question may be None.
    """
    needed = "dense" not in sides if mode == Mode.MMR else any(side != "dense" for side in sides)
    if query.query_str is None and needed:
        raise ValueError(f"query_str must be given for mode {mode.value!r}, got None. Set it in the query.")
    text = query.query_str or ""
    compared = "dense" in sides or mode == Mode.MMR
    if query.query_embedding is None and compared and (query.query_str is None or not is_blank(text)):
        raise ValueError(
            f"query_embedding must be given for mode {mode.value!r}, got None. Embed the question with the model "
            "that embedded the nodes, or use mode 'sparse'."
        )
    return text, query.query_embedding


def _mmr(
    query: VectorStoreQuery, mode: VectorStoreQueryMode, keywords: Mapping[str, Any]
) -> tuple[float | None, int | None]:
    """Return the MMR threshold and the number of candidates in mode 'mmr', or (None, None) in other modes."""
    given = [name for name in KEYWORDS if name.startswith("mmr_") and keywords.get(name) is not None]
    if query.mmr_threshold is not None:
        given.append("mmr_threshold")
    if mode != Mode.MMR:
        if given:
            raise ValueError(
                f"{given[0]} must be given only in mode 'mmr', got it in mode {mode.value!r}. Leave it out."
            )
        return None, None
    if given.count("mmr_threshold") > 1 and query.mmr_threshold != keywords["mmr_threshold"]:
        raise ValueError(
            f"mmr_threshold must be given once, got {query.mmr_threshold} in the query and {keywords['mmr_threshold']} "
            "as a keyword. Drop one of them."
        )
    if {"mmr_prefetch_factor", "mmr_prefetch_k"} <= set(given):
        raise ValueError(
            "mmr_prefetch_k and mmr_prefetch_factor must not be given together, got both. Drop one of them."
        )
    threshold = next(
        (value for value in (query.mmr_threshold, keywords.get("mmr_threshold")) if value is not None), 0.5
    )
    if not 0 <= threshold <= 1:
        raise ValueError(f"mmr_threshold must be a number from 0 to 1, got {threshold}. Give 1 to ignore novelty.")
    factor = keywords.get("mmr_prefetch_factor") or _MMR_PREFETCH_FACTOR
    candidates = keywords.get("mmr_prefetch_k") or factor * query.similarity_top_k
    return threshold, max(min(int(candidates), MOST_CANDIDATES), query.similarity_top_k)


def _filter_of(
    query: VectorStoreQuery,
    string_expr: str | None,
    primary_field: str,
    doc_id_field: str,
    hidden: Collection[str],
) -> Filter | str | None:
    filters: list[Filter] = []
    if query.node_ids:  # [] means no restriction, because LlamaIndex's retrievers pass [] by default
        filters.append(Compare(primary_field, "in", list(query.node_ids), column=True))
    if query.doc_ids is not None:
        filters.append(Compare(doc_id_field, "in", list(query.doc_ids), column=True))
    if query.filters is not None:
        filters.append(from_metadata_filters(query.filters, hidden))
    if string_expr:
        if filters:
            raise ValueError(
                "string_expr must be given without filters, node_ids and doc_ids, got it with one or more of them. "
                "Put all conditions into string_expr, or leave string_expr out."
            )
        return string_expr
    return And(*filters) if filters else None
