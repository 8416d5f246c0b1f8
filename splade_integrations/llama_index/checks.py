"""What a hybrid Milvus collection cannot take, said before anything is written. Knows no encoder and no search."""

from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction
from pymilvus import DataType, MilvusClient

__all__ = ["check_collection", "check_function", "check_nodes"]

# Bytes of UTF-8 that the framework's text field holds: the most of a Milvus VARCHAR.
_MAX_TEXT_BYTES = 65_535


def check_function(function: Any) -> None:
    """Refuse what cannot encode, by TypeError. Without one the framework loads BGE-M3, or ends the process."""
    if not isinstance(function, BaseSparseEmbeddingFunction):
        raise TypeError(
            "sparse_embedding_function must be a SpladeSparseEmbedding, or another BaseSparseEmbeddingFunction, got "
            f"{type(function).__name__}. Give the one that the collection is made with: "
            "SpladeSparseEmbedding(encoder=…) or SpladeSparseEmbedding(model_name='…')."
        )


def check_collection(
    client: MilvusClient, name: str, *, text_key: str, dense: str | None, sparse: str, dim: int | None
) -> None:
    """Refuse a collection that lacks a field, or has other vectors in it, by ValueError.

    Args:
        client: The client to ask.
        name: The collection. It exists.
        text_key: Its text field.
        dense: Its dense field; None where it needs none.
        sparse: Its sparse field, which no function of Milvus's own may fill.
        dim: Size of its dense vectors; None for any.
    """
    description = client.describe_collection(name)
    fields = {field["name"]: field for field in description["fields"]}
    wanted = {text_key: DataType.VARCHAR, sparse: DataType.SPARSE_FLOAT_VECTOR}
    if dense is not None:
        wanted[dense] = DataType.FLOAT_VECTOR
    filled = {field for function in description["functions"] for field in function["output_field_names"]}
    fits = all(key in fields and fields[key]["type"] == kind for key, kind in wanted.items()) and sparse not in filled
    found_dim = fields[dense]["params"]["dim"] if fits and dense is not None else dim
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
        f"collection {name!r} must have {rule}, got {found}. Name its fields by text_key, embedding_field and "
        "sparse_embedding_field, give its dim, or take another collection_name."
    )


def check_nodes(nodes: Sequence[BaseNode], *, needs_embedding: bool) -> None:
    """Refuse a node that Milvus cannot store, by ValueError."""
    for position, node in enumerate(nodes):
        if needs_embedding and node.embedding is None:
            raise ValueError(
                f"nodes[{position}] must have an embedding, got None. Add it through a VectorStoreIndex or an "
                "IngestionPipeline with an embedding model, or set node.embedding."
            )
        try:
            size = len(node.get_content(metadata_mode=MetadataMode.NONE).encode())
        except UnicodeEncodeError as err:
            raise ValueError(
                f"nodes[{position}] must be valid Unicode for Milvus to store it, got a lone surrogate. Replace it: "
                "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')."
            ) from err
        if size > _MAX_TEXT_BYTES:
            raise ValueError(
                f"nodes[{position}] must have at most {_MAX_TEXT_BYTES} bytes of UTF-8, what a Milvus VARCHAR holds, "
                f"got {size}. Split it: SentenceSplitter(chunk_size=256)."
            )
