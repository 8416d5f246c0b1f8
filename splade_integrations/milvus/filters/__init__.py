"""Filters over metadata that mean the same on every engine: milvus-lite 2, milvus-lite 3 and Milvus servers.

This package translates a filter into each engine's expressions. It needs no client.
"""

from splade_integrations.milvus.filters.dicts import from_dict
from splade_integrations.milvus.filters.id_keys import keys_like_ids
from splade_integrations.milvus.filters.json_values import OPERATORS
from splade_integrations.milvus.filters.plan import Plan, make_plan, matching_keys, to_expr
from splade_integrations.milvus.filters.text import Engine, FilterError, Layout, ids_expr, quote
from splade_integrations.milvus.filters.tree import And, Compare, Filter, Not, Or

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
    "keys_like_ids",
    "make_plan",
    "matching_keys",
    "quote",
    "to_expr",
]
