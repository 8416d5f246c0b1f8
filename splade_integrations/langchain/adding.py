"""Documents on their way into a hybrid store: embedded together, then written, in place of those of the same ids."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from splade_integrations.langchain.checks import check_ids_fit
from splade_integrations.milvus.clients import write_lock

if TYPE_CHECKING:
    from splade_integrations.langchain.store import HybridMilvus

__all__ = ["Row", "embedded_text", "write"]

Row = tuple[str, dict[str, Any], str | None]  # text, metadata, id


def embedded_text(text: str, metadata: dict[str, Any], keys: Sequence[str]) -> str:
    """What both sides embed: the text, after the metadata that is to be found by, in LlamaIndex's form.

    Example:
        >>> print(embedded_text("On computable numbers", {"author": "Turing", "page": 1}, ["author"]))
        author: Turing
        <BLANKLINE>
        On computable numbers
    """
    lines = [f"{key}: {metadata[key]}" for key in keys if key in metadata]
    return "\n".join(lines) + "\n\n" + text if lines else text


def write(store: "HybridMilvus", rows: Sequence[Row], **options: Any) -> list[str]:
    """Embed rows, each side in one call, and write them; the first create the collection.

    Args:
        store: Where to.
        rows: Some hundreds; all have ids, or none.
        **options: What the framework's `add_embeddings` takes.
    Returns:
        Their keys.
    Raises:
        ValueError: The collection has ids of the user's and these have none, or the reverse.
    """
    texts = [text for text, _, _ in rows]
    metadatas = [metadata for _, metadata, _ in rows]
    ids = None if rows[0][2] is None else [cast(str, key) for _, _, key in rows]
    exists = store.client.has_collection(store.collection_name)
    if exists:
        store.take_collection_as_it_is()
        check_ids_fit(store, ids)
    embedded = [embedded_text(text, metadata, store.embed_metadata) for text, metadata, _ in rows]
    sides = [side.embed_documents(embedded) for side in store.embeddings]
    if not exists:
        with write_lock(store.uri):  # of threads that add first, one creates the collection
            if not store.client.has_collection(store.collection_name):
                store.create_collection(sides, metadatas, auto_id=ids is None)
        store.take_collection_as_it_is()
        check_ids_fit(store, ids)
    if ids and not store.insert_replaces:
        _upsert(store, store._prepare_insert_list(texts, sides, metadatas, ids, force_ids=True), **options)
        return ids
    embeddings = [list(pair) for pair in zip(*sides, strict=True)]
    return cast(list[str], store.add_embeddings(texts, embeddings, metadatas, ids=ids, **options))


def _upsert(
    store: "HybridMilvus", rows: list[dict[str, Any]], *, batch_size: int, timeout: float | None, **options: Any
) -> None:
    for start in range(0, len(rows), batch_size):
        chunk = rows[start : start + batch_size]
        store.client.upsert(store.collection_name, chunk, timeout=store.timeout or timeout, **options)
