"""Turn filters that are written as dicts, in LangChain's usual form, into trees of comparisons."""

from collections.abc import Mapping
from typing import Any

from splade_integrations.milvus.filters.json_values import OPERATORS, is_list
from splade_integrations.milvus.filters.text import FilterError
from splade_integrations.milvus.filters.tree import And, Compare, Filter, Not, Or

__all__ = ["from_dict"]

# The deepest nesting allowed in a dict filter. Recursive functions read the filter, and Python limits their depth.
_MOST_NESTED = 40
_JOINS = {"$and": And, "$or": Or}


def from_dict(conditions: Mapping[str, Any]) -> Filter:
    """Return the filter for a dict in LangChain's usual form.

    A key maps to a value (`{"tenant": "a"}`) or to a dict of operators (`{"year": {"$gte": 2000, "$lt": 2010}}`).
    `$and` and `$or` map to a list of dicts. `$not` in place of a key maps to a dict of conditions. `$not` under a key
    maps to a dict of operators. A document must satisfy all entries of a dict. The operators are those of `Compare`
    with a `$` in front: $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists and so on.

    Raises:
        FilterError: A key or operator does not have this form. The message names the key or operator.

    Example:
        >>> from_dict({"tenant": "a", "year": {"$gte": 2000}}).matches({"tenant": "a", "year": 1999})
        False
        >>> from_dict({"$not": {"tenant": {"$in": ["a", "b"]}}})
        Not(filter=Compare(key='tenant', operator='in', operand=('a', 'b'), column=False))
    """
    if _is_deep(conditions):
        raise FilterError(
            f"A dict filter must be nested at most {_MOST_NESTED} deep, got a deeper one. List conditions side by side."
        )
    if not isinstance(conditions, Mapping):
        raise FilterError(
            f"A dict filter must have only dicts as its conditions, got {type(conditions).__name__}. A Milvus "
            "expression cannot be a part of a dict: give it as the whole filter, as a str."
        )
    return _all_of([_condition(key, value) for key, value in conditions.items()])


def _is_deep(value: Any) -> bool:
    """Return whether lists and dicts are nested too deeply for recursive functions."""
    level = [value]
    for _ in range(_MOST_NESTED):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, Mapping) else outer if is_list(outer) else ())
        ]
        if not level:
            return False
    return True


def _condition(key: Any, value: Any) -> Filter:
    if key in _JOINS:
        if not is_list(value) or not value:
            raise FilterError(f"{key} must be given a list of one or more dicts, got {value!r}.")
        return _JOINS[key](*(from_dict(each) for each in value))
    if key == "$not":
        return Not(from_dict(value))
    if isinstance(key, str) and key.startswith("$"):
        raise FilterError(
            f"An operator without a key must be $and, $or or $not, got {key!r}. Write {{'a key': {{{key!r}: …}}}}."
        )
    if not isinstance(value, Mapping):
        return Compare(key, "eq", value)
    if not value:
        raise FilterError(f"The operators of {key!r} must not be empty, got {{}}. Write {{{key!r}: {{'$eq': value}}}}.")
    return _all_of([_operation(key, name, operand) for name, operand in value.items()])


def _operation(key: Any, name: Any, operand: Any) -> Filter:
    if name == "$not":
        if not isinstance(operand, Mapping):
            raise FilterError(
                f"$not on {key!r} must be given a dict of operators, got {operand!r}. To exclude one value, use $ne."
            )
        return Not(_condition(key, operand))
    operator = name.removeprefix("$") if isinstance(name, str) and name.startswith("$") else None
    if operator not in OPERATORS:
        known = ", ".join(f"${each}" for each in sorted(OPERATORS))
        raise FilterError(f"The operator on {key!r} must be one of $not, {known}, got {name!r}.")
    return Compare(key, operator, operand)


def _all_of(filters: list[Filter]) -> Filter:
    return filters[0] if len(filters) == 1 else And(*filters)
