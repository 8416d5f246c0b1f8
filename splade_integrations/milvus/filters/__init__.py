"""Filters over metadata that mean the same on every engine: milvus-lite 2, milvus-lite 3 and Milvus servers.

This package translates a filter into each engine's expressions. It needs no client.
"""

from splade_integrations.milvus.filters.plan import Plan, make_plan, matching_keys, to_expr
from splade_integrations.milvus.filters.text import Engine, FilterError, Layout, ids_expr, quote
from splade_integrations.milvus.filters.tree import OPERATORS, And, Compare, Filter, Not, Or, from_dict

__all__ = [
    "OPERATORS",
    "And",
    "Compare",
    "Engine",
    "Filter",
    "FilterError",
    "Layout",
    "Not",
    "Or",
    "Plan",
    "from_dict",
    "ids_expr",
    "make_plan",
    "matching_keys",
    "quote",
    "to_expr",
]
