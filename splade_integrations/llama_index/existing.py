"""Finds the text field and the vector fields of an existing collection, if their names are not the store's defaults."""

from dataclasses import replace
from typing import Any

from splade_integrations.milvus.calls import Call
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.defaults import DOCUMENT_COLUMN, READ_TIMEOUT
from splade_integrations.milvus.existing import computed_fields, fitting
from splade_integrations.milvus.retries import perform
from splade_integrations.milvus.schema import Schema

__all__ = ["OPTION_NAMES", "matching"]

# {argument of `Schema`: the store's option for it}
OPTION_NAMES = {
    "primary_field": "primary_field",
    "text_field": "text_key",
    "dense_field": "embedding_field",
    "sparse_field": "sparse_embedding_field",
    "metadata_field": "metadata_field",
}
_DEFAULTS = {
    "text_field": "text",
    "dense_field": "embedding",
    "sparse_field": "sparse_embedding",
}
_DOC_ID = "doc_id"


def matching(schema: Schema, place: Connection, collection_name: str, dim: int | None) -> Schema:
    """Return the schema with the field names of an existing collection, if it is clear which field is which.

    A name that the user gave is kept. If the collection has no field with a default name, but has exactly one field of
    the right type, the name of this field replaces the default name. For example, the dense field is called `vector` in
    collections of LangChain's own store. The column of document ids is found by its name: `doc_id`, or `_doc_id` as in
    collections of `splade index`.

    Args:
        schema: The fields that the store wants.
        place: The connection to the server or file.
        collection_name: The collection's name or an alias. If the collection does not exist, the schema is returned
            unchanged.
        dim: The dimension of the dense vectors, if the user gave one.
    Raises:
        ValueError: The collection's dense vectors have a dimension other than `dim`, or a Milvus function such as BM25
            fills the sparse field.
        TimeoutError: The server does not answer.
    """
    how = {"collection_name": collection_name, "timeout": READ_TIMEOUT}
    if not perform(place.client, Call("has_collection", how), place.uri):
        return schema
    description = perform(place.client, Call("describe_collection", how), place.uri)
    fields = {field["name"]: field for field in description["fields"]}
    filled = computed_fields(description)
    names: dict[str, Any] = {}
    for argument, default in _DEFAULTS.items():
        if getattr(schema, argument) == default and default not in fields:
            candidates = fitting(argument, description, schema.columns)
            names |= {argument: candidates[0]} if len(candidates) == 1 else {}
    if _DOC_ID in schema.columns and _DOC_ID not in fields and DOCUMENT_COLUMN in fields:
        names["columns"] = {DOCUMENT_COLUMN if name == _DOC_ID else name: of for name, of in schema.columns.items()}
    found = replace(schema, **names)
    if filled & {found.sparse_field}:
        raise ValueError(
            f"collection {collection_name!r} must have a sparse field for SPLADE, got {found.sparse_field!r}, which a "
            "Milvus function such as BM25 fills. Name another field with sparse_embedding_field, or use only the dense "
            "vectors: enable_sparse=False."
        )
    dense = fields.get(found.dense_field or "")
    if dense is not None and dim is not None and (width := int(dense["params"].get("dim", dim))) != dim:
        raise ValueError(
            f"collection {collection_name!r} must have dense vectors of {dim} dimensions, got {width}. Leave dim out "
            "and embed with the model that the collection was made with, or use another collection_name."
        )
    return found
