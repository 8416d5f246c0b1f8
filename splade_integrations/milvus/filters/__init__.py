"""One filter language: what metadata must be, said once and asked of each of Milvus's engines. Knows no client."""

from splade_integrations.milvus.filters.plan import Plan, matching_keys
from splade_integrations.milvus.filters.text import Engine, Layout, ids_expr, quote
from splade_integrations.milvus.filters.tree import OPERATORS, And, Compare, Filter, FilterError, Not, Or, from_dict

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
    "matching_keys",
    "quote",
]
