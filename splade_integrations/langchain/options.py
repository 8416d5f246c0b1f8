"""Translates a store's options to connection arguments, a collection's schema, and an embedding for each side.

A side is one kind of vector in the collection: "dense", "sparse" or "bm25". The options have the same names as in
langchain-milvus, so `HybridMilvus` can replace `langchain_milvus.Milvus`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from typing import Any

from splade_integrations.langchain.interface import BaseSparseEmbedding
from splade_integrations.milvus.schema import Schema, Side

__all__ = ["by_side", "connection_arguments", "make_schema", "refuse", "sides_of"]

_DEFAULT_URI = "http://localhost:19530"  # pymilvus's default

_OPTION_NAMES = {
    "text_field": "text_field",
    "dense_field": "vector_field",
    "sparse_field": "vector_field",
    "bm25_field": "bm25_field",
}
_REFUSED = {
    "builtin_function": "For Milvus's BM25 use bm25=True.",
    "vector_schema": "New collections store float32 vectors. To use existing fields, name them with vector_field.",
}


def sides_of(embeddings: Any) -> dict[Side, Any]:
    """Return the embeddings as {side: embedding}. Each side is "dense" or "sparse".

    Args:
        embeddings: A list of a dense embedding and a sparse embedding, in this order, or a single embedding.
    Raises:
        TypeError: The number, the types or the order of the embeddings is wrong.
    """
    given = list(embeddings) if isinstance(embeddings, list | tuple) else [embeddings]
    sparse = [isinstance(one, BaseSparseEmbedding) for one in given]
    dense = [not is_sparse and hasattr(one, "embed_query") for one, is_sparse in zip(given, sparse, strict=True)]
    if (
        len(given) in (1, 2)
        and all(map(any, zip(dense, sparse, strict=True)))
        and sparse in ([False, True], [False], [True])
    ):
        return {"sparse" if is_sparse else "dense": one for one, is_sparse in zip(given, sparse, strict=True)}
    found = ", ".join(type(one).__name__ for one in given) or "none"
    advice = "Swap them." if sparse == [True, False] else "Make the sparse one with SpladeSparseEmbedding(encoder=…)."
    raise TypeError(
        "embeddings must be a dense embedding (of type Embeddings), a sparse embedding (a SpladeSparseEmbedding), or "
        f"a list of both in this order, got {found}. {advice}"
    )


def by_side(value: Any, sides: Sequence[Side], name: str) -> dict[Side, Any]:
    """Return the values of an option that has one value for each side, as {side: value}.

    Args:
        value: A list with one value for each side, in the order of `sides`. If there is only one side, a value without
            a list is also allowed. None means that the option is not given.
        sides: The store's sides: some of "dense", "sparse" and "bm25".
        name: The option's name, for error messages.
    Raises:
        ValueError: The number of values differs from the number of sides.
    """
    if value is None:
        return {}
    values = list(value) if isinstance(value, list | tuple) else [value]
    if len(values) != len(sides):
        raise ValueError(
            f"{name} must be a list with one item for each side ({', '.join(sides)}), got {value!r}. Give a list of "
            f"length {len(sides)}."
        )
    return dict(zip(sides, values, strict=True))


def connection_arguments(
    uri: str | PathLike[str] | None,
    host: str | None,
    port: int | str | None,
    arguments: Mapping[str, Any] | None,
    **named: Any,
) -> dict[str, Any]:
    """Return the arguments of `MilvusClient`, including the uri.

    Args:
        uri: A milvus-lite file or a server.
        host: The server's host, instead of a uri.
        port: The server's port. The default is 19530.
        arguments: The option `connection_args`.
        **named: Connection arguments that are also options of the store, such as `token`.
    Raises:
        TypeError: An argument is given twice, with different values. Or a uri is given together with a host, a port or
            an address.
    """
    joined = {key: value for key, value in (arguments or {}).items() if value is not None}
    for name, value in {"uri": uri, "host": host, "port": port, **named}.items():
        if value is None:
            continue
        value = fspath(value) if name == "uri" else value
        if joined.setdefault(name, value) != value:
            raise TypeError(
                f"{name} must be given once, got one value as an option and another in connection_args. Drop one."
            )
    host, port, address = joined.pop("host", None), joined.pop("port", None), joined.pop("address", None)
    if host is not None or port is not None:
        address = f"{host or 'localhost'}:{port or 19530}"
    if address is not None:
        if joined.get("uri"):
            raise TypeError(
                f"uri must be given without host, port and address, got uri {joined['uri']!r} and address {address!r}. "
                "Drop one of them."
            )
        joined["uri"] = f"{'https' if joined.get('secure') else 'http'}://{address}"
    joined["uri"] = fspath(joined.get("uri") or _DEFAULT_URI)  # "" means pymilvus's default, not a file
    return joined


def make_schema(
    sides: Sequence[Side],
    *,
    vector_field: str | Sequence[str] | None,
    bm25_field: str | None,
    index_params: Any,
    search_params: Any,
    metadata_fields: Mapping[str, Any] | None,
    metadata_schema: Mapping[str, Any] | None,
    **fields: Any,
) -> Schema:
    """Return the schema that a store's options ask for.

    Args:
        sides: "dense", "sparse", or both. If `bm25_field` is given, the schema also has the side "bm25".
        vector_field: The name of the vector field, or a list of one name for each side, in the order of `sides`.
        bm25_field: The name of the field for BM25's vectors, or None for no BM25 side.
        index_params: A list with the index parameters of each side. The parameters of BM25 come last.
        search_params: A list with the search parameters of each side. The parameters of BM25 come last.
        metadata_fields: {metadata key: type} for each key that gets a typed column, that is, a separate field.
        metadata_schema: The same as `metadata_fields`, under the name that langchain-milvus uses.
        **fields: Further arguments of `Schema`.
    """
    names = {"dense": "dense", "sparse": "sparse", **by_side(vector_field, sides, "vector_field")}
    every: list[Side] = [*sides, *(["bm25"] if bm25_field else [])]  # type: ignore[list-item]  # "bm25" is a Side
    indexes = by_side(index_params, every, "index_params")
    return Schema(
        dense_field=names["dense"] if "dense" in sides else None,
        sparse_field=names["sparse"] if "sparse" in sides else None,
        bm25_field=bm25_field,
        metadata_fields={**(metadata_schema or {}), **(metadata_fields or {})},
        metric_type=indexes.get("dense", {}).get("metric_type", "COSINE"),
        index_params={str(side): value for side, value in indexes.items()},
        search_params={str(side): value for side, value in by_side(search_params, every, "search_params").items()},
        option_names=_OPTION_NAMES,
        **fields,
    )


def refuse(unknown: Mapping[str, Any], what: Callable[..., Any]) -> None:
    """Raise a TypeError if there are unknown options.

    Args:
        unknown: The unknown options.
        what: The class or method that was called with these options.
    """
    if not unknown:
        return
    name = min(unknown)
    there = ", ".join(option for option in inspect.signature(what).parameters if option not in ("self", "unknown"))
    raise TypeError(
        f"{what.__name__} must be given known options, got {name!r}. "
        f"{_REFUSED.get(name, f'Use one of these: {there}.')}"
    )
