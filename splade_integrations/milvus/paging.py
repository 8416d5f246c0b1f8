"""Read a collection page by page, in ascending order of its primary keys. This module makes no calls itself.

pymilvus's iterator cannot be used, because it does not escape keys: after a key with a backslash, it returns the first
page again and again.
"""

from collections.abc import Sequence
from typing import Any

from splade_integrations.milvus.calls import Call
from splade_integrations.milvus.filters import quote

__all__ = ["IN_KEY_ORDER", "ROWS_PER_PAGE", "key_range", "next_key", "query_call"]

ROWS_PER_PAGE = 1000
# With these two parameters, Milvus returns the smallest keys first. pymilvus's iterator also sends them.
IN_KEY_ORDER = {"iterator": "True", "reduce_stop_for_best": "True"}


def key_range(primary: str, after: Any = None, last: Any = None) -> str:
    """Return the expression for the rows whose keys are greater than `after` and at most `last`. None means no bound.

    Example:
        >>> print(key_range("pk", "a", "m"))
        pk > "a" and pk <= "m"
        >>> key_range("id", last=7), key_range("id")
        ('id <= 7', '')
    """
    bounds = [(">", after), ("<=", last)]
    return " and ".join(
        f"{primary} {sign} {quote(key) if isinstance(key, str) else key}" for sign, key in bounds if key is not None
    )


def next_key(rows: Sequence[Any], primary: str) -> Any:
    """Return the key after which the next page starts, or None if this page is the last."""
    return rows[-1][primary] if len(rows) == ROWS_PER_PAGE else None


def query_call(
    name: str,
    expr: str,
    output_fields: Sequence[str],
    *,
    limit: int = ROWS_PER_PAGE,
    partition_names: Sequence[str] | None = None,
    **options: Any,
) -> Call:
    """Return the call that reads the rows that match an expression.

    Args:
        name: The collection's name, or an alias.
        expr: The Milvus expression.
        output_fields: The fields to read.
        limit: The largest number of rows.
        partition_names: The partitions to read. None means all partitions.
        **options: Further arguments of `MilvusClient.query`, such as `IN_KEY_ORDER`.
    """
    return Call(
        "query",
        {
            "collection_name": name,
            "filter": expr,
            "output_fields": list(output_fields),
            "limit": limit,
            **({"partition_names": list(partition_names)} if partition_names else {}),
            **options,
        },
    )
