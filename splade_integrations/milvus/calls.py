"""`Search`, which describes a search, and `Call`, which describes one call of a client. This module needs no client."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from splade_integrations.milvus.filters import Filter, from_dict
from splade_integrations.milvus.schema import Side

__all__ = ["Call", "Conversation", "Search", "as_filter", "check_search_options"]

T = TypeVar("T")

_OPTIONS = ("consistency_level", "guarantee_timestamp", "ignore_growing", "offset", "round_decimal")


@dataclass(frozen=True)
class Call:
    """One call of a client: the name of a `MilvusClient` method, and the keyword arguments."""

    method: str
    arguments: Mapping[str, Any]


# A conversation yields the calls to make, and is sent the answer to each call. T is the type of its result.
Conversation = Generator[Call, Any, T]


@dataclass(frozen=True, kw_only=True)
class Search:
    """What to search for, and how.

    Args:
        sides: {side: its query}. The query is a vector for "dense", {token id: weight} for "sparse", and a text for
            "bm25". A side is left out if its query is None, has no terms, or is a blank text.
        k: The largest number of documents to return.
        depth: The number of hits to fetch from each side before fusion. None means `candidates(k)`.
        filter: The condition that documents must satisfy. A str is a Milvus expression.
        params: {side: search parameters}. They override those of the `Schema`.
        ranker: A `Fusion` of these sides, or a pymilvus ranker or rerank function. None means reciprocal rank fusion
            with the constant 60.
        group_by: A metadata key, or one of the caller's additional columns. Of the documents with the same value, only
            the best is returned. Documents without a value are not grouped.
        partition_names: The partitions to search.
        with_dense: Whether to return dense vectors as well.
        ids_only: Whether to return only ids and scores, without texts and metadata.
        timeout: The time limit for each call, in seconds.
        options: Further arguments of `MilvusClient.search`. `check_search_options` refuses unknown ones.
    """

    sides: Mapping[Side, Any]
    k: int = 4
    depth: int | None = None
    filter: Filter | str | None = None
    params: Mapping[Side, Mapping[str, Any]] = field(default_factory=dict)
    ranker: Any = None
    group_by: str | None = None
    partition_names: Sequence[str] | None = None
    with_dense: bool = False
    ids_only: bool = False
    timeout: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def check_search_options(options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise a TypeError if an option is not one of Milvus's search options.

    Args:
        options: The options to pass on to Milvus, by name.
        known: The names of the options that the caller's own search method takes. The message lists them as well.
    """
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        raise TypeError(
            f"a search must be given known options, got {unknown[0]!r}. Use one of these: "
            f"{', '.join(sorted({*known, *_OPTIONS}))}."
        )


def as_filter(value: Filter | Mapping[str, Any] | str | None) -> Filter | str | None:
    """Convert a dict to a `Filter`, and an empty dict or a blank str to None. Return any other filter unchanged.

    Raises:
        TypeError: The value is not a filter.
        ValueError: The dict does not have the form of a filter.
    """
    if isinstance(value, Mapping):
        return from_dict(value) if value else None
    if isinstance(value, str):
        return value if value.strip() else None
    if value is None or isinstance(value, Filter):
        return value
    raise TypeError(
        f"a filter must be a dict, a str with a Milvus expression, or None, got {type(value).__name__}. Give a dict "
        "such as {'tenant': 'a', 'year': {'$gte': 2000}}."
    )
