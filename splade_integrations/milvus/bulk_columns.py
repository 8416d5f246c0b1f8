"""Check whole Arrow columns against the fields of a collection, and convert them for Milvus's bulk import."""

import json
from typing import Any

import numpy as np

from splade_integrations.arrow import dense_type, sparse_column, sparse_json, sparse_rows, sparse_type
from splade_integrations.dependencies import require_extra

with require_extra("bulk", module=__name__):
    import pyarrow as pa
    import pyarrow.compute as pc
    from pymilvus import CollectionSchema, DataType, FieldSchema

__all__ = ["arrow_types", "checked_column", "dynamic_column"]

_DYNAMIC = "$meta"
_TYPES = {
    DataType.BOOL: pa.bool_(),
    DataType.INT8: pa.int8(),
    DataType.INT16: pa.int16(),
    DataType.INT32: pa.int32(),
    DataType.INT64: pa.int64(),
    DataType.FLOAT: pa.float32(),
    DataType.DOUBLE: pa.float64(),
    DataType.VARCHAR: pa.string(),
    DataType.JSON: pa.string(),
    DataType.FLOAT_VECTOR: dense_type(),
    DataType.BINARY_VECTOR: pa.list_(pa.uint8()),
    DataType.FLOAT16_VECTOR: pa.list_(pa.uint8()),
    DataType.BFLOAT16_VECTOR: pa.list_(pa.uint8()),
    DataType.INT8_VECTOR: pa.list_(pa.int8()),
}
# A file holds each dense vector as a list. For each type of vector, this is the number of list items per dimension.
_ITEMS_PER_DIM = {
    DataType.FLOAT_VECTOR: 1.0,
    DataType.INT8_VECTOR: 1.0,
    DataType.FLOAT16_VECTOR: 2.0,
    DataType.BFLOAT16_VECTOR: 2.0,
    DataType.BINARY_VECTOR: 1 / 8,
}
_LARGEST_TERM = 2**32 - 2  # Milvus refuses larger token ids


def arrow_types(schema: CollectionSchema, *, sparse_as_text: bool) -> dict[str, pa.DataType]:
    """Return {field: its Arrow type in a file for the bulk import}. Fields that Milvus fills itself are left out.

    Raises:
        ValueError: A field has a type that this package cannot write to a file.
    """
    types: dict[str, pa.DataType] = {}
    for field in schema.fields:
        if (field.is_primary and field.auto_id) or field.is_function_output:
            continue
        kind = DataType(field.dtype)
        if kind == DataType.SPARSE_FLOAT_VECTOR:
            types[field.name] = pa.string() if sparse_as_text else sparse_type()
        elif kind == DataType.ARRAY and DataType(field.element_type) in _TYPES:
            types[field.name] = pa.list_(_TYPES[DataType(field.element_type)])
        elif kind in _TYPES:
            types[field.name] = _TYPES[kind]
        else:
            raise ValueError(
                f"the field {field.name!r} must have a type that this package can write to files, got {kind.name}. "
                "Write this collection's files with pymilvus's LocalBulkWriter."
            )
    if schema.enable_dynamic_field:
        types[_DYNAMIC] = pa.string()
    return types


def checked_column(table: pa.Table, field: FieldSchema, kind: pa.DataType, *, sparse_as_text: bool) -> pa.ChunkedArray:
    """Check the column of a field, and return it in the Arrow type `kind`.

    Raises:
        ValueError, TypeError: See `bulk_files.fields_of`.
    """
    name, default = field.name, _default(field)
    if name not in table.column_names:
        if not field.nullable and default is None:
            raise ValueError(
                f"the rows must have the column {name!r} for the field of that name, got the columns "
                f"{', '.join(table.column_names)}. Add or rename a column."
            )
        return pa.chunked_array([pa.array([default] * len(table), kind)])
    column = table[name]
    if column.null_count and default is not None and not pa.types.is_nested(column.type):
        column = pc.fill_null(column, default)
    if column.null_count and not field.nullable:
        raise _wrong(name, pc.is_null(column), "must have a value", "got none. The field cannot be null")
    dtype = DataType(field.dtype)
    if dtype == DataType.SPARSE_FLOAT_VECTOR:
        return pa.chunked_array([_sparse(column, name, sparse_as_text=sparse_as_text)])
    if dtype == DataType.JSON:
        return _json(column, name)
    column = _cast(column, name, kind)
    if dtype == DataType.VARCHAR:
        limit = int(field.params["max_length"])
        rule = f"must have at most {limit} bytes of UTF-8 (the limit of the field)"
        _check(name, pc.greater(pc.binary_length(column), limit), rule, "got a longer text")
    if dtype in _ITEMS_PER_DIM:
        items = int(field.params["dim"] * _ITEMS_PER_DIM[dtype])
        rule = f"must have {items} items (from the field's dimension)"
        _check(name, pc.not_equal(pc.list_value_length(column), items), rule, "got a different number")
    if pa.types.is_floating(kind) or kind == dense_type():
        _check_finite(column, name)
    return column


def dynamic_column(table: pa.Table, names: list[str]) -> pa.ChunkedArray:
    """Return the column of the dynamic field. For each row, it holds the values of the named columns as a JSON text.

    If the only named column is "$meta", that column already holds these texts.

    Raises:
        ValueError: "$meta" is named together with other columns.
    """
    if names == [_DYNAMIC]:
        return _json(table[_DYNAMIC], _DYNAMIC)
    if _DYNAMIC in names:
        other = next(name for name in names if name != _DYNAMIC)
        raise ValueError(
            f"dynamic keys must be given either in the column {_DYNAMIC!r} or as separate columns, got both "
            f"{_DYNAMIC!r} and {other!r}. Use only one of these forms."
        )
    if not names:
        return pa.chunked_array([pa.array(["{}"] * len(table), pa.string())])
    return pa.chunked_array([pa.array([json.dumps(row) for row in table.select(names).to_pylist()], pa.string())])


def _default(field: FieldSchema) -> Any:
    value = field.default_value
    if value is None or not hasattr(value, "WhichOneof"):
        return value
    chosen = value.WhichOneof("data")
    return None if chosen is None else getattr(value, chosen)


def _sparse(column: pa.ChunkedArray, name: str, *, sparse_as_text: bool) -> pa.Array:
    try:
        rows = sparse_rows(column)
    except (TypeError, ValueError) as err:
        raise type(err)(f"the column {name!r}: {err}") from err
    if rows.shape[1] > _LARGEST_TERM + 1:
        raise ValueError(
            f"the token ids in the column {name!r} must be at most {_LARGEST_TERM}, got {rows.shape[1] - 1}. Correct "
            "the row with this token id."
        )
    if not np.isfinite(rows.data).all():
        row = int(np.searchsorted(rows.indptr, np.flatnonzero(~np.isfinite(rows.data))[0], "right")) - 1
        raise ValueError(
            f"the weights in the column {name!r} must be finite, got NaN or inf in row {row}. Correct the row."
        )
    if sparse_as_text:
        return sparse_json(column)
    return column.combine_chunks() if column.type == sparse_type() else sparse_column(rows)


def _json(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Convert a column to JSON texts. A column of strings must already hold JSON texts, and is only checked."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        texts = [None if value is None else json.dumps(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    for row, text in enumerate(column.to_pylist()):
        try:
            json.loads("null" if text is None else text)
        except ValueError as err:
            raise ValueError(
                f"row {row} of the column {name!r} must be a JSON text, got {text[:60]!r} ({err}). Write it with "
                "json.dumps."
            ) from err
    return column.cast(pa.string())


def _cast(column: pa.ChunkedArray, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    texts = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    try:
        if pa.types.is_string(kind) != texts or pa.types.is_boolean(kind) != pa.types.is_boolean(column.type):
            raise pa.ArrowInvalid("a different kind of value")
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as err:
        raise TypeError(
            f"the column {name!r} must fit its field, whose type in a file is {kind}, got {column.type} ({err}). "
            "Convert the column."
        ) from err


def _check_finite(column: pa.ChunkedArray, name: str) -> None:
    values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    if not pc.all(pc.is_finite(values), min_count=0).as_py():
        bad = pc.invert(pc.is_finite(values))
        row = bad.index(True).as_py()
        if pa.types.is_list(column.type):
            row = pc.list_parent_indices(column)[row].as_py()
        raise ValueError(
            f"the numbers in the column {name!r} must be finite, got NaN or inf in row {row}. Correct or drop the row."
        )


def _check(name: str, wrong: pa.ChunkedArray, rule: str, got: str) -> None:
    if pc.any(wrong, min_count=0).as_py():
        raise _wrong(name, wrong, rule, got)


def _wrong(name: str, wrong: pa.ChunkedArray, rule: str, got: str) -> ValueError:
    return ValueError(f"row {wrong.index(True).as_py()} of the column {name!r} {rule}, {got}. Correct or drop the row.")
