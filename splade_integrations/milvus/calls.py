"""Descriptions of a search (`Search`) and of one call of a Milvus client (`Call`). This module needs no client."""

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
    """One call of a client: the name of a `MilvusClient` method, and its keyword arguments."""

    method: str
    arguments: Mapping[str, Any]


# A conversation is a generator. It yields the calls to make, and receives the answer to each call. So the same code can
# serve sync and async clients. T is the type of the generator's result.
Conversation = Generator[Call, Any, T]


@dataclass(frozen=True, kw_only=True)
class Search:
    """What to search for, and how.

    Args:
        sides: {side: its query}. A side is a kind of vector in the collection. The query is a vector for "dense",
            {token id: weight} for "sparse", and a text for "bm25". A side is not searched if its query is None, has no
            terms, or is a blank text.
        k: The largest number of documents to return.
        depth: The number of hits to fetch from each side before fusion. None means `defaults.candidates(k)`.
        filter: The condition that documents must satisfy. A str is a Milvus expression.
        params: {side: search parameters}. They override the search parameters of the `Schema`.
        ranker: A `Fusion` of these sides, a pymilvus ranker, or a pymilvus rerank function. None means reciprocal rank
            fusion with the constant 60.
        group_by: A metadata key, or a column that the caller has added to the schema. Documents with the same value
            in it form a group, and only the best document of each group is returned. Each document without a value is
            a group of its own.
        partition_names: The partitions to search.
        with_dense: Whether to return dense vectors as well.
        ids_only: Whether to return only ids and scores, without texts and metadata.
        timeout: The time limit for each call, in seconds.
        options: Further arguments of `MilvusClient.search`. `check_search_options` refuses unknown arguments.
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
        known: The names of the options that the caller's own search method accepts. The message lists them as well.
    """
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        raise TypeError(
            f"a search must be given known options, got {unknown[0]!r}. Use one of these: "
            f"{', '.join(sorted({*known, *_OPTIONS}))}."
        )


def as_filter(value: Filter | Mapping[str, Any] | str | None) -> Filter | str | None:
    """Return a filter in the form that `Search` accepts.

    A dict becomes a `Filter`. An empty dict or a blank str becomes None. Any other filter is returned unchanged.

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
