"""What a Milvus collection needs for hybrid retrieval to be right, in one place for both frameworks' stores.

Index and search parameters, candidates a side, reciprocal rank fusion, placeholders for empty vectors.
Needs pymilvus; knows neither LangChain, nor LlamaIndex, nor an encoder.
"""

import importlib.metadata
from typing import Any

from splade_integrations.dependencies import check_installed, require_extra
from splade_integrations.errors import OptionalDependencyError
from splade_integrations.milvus.defaults import (
    MAX_TEXT_BYTES,
    MOST_CANDIDATES,
    RRF_K,
    candidates,
    check_varchar,
    cut_text,
    document_terms,
    query_terms,
)

with require_extra("milvus", module=__name__):
    from pymilvus import AnnSearchRequest, RRFRanker

__all__ = [
    "MAX_TEXT_BYTES",
    "MOST_CANDIDATES",
    "RRF_K",
    "candidates",
    "check_varchar",
    "cut_text",
    "dense_index",
    "hybrid_request",
    "insert_replaces",
    "is_lite",
    "lite_version",
    "searchable",
    "sparse_index",
    "storable",
]


def lite_version(uri: str) -> str:
    """Version of milvus-lite where `uri` names one of its files, "" where it names a server.

    Raises:
        OptionalDependencyError: The milvus-lite installed is missing or known to score wrongly.
    """
    if "://" in uri and not uri.startswith("file:"):
        return ""
    try:
        version = importlib.metadata.version("milvus-lite")
    except importlib.metadata.PackageNotFoundError as err:
        raise OptionalDependencyError(
            f"The database file {uri!r} needs milvus-lite. Install it with: pip install 'splade-integrations[milvus]'."
        ) from err
    check_installed("milvus-lite")
    return version


def is_lite(uri: str) -> bool:
    """Whether `uri` names a milvus-lite file rather than a server. Raises as `lite_version`."""
    return lite_version(uri) != ""


def insert_replaces(uri: str) -> bool:
    """Whether to replace rows by `insert`, not `upsert`: on milvus-lite 3.

    Its insert replaces the row that has the same id; its upsert keeps that row's dynamic fields, such as metadata keys
    that the new row lacks, and filters go on finding it by them.
    """
    return lite_version(uri).startswith("3.")


def dense_index(uri: str, metric_type: str = "COSINE") -> dict[str, Any]:
    """Index of the dense field: exact on milvus-lite, whose collections are small; the server's own choice there."""
    return {"index_type": "FLAT" if is_lite(uri) else "AUTOINDEX", "metric_type": metric_type, "params": {}}


def sparse_index(uri: str) -> dict[str, Any]:
    """Index of the sparse field: every term kept, inner product, the one metric that SPLADE is trained for."""
    return {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP", "params": {}}


def storable(row: dict[int, float]) -> dict[int, float]:
    """Return `row`, or if it has no term a placeholder that Milvus stores and no query finds."""
    return document_terms(row, "a text")


def searchable(row: dict[int, float]) -> dict[int, float]:
    """Return `row`, or if it has no term a placeholder that finds nothing."""
    return query_terms(row, "a text")


def hybrid_request(
    sides: list[tuple[str, Any, dict[str, Any]]],
    *,
    k: int,
    depth: int | None = None,
    expr: str = "",
    ranker: Any = None,
) -> dict[str, Any]:
    """The arguments of `MilvusClient.hybrid_search` that make it right, beside collection and output fields.

    Args:
        sides: Field, vector and search parameters of each side. Without a metric_type there Milvus takes the index's.
        k: Most hits to return.
        depth: Hits to fetch from each side. None takes `candidates(k)`.
        expr: A filter; it binds every side.
        ranker: A ranker, or a rerank function, of pymilvus. None is reciprocal rank fusion: each side adds
            1 / (60 + rank). Milvus's default, a weighted sum, flattens SPLADE scores. It is `RRFRanker`, as milvus-lite
            2 and servers before 2.6 take no rerank function.

    Source:
        Cormack et al., Reciprocal Rank Fusion outperforms Condorcet, SIGIR 2009.
    """
    depth = depth or candidates(k)
    return {
        "reqs": [AnnSearchRequest([vector], field, param, depth, expr) for field, vector, param in sides],
        "ranker": ranker or RRFRanker(RRF_K),
        "limit": k,
    }
