"""What a hybrid Milvus collection cannot take, said before anything is written. Knows no encoder and no search."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from langchain_milvus.utils.sparse import BaseSparseEmbedding
from pymilvus import DataType

if TYPE_CHECKING:
    from splade_integrations.langchain.store import HybridMilvus

__all__ = ["check_ids", "check_ids_fit", "check_metadatas", "check_search_type", "check_sides", "existing_settings"]


def check_sides(embeddings: Any) -> None:
    """Refuse all but one dense and one sparse embedding in this order, by TypeError."""
    sides = list(embeddings) if isinstance(embeddings, list | tuple) else [embeddings]
    sparse = [isinstance(side, BaseSparseEmbedding) for side in sides]
    if sparse != [False, True] or not hasattr(sides[0], "embed_query"):
        found = ", ".join(type(side).__name__ for side in sides)
        advice = "Swap them." if sparse == [True, False] else "Wrap an encoder: SpladeSparseEmbedding(encoder=…)."
        raise TypeError(
            f"embeddings must be dense and sparse in this order, an Embeddings and a BaseSparseEmbedding, got {found}. "
            f"{advice}"
        )


def existing_settings(description: dict[str, Any], options: dict[str, Any]) -> dict[str, bool]:
    """What an existing collection has decided already: `auto_id` and `enable_dynamic_field`.

    Args:
        description: Of the collection, as `MilvusClient.describe_collection` gives it.
        options: The framework's keywords.

    Raises:
        ValueError: It lacks a field, or has another kind of vector in it.
    """
    types = {field["name"]: field["type"] for field in description["fields"]}
    vectors = options["vector_field"]
    wanted = [options.get("primary_field", "pk"), options.get("text_field", "text"), *vectors]
    sparse = [types.get(field) == DataType.SPARSE_FLOAT_VECTOR for field in vectors[:2]]
    if not types.keys() >= set(wanted) or sparse != [False, True]:
        found = ", ".join(f"{name} ({DataType(kind).name})" for name, kind in types.items())
        raise ValueError(
            f"collection {description['collection_name']!r} must have the fields {', '.join(wanted)}, the second "
            f"vector sparse, got {found}. Name its fields by primary_field, text_field and vector_field=[dense, "
            "sparse], or take another collection_name."
        )
    return {
        "auto_id": any(field.get("auto_id", False) for field in description["fields"]),
        "enable_dynamic_field": description["enable_dynamic_field"],
    }


def check_ids_fit(store: "HybridMilvus", ids: list[str] | None) -> None:
    """Refuse ids where Milvus numbers documents itself, and none where it does not, by ValueError."""
    if store.auto_id == (ids is None):
        return
    rule = "numbers its documents itself" if store.auto_id else "has ids of the user's"
    advice = "Add without ids" if store.auto_id else "Give ids=[…], or each Document an id"
    raise ValueError(
        f"ids must fit collection {store.collection_name!r}, which {rule}, got {'some' if ids else 'none'}. "
        f"{advice}, or take another collection_name."
    )


def check_ids(ids: list[str], count: int) -> list[str]:
    """Return `ids`, or say why they do not name `count` texts: TypeError or ValueError."""
    if len(ids) != count:
        raise ValueError(f"ids must be as many as the texts, {count}, got {len(ids)}. Give each text one, or none.")
    for position, value in enumerate(ids):
        if not isinstance(value, str):
            raise TypeError(
                f"ids[{position}] must be a str, got {type(value).__name__}. Give each text an id, or none."
            )
    value, times = max(Counter(ids).items(), key=lambda item: item[1], default=("", 0))
    if times > 1:
        raise ValueError(f"ids must differ within a call, got {value!r} {times} times. Drop or rename the others.")
    return ids


def check_metadatas(
    metadatas: list[dict[str, Any]] | None, count: int, *, fields: list[str], primary_field: str
) -> list[dict[str, Any]]:
    """Return a metadata dict for each text, without the primary key that the framework's search puts there.

    Raises:
        ValueError: Their number differs, or a key would replace the document's own text or vectors.
    """
    metadatas = metadatas or [{}] * count
    if len(metadatas) != count:
        raise ValueError(
            f"metadatas must be as many as the texts, {count}, got {len(metadatas)}. Give a text without any {{}}."
        )
    for position, metadata in enumerate(metadatas):
        if taken := sorted(metadata.keys() & set(fields)):
            raise ValueError(
                f"metadatas[{position}] must not use the collection's field names, got {taken[0]!r}. Rename it, or "
                "the field by text_field or vector_field."
            )
    return [{key: value for key, value in metadata.items() if key != primary_field} for metadata in metadatas]


def check_search_type(search_type: str) -> None:
    """Refuse all but "similarity", by ValueError."""
    if search_type != "similarity":
        raise ValueError(
            f"search_type must be 'similarity', got {search_type!r}: fused ranks have no relevance scale, and no one "
            "vector to compare. Drop search_type and score_threshold, and limit results by search_kwargs={'k': …}."
        )
