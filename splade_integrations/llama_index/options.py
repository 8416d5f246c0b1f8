"""Translates options in the form of LlamaIndex's `MilvusVectorStore` to the arguments of a collection."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.fusion import RRF_K
from splade_integrations.milvus.schema import SIDES, Side

with require_extra("llama-index", module=__name__):
    from pymilvus import RRFRanker, WeightedRanker

__all__ = [
    "CONNECTION",
    "RANKERS",
    "REFUSED",
    "check_connection",
    "check_metric",
    "index_of",
    "metric_of",
    "ranker_of",
    "search_params_of",
    "typed_columns",
]

# Options of `MilvusVectorStore` that this store does not have, with the reasons.
REFUSED = {
    "index_management": "a collection is always made with its indexes",
    "output_fields": "a node is always returned whole",
}
# The arguments of `MilvusClient` other than uri, token and timeout.
CONNECTION = (
    "alias",
    "ca_pem_path",
    "client_key_path",
    "client_pem_path",
    "db_name",
    "keep_alive",
    "password",
    "secure",
    "server_name",
    "server_pem_path",
    "user",
)
RANKERS = ("RRFRanker", "WeightedRanker")

_METRICS = {"cosine": "COSINE", "ip": "IP", "l2": "L2", "euclidean": "L2"}


def check_connection(options: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise a TypeError if an option is neither an option of the store nor an argument of the connection.

    Args:
        options: The options that the store itself does not have. Each must be one of `CONNECTION`.
        known: The names of the store's options, for the error message.
    """
    for name in sorted(options.keys() - set(CONNECTION)):
        if name in REFUSED:
            raise TypeError(f"{name} must not be given, got {options[name]!r}. Leave it out: {REFUSED[name]}.")
        similar = get_close_matches(name, [*known, *CONNECTION], 1)
        advice = (
            f"Did you mean {similar[0]!r}?"
            if similar
            else f"Use one of these: {', '.join(sorted([*known, *CONNECTION]))}."
        )
        raise TypeError(f"the store must be given known options, got {name!r}. {advice}")


def typed_columns(
    fields: Mapping[str, Any] | None, names: Sequence[str] | None, types: Sequence[Any] | None
) -> dict[str, Any]:
    """Join the store's own option for typed columns with LlamaIndex's two options, and return {metadata key: type}.

    A typed column is a separate field for one metadata key.

    Args:
        fields: The option `metadata_fields`.
        names: The option `scalar_field_names`.
        types: The option `scalar_field_types`.
    Raises:
        ValueError: The number of names differs from the number of types.
    """
    names, types = names or [], types or []
    if len(names) != len(types):
        raise ValueError(
            f"scalar_field_types must have one type for each of {len(names)} scalar_field_names, got {len(types)}. "
            "Give one for each name, or use metadata_fields={'year': int}."
        )
    return {**dict(zip(names, types, strict=True)), **(fields or {})}


def metric_of(name: str) -> str:
    """Return Milvus's name of a metric.

    Raises:
        ValueError: The name, in upper or lower case, is not "COSINE", "IP", "L2" or "euclidean".
    """
    if name.lower() not in _METRICS:
        raise ValueError(f"similarity_metric must be 'COSINE', 'IP' or 'L2', got {name!r}. Choose one of them.")
    return _METRICS[name.lower()]


def index_of(name: str, config: Mapping[str, Any] | None, metric: str) -> dict[str, Any]:
    """Return the settings of an index in pymilvus's form, which separates the index type from the parameters.

    Args:
        name: The option's name, for error messages.
        config: An index in LlamaIndex's flat form: {"index_type": "HNSW", "M": 8}. None or an empty dict means the
            store's default index.
        metric: The metric of the indexed field.
    Raises:
        ValueError: `config` names another metric, or a field.

    Example:
        >>> index_of("index_config", {"index_type": "HNSW", "M": 8}, "COSINE")
        {'index_type': 'HNSW', 'params': {'M': 8}}
    """
    config = dict(config or {})
    check_metric(name, config, metric)
    if "field_name" in config:
        raise ValueError(
            f"{name} must not name a field, got {config['field_name']!r}. Name the field with embedding_field or "
            "sparse_embedding_field."
        )
    own = {key: config.pop(key) for key in ("index_type", "index_name") if key in config}
    params = {**config.pop("params", {}), **config}
    return own | ({"params": params} if own or params else {})


def search_params_of(name: str, config: Mapping[str, Any] | None, metric: str) -> dict[str, Any]:
    """Return search parameters in pymilvus's form.

    Args:
        name: The option's name, for error messages.
        config: The flat form {"nprobe": 10}, or Milvus's form {"params": {"nprobe": 10}}. Both forms are accepted,
            because LlamaIndex's store accepts only the flat form in some modes, and only Milvus's form in other modes.
        metric: The metric of the searched field.
    Raises:
        ValueError: `config` names another metric.

    Example:
        >>> search_params_of("search_config", {"nprobe": 10}, "COSINE")
        {'params': {'nprobe': 10}}
    """
    config = dict(config or {})
    check_metric(name, config, metric)
    params = {**config.pop("params", {}), **config}
    return {"params": params} if params else {}


def check_metric(name: str, config: dict[str, Any], metric: str) -> None:
    """Remove the metric from `config`. Raise a ValueError if this metric differs from `metric`, the field's metric."""
    found = config.pop("metric_type", metric)
    if found != metric:
        raise ValueError(
            f"the metric_type of {name} must be {metric!r}, the metric of its field, got {found!r}. Leave it out, and "
            "set the dense field's metric with similarity_metric."
        )


def ranker_of(
    name: str, params: Mapping[str, Any], sides: Sequence[Side], alpha: float | None = None
) -> RRFRanker | WeightedRanker | None:
    """Return the ranker that fuses the hits of several sides, or None for reciprocal rank fusion with k = 60.

    A side is one kind of vector: "dense", "sparse" or "bm25".

    Args:
        name: "RRFRanker" or "WeightedRanker".
        params: {"k": 60} for "RRFRanker", or {"weights": [dense, sparse, bm25]} for "WeightedRanker". Without BM25, two
            weights are enough.
        sides: The sides whose hits are fused.
        alpha: The query's alpha, or None. If alpha is given, the dense side has the weight alpha, and the sparse side
            has the weight 1 - alpha.
    Raises:
        ValueError: The name or a parameter is unknown, or a weight is missing or not from 0 to 1. Or alpha is given for
            three sides, or for "RRFRanker", which has no weights.
    """
    if name not in RANKERS:
        raise ValueError(f"hybrid_ranker must be 'RRFRanker' or 'WeightedRanker', got {name!r}. Choose one of them.")
    known = "k" if name == "RRFRanker" else "weights"
    if unknown := sorted(params.keys() - {known}):
        raise ValueError(
            f"hybrid_ranker_params must hold only {known!r} for hybrid_ranker={name!r}, got {unknown[0]!r}. "
            f"Leave {unknown[0]!r} out."
        )
    if name == "RRFRanker":
        if alpha is not None:
            raise ValueError(
                f"alpha must be None with hybrid_ranker='RRFRanker', got {alpha}. Open the store with "
                "hybrid_ranker='WeightedRanker', or leave alpha out. RRFRanker fuses ranks and has no weights."
            )
        return RRFRanker(params["k"]) if params.get("k", RRF_K) != RRF_K else None
    if alpha is None:
        weights = dict(zip(SIDES, params.get("weights", [1.0] * len(SIDES)), strict=False))
    else:
        weights = {"dense": alpha, "sparse": 1 - alpha}
    if not all(side in weights and 0 <= weights[side] <= 1 for side in sides):
        raise ValueError(
            f"the weights of hybrid_ranker='WeightedRanker' must be one number from 0 to 1 for each side "
            f"({', '.join(sides)}), got {list(weights.values())}. Change hybrid_ranker_params, or the query's alpha. "
            "Alpha sets only the weights of dense and sparse."
        )
    return WeightedRanker(*(weights[side] for side in sides))
