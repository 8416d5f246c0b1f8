"""Documents on their way into a store: checked, embedded together, and made rows. Knows no client."""

from collections.abc import Mapping, Sequence
from typing import Any

from splade_integrations.milvus.defaults import document_terms
from splade_integrations.milvus.rows import Row
from splade_integrations.milvus.schema import Side

__all__ = ["embed_rows", "embedded_text", "make_rows", "with_vectors"]


def embedded_text(text: str, metadata: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return what the sides embed: the text, after the metadata that is to be found by, in LlamaIndex's form.

    Example:
        >>> print(embedded_text("On computable numbers", {"author": "Turing", "page": 1}, ["author"]))
        author: Turing
        <BLANKLINE>
        On computable numbers
    """
    lines = [f"{key}: {metadata[key]}" for key in keys if key in metadata]
    return "\n".join(lines) + "\n\n" + text if lines else text


def make_rows(
    texts: list[str], metadatas: Sequence[dict[str, Any]] | None, ids: Sequence[str | None] | None
) -> list[Row]:
    """Return a row, still without vectors, for each text.

    Raises:
        ValueError: There are more or fewer ids or metadatas.
    """
    metadatas = [{}] * len(texts) if metadatas is None else list(metadatas)
    ids = [None] * len(texts) if ids is None else list(ids)
    if len(metadatas) != len(texts):
        raise ValueError(
            f"metadatas must be as many as the texts, {len(texts)}, got {len(metadatas)}. Give a text without any {{}}."
        )
    if len(ids) != len(texts):
        raise ValueError(
            f"ids must be as many as the texts, {len(texts)}, got {len(ids)}. Give a text without one None."
        )
    return [
        Row(text=text, id=key, metadata=metadata or {})
        for text, metadata, key in zip(texts, metadatas, ids, strict=True)
    ]


def embed_rows(rows: Sequence[Row], embeddings: Mapping[Side, Any], keys: Sequence[str]) -> list[Row]:
    """Return rows with their vectors, each side's made in one call.

    Args:
        rows: Some hundreds.
        embeddings: Of each side; one without an embedding, BM25, is Milvus's.
        keys: Of the metadata that is embedded as well.
    """
    texts = [embedded_text(row.text, row.metadata, keys) for row in rows]
    made = {side: embedding.embed_documents(texts) for side, embedding in embeddings.items() if embedding is not None}
    return with_vectors(rows, texts, made)


def with_vectors(rows: Sequence[Row], texts: Sequence[str], made: Mapping[Side, Sequence[Any]]) -> list[Row]:
    """Return rows with these vectors.

    Args:
        rows: N rows.
        texts: What was embedded. One without a word gets a placeholder for its sparse vector.
        made: {side: N vectors}.
    Raises:
        ValueError: A side has more or fewer vectors.
    """
    for side, vectors in made.items():
        if len(vectors) != len(rows):
            raise ValueError(
                f"the {side} embedding must give one vector for each text, {len(rows)}, got {len(vectors)}. Look at "
                "its embed_documents."
            )
    none = [None] * len(rows)
    return [
        Row(
            text=row.text,
            id=row.id,
            metadata=row.metadata,
            dense=dense,
            sparse=None if sparse is None else document_terms(sparse, text),
        )
        for row, text, dense, sparse in zip(rows, texts, made.get("dense", none), made.get("sparse", none), strict=True)
    ]
