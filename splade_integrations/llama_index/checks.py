"""What a hybrid Milvus collection cannot take, said before anything is written. Knows no encoder and no search."""

from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction
from pymilvus import DataType, MilvusClient

from splade_integrations.llama_index.settings import all_settings
from splade_integrations.milvus.fingerprint import check_encoder
from splade_integrations.milvus.settings import check_varchar

__all__ = ["check_collection", "check_existing", "check_function", "check_nodes"]


def check_function(function: Any) -> None:
    """Refuse what cannot encode, by TypeError. Without one the framework loads BGE-M3, or ends the process."""
    if not isinstance(function, BaseSparseEmbeddingFunction):
        raise TypeError(
            "sparse_embedding_function must be a SpladeSparseEmbedding, or another BaseSparseEmbeddingFunction, got "
            f"{type(function).__name__}. Give the one that the collection is made with: "
            "SpladeSparseEmbedding(encoder=…) or SpladeSparseEmbedding(model_name='…')."
        )


def check_collection(description: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuse a collection that lacks a field, or has other vectors in it, by ValueError.

    Args:
        description: Of an existing collection, as `MilvusClient.describe_collection` gives it.
        settings: The keywords of `MilvusVectorStore`, defaults included. A sparse field that a function of Milvus's own
            fills will not do.
    """
    dense, sparse, dim = settings["embedding_field"], settings["sparse_embedding_field"], settings["dim"]
    fields = {field["name"]: field for field in description["fields"]}
    wanted = {settings["text_key"]: DataType.VARCHAR, sparse: DataType.SPARSE_FLOAT_VECTOR}
    if settings["enable_dense"]:
        wanted[dense] = DataType.FLOAT_VECTOR
    filled = {field for function in description["functions"] for field in function["output_field_names"]}
    fits = all(key in fields and fields[key]["type"] == kind for key, kind in wanted.items()) and sparse not in filled
    found_dim = fields[dense]["params"]["dim"] if fits and dense in wanted else dim
    if fits and dim in (None, found_dim):
        return
    rule = ", ".join(f"{key} ({kind.name})" for key, kind in wanted.items())
    found = ", ".join(
        f"{key} ({DataType(field['type']).name}{', filled by Milvus itself' * (key in filled)})"
        for key, field in fields.items()
    )
    if fits:
        rule, found = f"dense vectors of {dim} dimensions", f"{found_dim}"
    raise ValueError(
        f"collection {description['collection_name']!r} must have {rule}, got {found}. Name its fields by text_key, "
        "embedding_field and sparse_embedding_field, give its dim, or take another collection_name."
    )


def check_existing(client: MilvusClient, options: dict[str, Any], *, allow_other_encoder: bool) -> bool:
    """Whether there is a collection to open, one that this store can use.

    Args:
        client: Where.
        options: Keywords of `MilvusVectorStore`.
        allow_other_encoder: Take a collection that was made with another encoder.
    Raises:
        ValueError: It has other fields, or was made with another encoder.
    """
    if options.get("overwrite") or not client.has_collection(options["collection_name"]):
        return False
    description = client.describe_collection(options["collection_name"])
    check_collection(description, all_settings(options))
    fingerprint = getattr(options["sparse_embedding_function"], "fingerprint", None)
    check_encoder(description, options["uri"], fingerprint, allow_other_encoder=allow_other_encoder)
    return True


def check_nodes(nodes: Sequence[BaseNode], *, needs_embedding: bool) -> None:
    """Refuse a node that Milvus cannot store, by ValueError."""
    for position, node in enumerate(nodes):
        if needs_embedding and node.embedding is None:
            raise ValueError(
                f"nodes[{position}] must have an embedding, got None. Add it through a VectorStoreIndex or an "
                "IngestionPipeline with an embedding model, or set node.embedding."
            )
        text = node.get_content(metadata_mode=MetadataMode.NONE)
        check_varchar(text, f"nodes[{position}]", "Split it: SentenceSplitter(chunk_size=256).")
