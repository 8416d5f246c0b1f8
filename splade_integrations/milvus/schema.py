"""The fields and indexes that a new collection gets.

A new collection keeps a document's metadata in one JSON field. That field accepts any key, and the metadata is read
back exactly as it was given. Milvus's dynamic field holds a copy of each key and its value. So a user can write the
Milvus expression `year > 2000` instead of `metadata["year"] > 2000`. LangChain's and LlamaIndex's own stores keep
metadata only in the dynamic field, or in one field for each key. Their collections can be opened as well: `fields.py`
finds out which fields these collections have. This module handles neither rows nor searches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.bm25 import ENGLISH, analyzer_params, stores_words
from splade_integrations.milvus.defaults import MAX_TEXT_BYTES
from splade_integrations.milvus.filters import Engine

with require_extra("milvus", module=__name__):
    from pymilvus import CollectionSchema, DataType, Function, FunctionType, MilvusClient

__all__ = ["DENSE_KINDS", "SIDES", "VECTOR_KINDS", "Column", "Schema", "Side", "index_of", "words_field_of"]

# A side is a kind of vector in a collection. A search uses one or more sides.
Side = Literal["dense", "sparse", "bm25"]
SIDES: tuple[Side, ...] = ("dense", "sparse", "bm25")

DENSE_KINDS = (DataType.FLOAT_VECTOR, DataType.FLOAT16_VECTOR, DataType.BFLOAT16_VECTOR)
VECTOR_KINDS = (*DENSE_KINDS, DataType.BINARY_VECTOR, DataType.INT8_VECTOR, DataType.SPARSE_FLOAT_VECTOR)
_KIND_OF_TYPE = {str: DataType.VARCHAR, int: DataType.INT64, float: DataType.DOUBLE, bool: DataType.BOOL}


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
        """Return the column that a value of the option `metadata_fields` describes.

        Args:
            name: The column's name, for the message.
            value: A `Column`, a `DataType`, one of the types str, int, float and bool, or a dict in the form of
                langchain-milvus: {"dtype": DataType.INT64, "kwargs": {…}}. The dict may also have "index": True.
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

    A side is a kind of vector. A column is a field for values of one type, such as the values of one metadata key.

    Args:
        primary_field, text_field: The names of the fields that hold ids and texts.
        dense_field, sparse_field, bm25_field: The names of the vector fields, one for each side. None means that the
            collection does not have this side. Milvus computes the BM25 vectors from the text.
        bm25_analyzer: A language, or the parameters of a Milvus analyzer. If it is a language, BM25 drops
            the stop words of this language and stems the other words. For a new collection, None means English. For an
            existing collection, None means the analyzer that the collection has.
        metadata_field: The JSON field that holds the metadata. None means that there is no such field. A metadata key
            is then kept in a column of its own (see `metadata_fields`), or else as a dynamic key (see `dynamic`).
        metadata_fields: {metadata key: its type} for the keys that also get a column. `Column.of` lists the types.
        columns: {name: column} for additional columns that hold no metadata.
        partition_key_field: The metadata key by whose value Milvus partitions the rows.
        dynamic: Whether a new collection copies the metadata to dynamic keys (keys of Milvus's dynamic field). A Milvus
            expression can then use a key's bare name: `year > 2000`, not `metadata["year"] > 2000`.
        auto_id: Whether Milvus gives each row of a new collection a number as its id.
        primary_max_length: The largest size of an id, in bytes.
        number_ids: Whether the ids of a new collection are numbers, which callers give as strings of digits.
        metric_type: The dense side's metric: "COSINE", "IP" or "L2".
        index_params, search_params: {side: parameters}. They replace this package's defaults.
        option_names: For error messages: {an argument of this class: what the user calls it}.
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
                words_field = words_field_of(self.bm25_field)
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
    """Return this package's default index for a side, in the form for `MilvusClient.prepare_index_params`.

    Args:
        side: The side.
        engine: The engine that holds the collection.
        metric: The metric of the dense side.
    """
    if side == "dense":
        # A collection of milvus-lite is small, so an exact index is fast enough. A server chooses the index itself.
        index_type = "AUTOINDEX" if engine is Engine.SERVER else "FLAT"
        return {"index_type": index_type, "metric_type": metric, "params": {}}
    # inverted_index_algo is left out, because a server's default is the fastest algorithm that its version offers.
    # (For the inner product, Milvus 3's default stores each weight in 16 bits, so a score may have a relative error
    # of 5e-4.)
    return {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP" if side == "sparse" else "BM25", "params": {}}


def words_field_of(bm25_field: str) -> str:
    """Return the name of the field for the words of each text, which only some collections have. See `milvus.bm25`."""
    return f"{bm25_field}_words"
