"""Give a collection a SPLADE side: copy it beside the original, and encode its texts."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from splade_integrations.adapter import document_terms
from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.copying.copy import bytes_of
from splade_integrations.milvus.copying.definition import Definition, call
from splade_integrations.milvus.copying.job import Job
from splade_integrations.milvus.copying.passes import MOST_PASSES, Row
from splade_integrations.milvus.copying.replacing import finished, original_of, replace_original
from splade_integrations.milvus.copying.report import Estimate, Report
from splade_integrations.milvus.copying.table import Table
from splade_integrations.milvus.defaults import MAX_TEXT_BYTES, check_varchar
from splade_integrations.milvus.fingerprint import recorded, without_encoder
from splade_integrations.milvus.fusion_property import without_fusion
from splade_integrations.milvus.values import sparse_row
from splade_integrations.models.fingerprint import fingerprint_of
from splade_integrations.sparse import SparseTextEncoder, to_dicts

with require_extra("milvus", module=__name__):
    from pymilvus import DataType

__all__ = ["add_sparse", "estimate_sparse", "sample_row"]

_NAMES = ("sparse", "splade", "splade_sparse", "splade_vector")
_SAMPLE = 64  # so many texts are encoded for an estimate


def add_sparse(
    encoder: SparseTextEncoder,
    collection_name: str,
    connection: Connection,
    *,
    text_field: str = "text",
    sparse_field: str | None = None,
    into: str | None = None,
    text_of: Callable[[Mapping[str, Any]], str] | None = None,
    resume: bool = False,
    replace: bool = False,
    advance: Callable[[int], object] = lambda _: None,
    most_passes: int = MOST_PASSES,
) -> Report:
    """Make a copy of a collection that also has SPLADE vectors, so that it can be searched by several sides.

    The copy has the keys, fields, vectors, indexes, partitions and properties of the original, and the fingerprint of
    the encoder. The original is only read. Rows that others add, change or delete meanwhile are found, because both
    collections are compared again until they are equal. Only rows that the copy lacks or holds differently are encoded,
    so an interrupted call can be continued.

    If the original has a SPLADE field that another encoder filled, the copy gets this field with new vectors. So the
    same function changes the encoder of a collection.

    Args:
        encoder: The encoder of the texts.
        collection_name: The name of the original, or an alias.
        connection: The server or file.
        text_field: The field, or the dynamic key, that holds the texts. For a dynamic key, the copy gets a field.
        sparse_field: The name of the new field. None means the SPLADE field of the original, or else "sparse" or
            another name that neither a field nor a dynamic key has.
        into: The name of the copy. None means the name of the original followed by "_splade".
        text_of: Returns the text to encode for a row of the original: {field or dynamic key: value}. None means the
            text of `text_field`.
        resume: Whether to continue a copy that an earlier call began, or to compare a complete one again. Rows that
            only the copy has are deleted.
        replace: Whether the copy takes the name and the aliases of the original at the end. The original is dropped.
        advance: Called with the number of rows that were compared since the last call.
        most_passes: The largest number of times that the collections are compared.
    Returns:
        What was done. If its `unsettled` is not 0, the original is still changing: call again with `resume=True`.
    Raises:
        ValueError: The collection does not exist, lacks the text field or cannot be copied, or a name is taken. Nothing
            has been written.

    Example:
        >>> import tempfile
        >>> from splade_integrations import SpladeEncoder
        >>> from splade_integrations.milvus.clients import Connection
        >>> from splade_integrations.milvus.collection import Collection
        >>> from splade_integrations.milvus.copying import add_sparse
        >>> from splade_integrations.milvus.rows import Row
        >>> from splade_integrations.milvus.schema import Schema
        >>> place = Connection(tempfile.mkdtemp() + "/example.db")
        >>> animals = Collection("animals", Schema(sparse_field=None), place)
        >>> animals.write([
        ...     Row(id="cat", text="Cats purr.", dense=[1.0, 0.0]), Row(id="dog", text="Dogs bark.", dense=[0.0, 1.0])
        ... ])
        ['cat', 'dog']
        >>> encoder = SpladeEncoder(model_folder)
        >>> report = add_sparse(encoder, "animals", place)
        >>> report.collection, report.sparse_field, report.rows, report.unsettled
        ('animals_splade', 'sparse', 2, 0)
        >>> from splade_integrations import to_dicts
        >>> query = {"sparse": to_dicts(encoder.encode_queries(["a barking dog"]))[0], "dense": [0.0, 1.0]}
        >>> [hit.id for hit in Collection("animals_splade", Schema(), place).search(query, k=1)]
        ['dog']
    """
    if replace and resume and (report := finished(collection_name, connection)) is not None:
        return report
    job = _job(encoder, collection_name, connection, text_field, sparse_field, into, text_of)
    report = job.run(resume=resume, advance=advance, most_passes=most_passes)
    return replace_original(job, report) if replace and not report.unsettled else report


def estimate_sparse(
    encoder: SparseTextEncoder,
    collection_name: str,
    connection: Connection,
    *,
    text_field: str = "text",
    sparse_field: str | None = None,
    into: str | None = None,
    text_of: Callable[[Mapping[str, Any]], str] | None = None,
) -> Estimate:
    """Return what `add_sparse` would cost, and raise its errors. A few texts are encoded, and nothing is written."""
    job = _job(encoder, collection_name, connection, text_field, sparse_field, into, text_of)
    job.check(resume=True)
    rows, sample = job.original.count(), job.original.first_page()
    sample = [job.as_stored(row) for row in sample[:: max(1, len(sample) // _SAMPLE)]]
    job.fill(sample[:8])  # the first call of an encoder takes longer
    start = time.perf_counter()
    filled = job.fill(sample)
    seconds = time.perf_counter() - start
    terms = sum(row[str(job.sparse_field)].nnz for row in filled)
    share = rows / max(1, len(sample))
    return Estimate(
        original=job.original_name,
        collection=job.name,
        sparse_field=job.sparse_field,
        rows=rows,
        hours=share * seconds / 3600,
        sparse_bytes=round(share * 8 * terms),
        bytes=round(share * (bytes_of(sample) + 8 * terms)),
    )


def sample_row(connection: Connection, collection_name: str) -> dict[str, Any] | None:
    """Return a row of a collection as `text_of` gets it, or None if the collection is empty."""
    definition = Definition.read(connection, original_of(collection_name, connection))
    call(connection, "load_collection", collection_name=definition.name, timeout=None)
    return next(iter(Table.of(connection, definition.name, definition).first_page()), None)


def _job(
    encoder: SparseTextEncoder,
    collection_name: str,
    connection: Connection,
    text_field: str,
    sparse_field: str | None,
    into: str | None,
    text_of: Callable[[Mapping[str, Any]], str] | None,
) -> Job:
    found = original_of(collection_name, connection)
    definition = Definition.read(connection, found)
    call(connection, "load_collection", collection_name=definition.name, timeout=None)
    original_name = definition.name if found == collection_name else collection_name
    fields = definition.fields
    is_new = _check_text(definition, text_field)
    field = _sparse_field(definition, connection, sparse_field)
    added: dict[str, Mapping[str, Any]] = {field: {"datatype": DataType.SPARSE_FLOAT_VECTOR}}
    if is_new:
        added[text_field] = {"datatype": DataType.VARCHAR, "max_length": MAX_TEXT_BYTES}

    def as_stored(row: Row) -> Row:
        return {**row, text_field: _text(row, text_field, definition.primary)} if is_new else row

    def fill(rows: Any) -> list[Row]:
        for row in rows:
            if field in row:
                raise ValueError(
                    f"the row {row[definition.primary]!r} must have no dynamic key with the name of the new field, got "
                    f"{field!r}. Give the new field another name, and begin another copy."
                )
        texts = [text_of(row) if text_of is not None else _text(row, text_field, definition.primary) for row in rows]
        made = to_dicts(encoder.encode_documents(texts))
        return [
            {**row, field: sparse_row(document_terms(terms, text), position)}
            for position, (row, terms, text) in enumerate(zip(rows, made, texts, strict=True))
        ]

    text, properties = without_encoder(definition.description.get("description", ""), definition.properties)
    fingerprint = fingerprint_of(encoder)
    return Job(
        definition=definition,
        original_name=original_name,
        source=connection,
        target=connection,
        name=into or f"{original_name}_splade",
        fill=fill,
        as_stored=as_stored,
        added=added,
        left_out=(field,) if field in fields else (),
        properties=without_fusion(properties),  # the fusion was chosen for other sides
        text=text,
        fingerprint=fingerprint,
        sparse_field=field,
        mark={
            "text": text_field,
            "sparse": field,
            "encoder": None if fingerprint is None else fingerprint.to_json(),
        },
    )


def _check_text(definition: Definition, text_field: str) -> bool:
    """Return whether the copy needs a new field for the texts, because the original keeps them in a dynamic key."""
    if text_field not in definition.fields and definition.dynamic:
        return True
    kind = definition.fields.get(text_field, {}).get("type")
    if kind != DataType.VARCHAR:
        found = ", ".join(f"{name} ({DataType(field['type']).name})" for name, field in definition.fields.items())
        raise ValueError(
            f"the texts of collection {definition.name!r} must be in a field of type VARCHAR, got {text_field!r} and "
            f"the fields {found}. Name the field that holds the texts."
        )
    return False


def _text(row: Mapping[str, Any], text_field: str, primary: str) -> str:
    text = row.get(text_field)
    if text is not None and not isinstance(text, str):
        raise TypeError(
            f"the text of each row must be a str, got {type(text).__name__} in {text_field!r} of the row "
            f"{row[primary]!r}. Correct the row, or name the field that holds the texts."
        )
    check_varchar(text or "", f"the text of the row {row[primary]!r}", "Shorten it.")
    return text or ""


def _sparse_field(definition: Definition, connection: Connection, wanted: str | None) -> str:
    """Return the name of the field to fill: one of the original that is filled anew, or a name that is free."""
    own = [
        name
        for name, field in definition.fields.items()
        if field["type"] == DataType.SPARSE_FLOAT_VECTOR and name not in definition.computed
    ]
    if wanted in own:
        return str(wanted)
    if wanted is None and len(own) == 1 and recorded(dict(definition.description)) is not None:
        return own[0]
    taken = {*definition.fields, *_dynamic_keys(definition, connection)}
    if wanted in taken:
        raise ValueError(
            f"the new field must have a name that is not taken in collection {definition.name!r}, got {wanted!r}. Give "
            "it another name."
        )
    return wanted or next(name for name in _names() if name not in taken)


def _names() -> Any:
    yield from _NAMES
    number = 2
    while True:
        yield f"{_NAMES[0]}_{number}"
        number += 1


def _dynamic_keys(definition: Definition, connection: Connection) -> set[str]:
    if not definition.dynamic:
        return set()
    table = Table.of(connection, definition.name, definition)
    fields = [definition.primary, "$meta"]
    return {
        key
        for partition in table.partitions()
        for page in table.pages(partition, fields=fields)
        for row in page
        for key in row
    }
