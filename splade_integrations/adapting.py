"""Which encoder does an adapter serve? The one it is given, or one that it loads by name.

Knows no framework, and torch only once a model is to be loaded.
"""

from typing import Any

from splade_integrations.sparse import SparseEncoder

__all__ = ["resolve_encoder"]


def resolve_encoder(encoder: SparseEncoder | None, model_name: str | None, options: dict[str, Any]) -> SparseEncoder:
    """Return `encoder`, or load the model of that name.

    Args:
        encoder: Any object with `encode_documents` and `encode_queries`.
        model_name: What `SpladeEncoder` takes. Give this or `encoder`.
        options: Further keywords of `SpladeEncoder`, which refuses those it does not know.
    Raises:
        TypeError: Neither or both are given, options come with an encoder, or it lacks a method.

    Example:
        >>> resolve_encoder(None, None, {})
        Traceback (most recent call last):
        TypeError: encoder or model_name must be given, got neither. Pass encoder=SpladeEncoder(…) or model_name='…'.
    """
    if encoder is None:
        if model_name is None:
            raise TypeError(
                "encoder or model_name must be given, got neither. Pass encoder=SpladeEncoder(…) or model_name='…'."
            )
        from splade_integrations.encoder import SpladeEncoder

        return SpladeEncoder(model_name, **options)
    if model_name is not None or options:
        extra = ", ".join((["model_name"] if model_name is not None else []) + sorted(options))
        raise TypeError(
            f"encoder must be given alone, got {extra} as well. Set options where the encoder is made, or pass "
            "model_name with the options and no encoder."
        )
    missing = [name for name in ("encode_documents", "encode_queries") if not callable(getattr(encoder, name, None))]
    if missing:
        raise TypeError(
            f"encoder must have encode_documents and encode_queries, got {type(encoder).__name__} without "
            f"{' and '.join(missing)}. Pass a SpladeEncoder, or model_name='…' to load one."
        )
    return encoder
