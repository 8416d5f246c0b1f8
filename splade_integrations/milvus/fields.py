"""The fields that an existing collection has, and whether they fit what the user wants.

This module handles neither rows nor searches.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.bm25 import language_of
from splade_integrations.milvus.schema import DENSE_KINDS, VECTOR_KINDS, Schema, Side, words_field_of

with require_extra("milvus", module=__name__):
    from pymilvus import DataType

__all__ = ["Fields"]

_INTEGER_KINDS = (DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64)


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The fields of an existing collection.

    Args:
        collection_name: The collection's name, even if the user gave an alias.
        primary, text: The names of the primary field and the text field. The name of the primary field comes from the
            collection, even if the user gave another name.
        primary_is_number: Whether ids are integers.
        auto_id: Whether Milvus gives each row a number as its id.
        sides: {side: its vector field} for the sides in use. A side is a kind of vector: dense, sparse or BM25.
        bm25_words: The field that holds the words of each text for BM25, if there is one. See `milvus.bm25`.
        bm25_language: The language whose words BM25 stems. None means that BM25 does not stem, or that there is no BM25
            side.
        metadata: The JSON field that holds the metadata, or None if there is none.
        dynamic: Whether metadata keys without a field of their own are kept as dynamic keys (keys of Milvus's dynamic
            field).
        typed: {metadata key: (its `DataType`, whether it may be null)} for each metadata key with a field of its own.
        columns: {name: (its `DataType`, whether it may be null)} for each of the caller's additional columns that
            has a field of its own.
        keys_of_columns: The names of the caller's additional columns that have no field. They may be dynamic keys.
        names: The names of all fields.
        other_vectors: The vector fields that neither a side in use nor a function of Milvus fills. If there are such
            fields, no row can be added, because Milvus requires a value for each of them.
        max_lengths: {name of a VARCHAR field: its largest size in bytes}.
    """

    collection_name: str
    primary: str
    primary_is_number: bool
    auto_id: bool
    text: str
    sides: Mapping[Side, str]
    bm25_words: str | None
    bm25_language: str | None
    metadata: str | None
    dynamic: bool
    typed: Mapping[str, tuple[DataType, bool]]
    columns: Mapping[str, tuple[DataType, bool]]
    keys_of_columns: tuple[str, ...]
    names: frozenset[str]
    other_vectors: tuple[str, ...]
    max_lengths: Mapping[str, int]

    def output(self, *, with_dense: bool, with_sparse: bool = False) -> list[str]:
        """Return the names of the fields to read for a document."""
        names = [self.text, *self.columns]
        names += self.typed if self.metadata is None else [self.metadata]
        names += ["$meta"] if self.dynamic and (self.metadata is None or self.keys_of_columns) else []
        vectors = {"dense": with_dense, "sparse": with_sparse}
        return names + [self.sides[side] for side, wanted in vectors.items() if wanted and side in self.sides]  # type: ignore[index]  # sides

    @staticmethod
    def of(description: Mapping[str, Any], schema: Schema) -> "Fields":
        """Return the fields that a collection has.

        Args:
            description: The collection's description, as `MilvusClient.describe_collection` returns it.
            schema: The fields that the user wants.
        Raises:
            ValueError: The collection lacks a field, or a field has the wrong type.
        """
        found = {one["name"]: one for one in description["fields"]}
        kinds = {name: one["type"] for name, one in found.items()}
        _check_kinds(description["collection_name"], kinds, schema)
        metadata = schema.metadata_field
        if kinds.get(metadata or "") != DataType.JSON:
            metadata = None
        primary = next(name for name, one in found.items() if one.get("is_primary"))
        vectors = [name for name, kind in kinds.items() if kind in VECTOR_KINDS]
        made = {name for function in description.get("functions", ()) for name in function["output_field_names"]}
        words_field, language = _bm25_of(description, found, schema)
        own = {primary, schema.text_field, words_field, metadata, *schema.columns, *vectors}
        nullable = {name: bool(one.get("nullable") or one.get("default_value")) for name, one in found.items()}
        return Fields(
            collection_name=description["collection_name"],
            primary=primary,
            primary_is_number=kinds[primary] in _INTEGER_KINDS,
            auto_id=bool(found[primary].get("auto_id")),
            text=schema.text_field,
            sides=schema.sides,
            bm25_words=words_field,
            bm25_language=language,
            metadata=metadata,
            dynamic=bool(description["enable_dynamic_field"]),
            typed={name: (kinds[name], nullable[name]) for name in found if name not in own},
            columns={name: (kinds[name], nullable[name]) for name in schema.columns if name in found},
            keys_of_columns=tuple(name for name in schema.columns if name not in found),
            names=frozenset(found),
            other_vectors=tuple(name for name in vectors if name not in made and name not in schema.sides.values()),
            max_lengths={
                name: int(one["params"]["max_length"]) for name, one in found.items() if "max_length" in one["params"]
            },
        )


def _bm25_of(description: Mapping[str, Any], found: Mapping[str, Any], schema: Schema) -> tuple[str | None, str | None]:
    """Return the field for the words of each text, and the language whose words BM25 stems. Both may be None.

    If a collection has a field for words, every store that writes to the collection must fill that field, even a store
    that does not search by BM25. On milvus-lite 2, which does not report a collection's functions, both values are
    None.

    Raises:
        ValueError: The user asks for an analyzer that differs from the collection's analyzer.
    """
    words_field = language = kept = None
    for function in description.get("functions", ()):
        output, read = function["output_field_names"][0], function["input_field_names"][0]
        if output == schema.bm25_field or read == words_field_of(output):
            words_field = read if read == words_field_of(output) else None
            params = found[read]["params"].get("analyzer_params") or "{}"
            kept = json.loads(params) if isinstance(params, str) else params
            language = language_of(kept)
    if kept is not None and schema.bm25_field is not None and schema.bm25_analyzer not in (None, language, kept):
        raise ValueError(
            f"bm25 must be the analyzer of collection {description['collection_name']!r} ({language or kept!r}), got "
            f"{schema.bm25_analyzer!r}. Use bm25=True to keep the collection's analyzer, or another collection_name."
        )
    return words_field, language


def _check_kinds(collection_name: str, kinds: Mapping[str, Any], schema: Schema) -> None:
    sparse = (DataType.SPARSE_FLOAT_VECTOR,)
    wanted = {
        "text_field": ("", (DataType.VARCHAR,)),
        "dense_field": (" (a dense vector)", DENSE_KINDS),
        "sparse_field": (" (a sparse vector)", sparse),
        "bm25_field": (" (a sparse vector)", sparse),
    }
    for argument, (what, right) in wanted.items():
        name = getattr(schema, argument)
        if name is None or kinds.get(name) in right:
            continue
        found = ", ".join(f"{other} ({DataType(kind).name})" for other, kind in kinds.items())
        raise ValueError(
            f"collection {collection_name!r} must have the field {name!r}{what}, got the fields {found}. Name the "
            f"right field with {schema.option_names.get(argument, argument)}, or use another collection_name."
        )
