"""The filters of `splade search`: Milvus expressions in which `id` means the document's id."""

import re

__all__ = ["with_primary"]

# Matches a quoted string or a name. Strings are matched as well, so that the "id" in metadata["id"] is not mistaken for
# the name `id`, which means the document's id.
_TOKENS = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[A-Za-z_$][\w$]*""", re.DOTALL)


def with_primary(expr: str, primary: str, fields: frozenset[str]) -> str:
    """Return a Milvus expression in which `id` is replaced by the name of the primary field.

    In a collection of `splade index`, the primary field is called `id`. In a collection of a LangChain store, the
    primary field is called `pk`, and Milvus would take `id` for a metadata key that no document has.

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
