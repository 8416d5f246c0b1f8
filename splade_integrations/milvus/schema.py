"""The fields that a new collection gets, and the fields that an existing collection has.

A new collection keeps a document's metadata in one JSON field. That field takes any key, and the metadata is read back
exactly as it was given. Milvus's dynamic field holds a copy of each key and its value. So a user can write the Milvus
expression `year > 2000` instead of `metadata["year"] > 2000`. LangChain's and LlamaIndex's own stores keep metadata
only in the dynamic field, or in one field for each key. Their collections can be opened as well. This module handles
neither rows nor searches.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.bm25 import ENGLISH, analyzer_params, language_of, stores_words
from splade_integrations.milvus.defaults import MAX_TEXT_BYTES
from splade_integrations.milvus.filters import Engine

with require_extra("milvus", module=__name__):
    from pymilvus import CollectionSchema, DataType, Function, FunctionType, MilvusClient

__all__ = ["DENSE_KINDS", "SIDES", "VECTOR_KINDS", "Column", "Fields", "Schema", "Side", "index_of"]

# A side is a kind of vector in a collection. A search uses one or more sides.
Side = Literal["dense", "sparse", "bm25"]
SIDES: tuple[Side, ...] = ("dense", "sparse", "bm25")

DENSE_KINDS = (DataType.FLOAT_VECTOR, DataType.FLOAT16_VECTOR, DataType.BFLOAT16_VECTOR)
VECTOR_KINDS = (*DENSE_KINDS, DataType.BINARY_VECTOR, DataType.INT8_VECTOR, DataType.SPARSE_FLOAT_VECTOR)
_KIND_OF_TYPE = {str: DataType.VARCHAR, int: DataType.INT64, float: DataType.DOUBLE, bool: DataType.BOOL}
_INTEGER_KINDS = (DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64)


@dataclass(frozen=True)
class Column:
    """A field whose values all have the same type.

    Args:
        kind: The type of the values.
        index: Whether to index the field, so that filters on it are fast.
        options: Further arguments of `CollectionSchema.add_field`, such as `max_length`.
    """

    kind: DataType = DataType.VARCHAR
    index: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(name: str, value: Any) -> "Column":
        """Return the column that a user's value describes.

        Args:
            name: The column's name, for the message.
            value: A `Column`, a `DataType`, one of the types str, int, float and bool, or a dict in the form of
                langchain-milvus: {"dtype": DataType.INT64, "kwargs": {…}}. Add "index": True for an index.
        Raises:
            TypeError: The value has another form.

        Example:
            >>> Column.of("year", int).kind.name, Column.of("tenant", {"dtype": DataType.VARCHAR, "index": True}).index
            ('INT64', True)
        """
        if isinstance(value, Column):
            return value
        if isinstance(value, type) and value in _KIND_OF_TYPE:
            return Column(_KIND_OF_TYPE[value])
        if isinstance(value, DataType):
            return Column(value)
        if isinstance(value, Mapping) and "dtype" in value:
            options = {key: item for key, item in value.items() if key not in ("dtype", "kwargs", "index")}
            return Column(DataType(value["dtype"]), bool(value.get("index")), {**value.get("kwargs", {}), **options})
        raise TypeError(
            f"metadata_fields[{name!r}] must be one of the types str, int, float and bool, a DataType, or a dict with "
            f"the key 'dtype', got {value!r}. Give the type of the values of this metadata key, such as int."
        )


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The fields and indexes that a user wants in a collection.

    A side is a kind of vector. A column is a field for values of one type, such as those of a metadata key.

    Args:
        primary_field, text_field: The names of the fields that hold ids and texts.
        dense_field, sparse_field, bm25_field: The names of the vector fields, one for each side. None means that the
            collection does not have the side. Milvus computes the BM25 vectors from the text.
        bm25_analyzer: A language, or the parameters of a Milvus analyzer. For a language, BM25 drops its stop words and
            stems the other words. None means English for a new collection, and any analyzer for an existing one.
        metadata_field: The JSON field that holds the metadata. None means that there is no such field: a metadata key
            that has a column is kept only in that column, and other keys are dynamic keys if `dynamic` is true.
        metadata_fields: {metadata key: its type} for the keys that also get a column. `Column.of` lists the types.
        columns: {name: column} for additional columns that hold no metadata.
        partition_key_field: The metadata key that Milvus partitions by.
        dynamic: Whether a new collection copies the metadata to dynamic keys (keys of Milvus's dynamic field). A Milvus
            expression can then use a key's bare name: `year > 2000`, not `metadata["year"] > 2000`.
        auto_id: Whether Milvus gives each row of a new collection a number as its id.
        primary_max_length: The largest size of an id, in bytes.
        number_ids: Whether the ids of a new collection are numbers, which callers give as strings of digits.
        metric_type: The dense side's metric: "COSINE", "IP" or "L2".
        index_params, search_params: {side: parameters that replace this package's defaults}.
        option_names: {argument of this class: the name of the user's option that sets it}, for error messages.
    """

    primary_field: str = "pk"
    text_field: str = "text"
    dense_field: str | None = "dense"
    sparse_field: str | None = "sparse"
    bm25_field: str | None = None
    bm25_analyzer: str | Mapping[str, Any] | None = None
    metadata_field: str | None = "metadata"
    metadata_fields: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)
    partition_key_field: str | None = None
    dynamic: bool = True
    auto_id: bool = False
    primary_max_length: int = MAX_TEXT_BYTES
    number_ids: bool = False
    metric_type: str = "COSINE"
    index_params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    search_params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    option_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def sides(self) -> dict[Side, str]:
        """The vector field of each side."""
        named: dict[Side, str | None] = {
            "dense": self.dense_field,
            "sparse": self.sparse_field,
            "bm25": self.bm25_field,
        }
        return {side: name for side, name in named.items() if name is not None}

    def typed(self) -> dict[str, Column]:
        """Return the columns that hold metadata, one for each key in `metadata_fields` and one for the partition key.

        Raises:
            ValueError: A column has the same name as another field.
        """
        typed = {name: Column.of(name, value) for name, value in self.metadata_fields.items()}
        if self.partition_key_field is not None:
            typed.setdefault(self.partition_key_field, Column())
        others = {self.primary_field, self.text_field, self.metadata_field, *self.sides.values(), *self.columns}
        if taken := sorted(typed.keys() & others):
            raise ValueError(
                f"metadata_fields must not use the names of the collection's other fields, got {taken[0]!r}. Rename "
                "the metadata key or the other field."
            )
        return typed

    def definition(self, engine: Engine, dense_dim: int | None, description: str) -> CollectionSchema:
        """Return the pymilvus schema of a new collection.

        Args:
            engine: The engine that will hold the collection.
            dense_dim: The dimension of the dense vectors.
            description: The description of the collection.
        """
        schema = MilvusClient.create_schema(
            auto_id=self.auto_id, enable_dynamic_field=self.dynamic, description=description
        )
        if self.auto_id or self.number_ids:
            schema.add_field(self.primary_field, DataType.INT64, is_primary=True, auto_id=self.auto_id)
        else:
            schema.add_field(self.primary_field, DataType.VARCHAR, is_primary=True, max_length=self.primary_max_length)
        bm25: dict[str, Any] = {}
        words_field = self.text_field
        if self.bm25_field is not None:
            analyzer = self.bm25_analyzer or ENGLISH
            bm25 = {"enable_analyzer": True, "analyzer_params": analyzer_params(analyzer, engine)}
            if stores_words(analyzer, engine):
                words_field = _words_field(self.bm25_field)
                schema.add_field(words_field, DataType.VARCHAR, max_length=MAX_TEXT_BYTES, **bm25)
        options = bm25 if words_field == self.text_field else {}
        schema.add_field(self.text_field, DataType.VARCHAR, max_length=MAX_TEXT_BYTES, **options)
        if self.dense_field is not None:
            schema.add_field(self.dense_field, DataType.FLOAT_VECTOR, dim=dense_dim)
        if self.sparse_field is not None:
            schema.add_field(self.sparse_field, DataType.SPARSE_FLOAT_VECTOR)
        if self.bm25_field is not None:
            schema.add_field(self.bm25_field, DataType.SPARSE_FLOAT_VECTOR)
            schema.add_function(Function(self.bm25_field, FunctionType.BM25, [words_field], [self.bm25_field]))
        if self.metadata_field is not None:
            schema.add_field(self.metadata_field, DataType.JSON)
        for name, column in {**self.columns, **self.typed()}.items():
            schema.add_field(name, column.kind, **self._column_options(name, column, engine))
        return schema

    def _column_options(self, name: str, column: Column, engine: Engine) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if column.kind == DataType.VARCHAR:
            options["max_length"] = MAX_TEXT_BYTES
        if name == self.partition_key_field:
            options["is_partition_key"] = True
        elif engine is not Engine.LITE2:  # milvus-lite 2 has no nullable fields
            options["nullable"] = True
        return {**options, **column.options}

    def indexes(self, engine: Engine) -> Any:
        """Return the indexes of a new collection: one for each vector field, and one for each column with `index`."""
        indexes = MilvusClient.prepare_index_params()
        for side, name in self.sides.items():
            index = index_of(side, engine, self.metric_type)
            indexes.add_index(name, **{**index, **self.index_params.get(side, {})})
        for name, column in {**self.columns, **self.typed()}.items():
            if column.index:
                indexes.add_index(name, index_type="INVERTED")
        return indexes


def index_of(side: Side, engine: Engine, metric: str = "COSINE") -> dict[str, Any]:
    """Return this package's default index for a side, in the form that `MilvusClient.prepare_index_params` takes.

    Args:
        side: The side.
        engine: The engine that holds the collection.
        metric: The metric of the dense side.
    """
    if side == "dense":
        # milvus-lite's collections are small, so an exact index is fast enough. A server chooses its index itself.
        index_type = "AUTOINDEX" if engine is Engine.SERVER else "FLAT"
        return {"index_type": index_type, "metric_type": metric, "params": {}}
    # inverted_index_algo is left out, because a server's default is the fastest algorithm that its version has.
    # (For the inner product, Milvus 3's default stores each weight in 16 bits, so a score may have a relative error
    # of 5e-4.)
    return {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP" if side == "sparse" else "BM25", "params": {}}


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The fields of an existing collection.

    Args:
        collection_name: The collection's name, even if the user gave an alias.
        primary, text: The names of the primary field and the text field. The name of the primary field comes from the
            collection, even if the user gave another name.
        primary_is_number: Whether ids are integers.
        auto_id: Whether Milvus gives each row a number as its id.
        sides: {side: its vector field} for the sides in use.
        bm25_words: The field that holds the words of each text for BM25, if there is one. See `milvus.bm25`.
        bm25_language: The language whose words BM25 stems. None means that BM25 does not stem, or that there is no BM25
            side.
        metadata: The JSON field that holds the metadata, or None if there is none.
        dynamic: Whether metadata keys without a field are kept in dynamic keys.
        typed: {metadata key: (kind, whether it may be null)} for each metadata key that has a field.
        columns: {name: (kind, whether it may be null)} for each of the caller's additional columns that has a field.
        keys_of_columns: The names of the caller's additional columns that have no field. They may be dynamic keys.
        names: The names of all fields.
        other_vectors: The vector fields that neither a side in use nor a Milvus function fills. If there are any, no
            row can be added, because Milvus requires a value for each of them.
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

    If a collection has a field for words, every store that writes to it must fill that field, even a store that does
    not search by BM25. milvus-lite 2 does not report a collection's functions, so both values are then None.

    Raises:
        ValueError: The user asks for an analyzer that differs from the collection's analyzer.
    """
    words_field = language = kept = None
    for function in description.get("functions", ()):
        output, read = function["output_field_names"][0], function["input_field_names"][0]
        if output == schema.bm25_field or read == _words_field(output):
            words_field = read if read == _words_field(output) else None
            params = found[read]["params"].get("analyzer_params") or "{}"
            kept = json.loads(params) if isinstance(params, str) else params
            language = language_of(kept)
    if kept is not None and schema.bm25_field is not None and schema.bm25_analyzer not in (None, language, kept):
        raise ValueError(
            f"bm25 must be the analyzer of collection {description['collection_name']!r}, {language or kept!r}, "
            f"got {schema.bm25_analyzer!r}. Use bm25=True, which follows the collection, or another collection_name."
        )
    return words_field, language


def _words_field(bm25_field: str) -> str:
    return f"{bm25_field}_words"


def _check_kinds(collection_name: str, kinds: Mapping[str, Any], schema: Schema) -> None:
    sparse = (DataType.SPARSE_FLOAT_VECTOR,)
    wanted = {
        "text_field": ("", (DataType.VARCHAR,)),
        "dense_field": (", a dense vector", DENSE_KINDS),
        "sparse_field": (", a sparse vector", sparse),
        "bm25_field": (", a sparse vector", sparse),
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
