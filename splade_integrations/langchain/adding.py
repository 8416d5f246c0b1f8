"""Turns texts and their metadata into rows for a Milvus collection, and adds the vectors to the rows.

A "side" is one kind of vector in the collection: "dense", "sparse" or "bm25".
"""

from collections.abc import Mapping, Sequence
from typing import Any

from splade_integrations.milvus.defaults import document_terms
from splade_integrations.milvus.rows import Row
from splade_integrations.milvus.schema import Side

__all__ = ["embed_rows", "embedded_text", "make_rows", "with_vectors"]


def embedded_text(text: str, metadata: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return the text with its metadata in front of it: a line "key: value" for each of `keys`, as in LlamaIndex.

    The embeddings encode this string instead of the text.

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
    """Return a row without vectors for each text.

    Raises:
        ValueError: The number of ids or metadatas differs from the number of texts.
    """
    metadatas = [{}] * len(texts) if metadatas is None else list(metadatas)
    ids = [None] * len(texts) if ids is None else list(ids)
    if len(metadatas) != len(texts):
        raise ValueError(
            f"metadatas must have one item for each of the {len(texts)} texts, got {len(metadatas)}. Give {{}} for a "
            "text without metadata."
        )
    if len(ids) != len(texts):
        raise ValueError(
            f"ids must have one item for each of the {len(texts)} texts, got {len(ids)}. Give None for a text without "
            "an id."
        )
    return [
        Row(text=text, id=key, metadata=metadata or {})
        for text, metadata, key in zip(texts, metadatas, ids, strict=True)
    ]


def embed_rows(rows: Sequence[Row], embeddings: Mapping[Side, Any], keys: Sequence[str]) -> list[Row]:
    """Embed the texts of all rows in one call of each embedding, and return the rows with their vectors.

    Args:
        rows: The rows, at most a few hundred.
        embeddings: {side: embedding}. The embedding of "bm25" is None, because Milvus makes the BM25 vectors itself.
        keys: The keys of the metadata to embed together with the text.
    """
    texts = [embedded_text(row.text, row.metadata, keys) for row in rows]
    made = {side: embedding.embed_documents(texts) for side, embedding in embeddings.items() if embedding is not None}
    return with_vectors(rows, texts, made)


def with_vectors(rows: Sequence[Row], texts: Sequence[str], made: Mapping[Side, Sequence[Any]]) -> list[Row]:
    """Return the rows with their vectors.

    Args:
        rows: N rows.
        texts: The N texts that were embedded. A text without words gets a sparse vector that no query finds, because
            milvus-lite 3 refuses empty vectors.
        made: {side: N vectors}.
    Raises:
        ValueError: The number of a side's vectors is not N.
    """
    for side, vectors in made.items():
        if len(vectors) != len(rows):
            raise ValueError(
                f"each of the {len(rows)} texts must have one {side} vector, got {len(vectors)} vectors. Check what "
                "embed_documents of the embedding returns, or what you gave to add_embeddings."
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
