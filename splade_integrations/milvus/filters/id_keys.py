"""Find metadata keys with names like "id" in a filter. The filter's author may mean the documents' ids by such keys."""

from __future__ import annotations

import re
from collections.abc import Iterable

from splade_integrations.milvus.filters.text import Layout
from splade_integrations.milvus.filters.tree import Compare, Filter, Not

# LangChain's stores call the primary field "pk", and LlamaIndex's stores and `splade index` call it "id".
_USUAL = ("pk", "id")
# Matches a quoted string, such as "id" in metadata["id"], or a name.
_TOKENS = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[A-Za-z_$][\w$]*""", re.DOTALL)


def keys_like_ids(filter: Filter | str, layout: Layout) -> list[str]:
    """Return the metadata keys in a filter that are named like a primary field, in alphabetical order.

    Args:
        filter: The filter. A str is a Milvus expression.
        layout: The collection's fields.

    Example:
        >>> keys_like_ids(Compare("pk", "eq", "a") & Compare("year", "gt", 2000), Layout(primary="id"))
        ['pk']
        >>> keys_like_ids('id == "a" or year > 2000', Layout(primary="id"))
        []
    """
    if isinstance(filter, str):
        asked, taken = set(_TOKENS.findall(filter)), {layout.primary}
    else:
        asked, taken = {one.key for one in compares_in(filter) if not one.column}, set()
    return sorted(asked & {*_USUAL, layout.primary} - taken - layout.columns.keys() - layout.own.keys())


def compares_in(filter: Filter) -> Iterable[Compare]:
    """Yield all comparisons in a filter."""
    if isinstance(filter, Compare):
        yield filter
    for each in getattr(filter, "filters", ()) or ([filter.filter] if isinstance(filter, Not) else []):
        yield from compares_in(each)
