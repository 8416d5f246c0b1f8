"""Filters as `splade search` takes them: Milvus expressions in which `id` is the document's id."""

import re

__all__ = ["with_primary"]

# Matches a string, such as the key in metadata["id"], or a name. Only a name can stand for the document's id.
_TOKENS = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[A-Za-z_$][\w$]*""", re.DOTALL)


def with_primary(expr: str, primary: str, fields: frozenset[str]) -> str:
    """Return a Milvus expression in which `id` is replaced by the name of the primary field.

    Collections of `splade index` call the primary field `id`, but collections of LangChain stores call it `pk`. In
    collections of LangChain stores, Milvus would take `id` for a metadata key that no document has.

    Args:
        expr: The expression.
        primary: The name of the primary field.
        fields: The names of all fields. If one of them is `id`, the expression is returned unchanged.

    Example:
        >>> print(with_primary('id != "id" and metadata["id"] > 3', "pk", frozenset({"pk", "text", "metadata"})))
        pk != "id" and metadata["id"] > 3
    """
    if "id" in fields:
        return expr
    return _TOKENS.sub(lambda found: primary if found[0] == "id" else found[0], expr)
