"""Find out what each field of an existing collection holds, no matter which package made the collection."""

from collections.abc import Collection, Mapping
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.defaults import CONTENT_COLUMN, DOCUMENT_COLUMN
from splade_integrations.milvus.schema import DENSE_KINDS, Column, Schema

with require_extra("milvus", module=__name__):
    from pymilvus import DataType

__all__ = ["FIELD_NAMES", "computed_fields", "fitting", "schema_of"]

# {argument of `Schema`: the usual names of that field in the stores of this package, LangChain and LlamaIndex}
FIELD_NAMES = {
    "text_field": ("text",),
    "dense_field": ("dense", "embedding", "vector"),
    "sparse_field": ("sparse", "sparse_embedding"),
    "bm25_field": ("bm25",),
}
_OWN_COLUMNS = (DOCUMENT_COLUMN, CONTENT_COLUMN, "doc_id")


def computed_fields(description: Mapping[str, Any]) -> set[str]:
    """Return the names of the fields that Milvus's functions fill, such as BM25's vectors."""
    return {name for function in description.get("functions", ()) for name in function["output_field_names"]}


def fitting(argument: str, description: Mapping[str, Any], other_columns: Collection[str] = ()) -> list[str]:
    """Return the names of the fields whose type fits an argument of `Schema`.

    Args:
        argument: "text_field", "dense_field", "sparse_field" or "bm25_field".
        description: The collection's description, as `MilvusClient.describe_collection` returns it.
        other_columns: The names of fields that hold strings, but not the text.
    """
    computed = computed_fields(description)
    words = {f"{name}_words" for name in computed}
    found = []
    for field in description["fields"]:
        name, kind = field["name"], field["type"]
        if argument == "text_field":
            own = field.get("is_primary") or name in other_columns or name in words
            fits = kind == DataType.VARCHAR and not own
        elif argument == "dense_field":
            fits = kind in DENSE_KINDS and name not in computed
        else:
            # milvus-lite 2 does not report which fields its functions fill. So a field named "bm25" counts as a field
            # that a function fills.
            is_bm25 = name in computed or name in FIELD_NAMES["bm25_field"]
            fits = kind == DataType.SPARSE_FLOAT_VECTOR and is_bm25 == (argument == "bm25_field")
        if fits:
            found.append(name)
    return found


def schema_of(
    description: Mapping[str, Any], named: Mapping[str, str] | None = None, option: str = "the schema"
) -> Schema:
    """Return the schema of an existing collection, no matter which package made the collection.

    The schema has all sides (kinds of vectors) of the collection. A field is found by its usual name, or by its type if
    it is the only field of this type.

    Args:
        description: The collection's description, as `MilvusClient.describe_collection` returns it.
        named: {argument of `Schema`: field} for fields that the user names.
        option: The option with which the user names fields, for messages.
    Raises:
        ValueError: Several fields of the same type have unusual names, or no field can hold the text.

    Example:
        >>> from pymilvus import DataType, MilvusClient
        >>> made = MilvusClient.create_schema()
        >>> made = made.add_field("key", DataType.INT64, is_primary=True).add_field("v", DataType.FLOAT_VECTOR, dim=4)
        >>> made = made.add_field("body", DataType.VARCHAR, max_length=9)
        >>> schema = schema_of(made.to_dict() | {"collection_name": "animals"})
        >>> schema.text_field, schema.dense_field, schema.sparse_field
        ('body', 'v', None)
    """
    kinds = {field["name"]: field["type"] for field in description["fields"]}
    names: dict[str, Any] = {}
    for argument, usual in FIELD_NAMES.items():
        found = fitting(argument, description, _OWN_COLUMNS)
        chosen = (named or {}).get(argument) or next((name for name in usual if name in found), None)
        if chosen is None and (len(found) > 1 or (argument == "text_field" and not found)):
            what = argument.removesuffix("_field")
            raise ValueError(
                f"exactly one field of collection {description['collection_name']!r} must be recognisable as the "
                f"{what} field, got {' and '.join(found) or 'no field of strings'}. The collection's fields are "
                f"{', '.join(f'{name} ({DataType(kind).name})' for name, kind in kinds.items())}. Name the {what} "
                f"field with {option}."
            )
        names[argument] = chosen or (found[0] if found else None)
    in_json = kinds.get("metadata") == DataType.JSON
    return Schema(
        **names,
        # LlamaIndex's own store keeps a node's JSON under the dynamic key `CONTENT_COLUMN`. This key is listed as a
        # column, so that the JSON is not taken for metadata.
        columns={
            name: Column(index=name == DOCUMENT_COLUMN)
            for name in (DOCUMENT_COLUMN, CONTENT_COLUMN)
            if name in kinds or (name == CONTENT_COLUMN and not in_json)
        },
        option_names=dict.fromkeys(FIELD_NAMES, option),
    )
