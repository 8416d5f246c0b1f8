"""Translates LlamaIndex's `MetadataFilters` to the `Filter` classes of `splade_integrations.milvus`."""

from collections.abc import Collection

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from splade_integrations.milvus.filters import And, Compare, Filter, FilterError, Not, Or

__all__ = ["check_complete", "from_metadata_filters"]

_OPERATORS = {
    FilterOperator.EQ: "eq",
    FilterOperator.NE: "ne",
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
    FilterOperator.IN: "in",
    FilterOperator.NIN: "nin",
    FilterOperator.ANY: "any",
    FilterOperator.ALL: "all",
    FilterOperator.CONTAINS: "contains",
    FilterOperator.TEXT_MATCH: "text_match",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "text_match_insensitive",
    FilterOperator.IS_EMPTY: "is_empty",
}


def from_metadata_filters(filters: MetadataFilters, hidden: Collection[str] = ()) -> Filter:
    """Translate `MetadataFilters` to a `Filter`. A `MetadataFilters` is a group of filters, and groups can be nested.

    A group with the condition NOT is true if none of its filters is true. A group without filters is always true if its
    condition is AND, and is refused if its condition is OR or NOT.

    Args:
        filters: Filters with any operator and condition. A group without a condition has the condition AND.
        hidden: The metadata keys that filters cannot use, because the collection keeps other values under these keys.
    Raises:
        FilterError: A filter has no value, a filter uses a hidden key, or a group with OR or NOT has no filters. The
            message names the key, or the position of the group.

    Example:
        >>> tenant = MetadataFilter(key="tenant", value="a")
        >>> new = MetadataFilter(key="year", value=2020, operator=FilterOperator.GTE)
        >>> made = from_metadata_filters(MetadataFilters(filters=[tenant, new]))
        >>> made.matches({"tenant": "a", "year": 2024}), made.matches({"tenant": "b", "year": 2024})
        (True, False)
    """
    return _group(filters, "filters", hidden)


def check_complete(filters: MetadataFilters, name: str = "filters") -> None:
    """Raise an error if a group has no filters. A deletion with an empty group could delete every node.

    Raises:
        ValueError: A group is empty. The message names its position.
    """
    if not filters.filters:
        raise ValueError(
            f"{name} must hold at least one filter, got none. Nothing has been deleted. To delete all nodes, "
            "call clear()."
        )
    for position, one in enumerate(filters.filters):
        if isinstance(one, MetadataFilters):
            check_complete(one, f"{name}.filters[{position}]")


def _group(filters: MetadataFilters, name: str, hidden: Collection[str]) -> Filter:
    parts = [
        _group(one, f"{name}.filters[{position}]", hidden)
        if isinstance(one, MetadataFilters)
        else _compare(one, hidden)
        for position, one in enumerate(filters.filters)
    ]
    condition = filters.condition or FilterCondition.AND
    if condition == FilterCondition.AND:
        return And(*parts)
    if not parts:
        raise FilterError(
            f"{name} must hold at least one filter for condition {condition.value!r}, got none. Add a filter, "
            "or leave the group out."
        )
    return Or(*parts) if condition == FilterCondition.OR else Not(Or(*parts))


def _compare(one: MetadataFilter, hidden: Collection[str]) -> Filter:
    if one.key in hidden:
        raise FilterError(
            f"a filter must not ask for key {one.key!r} in this collection, got a filter with operator "
            f"{one.operator.value!r}. The collection keeps the source document's id under that key. To filter by "
            "source documents, use doc_ids. To filter by metadata of that name, add the nodes to a new collection."
        )
    if one.operator == FilterOperator.IS_EMPTY:  # LlamaIndex requires a value, but this operator ignores it
        return Compare(one.key, "is_empty")
    if one.value is None:
        raise FilterError(
            f"the filter on key {one.key!r} must have a value for operator {one.operator.value!r}, got None. To find "
            "nodes without this key, use FilterOperator.IS_EMPTY."
        )
    return Compare(one.key, _OPERATORS[one.operator], one.value)
