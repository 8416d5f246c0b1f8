"""Filters as `splade search` takes them: Milvus expressions in which `id` is the document's id."""

import re

__all__ = ["with_primary"]

# A string, a key in brackets, or a name. Only a name can be the document's id.
_TOKENS = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[A-Za-z_$][\w$]*""", re.DOTALL)


def with_primary(expr: str, primary: str, fields: frozenset[str]) -> str:
    """Return a Milvus expression in which the name of the primary field stands in place of `id`.

    Collections of `splade index` call that field `id`, but those of LangChain stores call it `pk`. There, Milvus would
    take `id` for a metadata key that no document has.

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
