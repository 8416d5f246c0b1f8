"""Add SPLADE vectors to a collection: copy the collection, and encode its texts for the copy."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.copying.copy import bytes_of
from splade_integrations.milvus.copying.definition import Definition, call
from splade_integrations.milvus.copying.filling import check_text, field_to_fill, filler, text_in
from splade_integrations.milvus.copying.job import Job
from splade_integrations.milvus.copying.passes import MOST_PASSES, ROWS_AT_ONCE, Row
from splade_integrations.milvus.copying.replacing import finished, original_of, replace_original
from splade_integrations.milvus.copying.report import Estimate, Report
from splade_integrations.milvus.copying.table import Table
from splade_integrations.milvus.defaults import MAX_TEXT_BYTES
from splade_integrations.milvus.fingerprint import without_encoder
from splade_integrations.milvus.fusion_property import without_fusion
from splade_integrations.models.fingerprint import fingerprint_of
from splade_integrations.sparse import SparseTextEncoder

with require_extra("milvus", module=__name__):
    from pymilvus import DataType

__all__ = ["add_sparse", "estimate_sparse", "sample_row"]

_SAMPLE = 64  # the number of texts that are encoded for an estimate


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
    rows_at_once: int = ROWS_AT_ONCE,
    advance: Callable[[int], object] = lambda _: None,
    most_passes: int = MOST_PASSES,
) -> Report:
    """Copy a collection, and give the copy SPLADE vectors as well, so that a search can combine several vectors.

    The copy has the keys, fields, vectors, indexes, partitions and properties of the original, and the fingerprint of
    the encoder. The original is only read. The copy also gets the changes that other programs make to the
    original meanwhile: both collections are compared again until they are equal, but at most `most_passes` times. Only
    rows that the copy lacks or holds differently are encoded, so an interrupted call can be continued.

    If the original has a SPLADE field that another encoder filled, the copy gets this field with new vectors. So this
    function can also change the encoder of a collection.

    Args:
        encoder: The encoder of the texts.
        collection_name: The name of the original, or an alias.
        connection: The server or file.
        text_field: The field or the dynamic key that holds the texts. If it is a dynamic key, it becomes a field in the
            copy.
        sparse_field: The name of the field for the new vectors. None means the SPLADE field of the original. If the
            original has no such field, None means "sparse", or another name if "sparse" is taken.
        into: The name of the copy. None means the name of the original followed by "_splade".
        text_of: Returns the text to encode for a row of the original. The row is given as {field or dynamic key:
            value}. None means the text of `text_field`.
        resume: True continues a copy that an earlier call began. If that copy is complete, it is compared with the
            original again. Rows that only the copy has are deleted. With False, there must be no copy yet.
        replace: Whether the copy takes the original's name and aliases at the end. The original is then dropped.
        rows_at_once: The largest number of rows that are encoded and written together. A call that is killed can lose
            the work on these rows.
        advance: Called repeatedly, each time with the number of rows checked (and copied, if the copy needed them)
            since its previous call.
        most_passes: The largest number of times that the collections are compared.
    Returns:
        What was done. If `unsettled` is not 0, the original is still changing: call again with `resume=True`.
    Raises:
        ValueError: The collection does not exist, lacks the text field or cannot be copied, or a given name is taken.
            Nothing has been written.

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
    job = dataclasses.replace(job, rows_at_once=rows_at_once)
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
    """Estimate the time that `add_sparse` would take, and the size of the copy. Raise the errors of `add_sparse`.

    A few texts are encoded, and nothing is written.
    """
    job = _job(encoder, collection_name, connection, text_field, sparse_field, into, text_of)
    job.check(resume=True)
    rows, sample = job.original.count(), job.original.first_page()
    sample = [job.as_stored(row) for row in sample[:: max(1, len(sample) // _SAMPLE)]]
    job.fill(sample[:8])  # not timed, because the first call of an encoder takes longer than later calls
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
    """Return a row of a collection in the form in which `text_of` receives it, or None if the collection is empty."""
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
    is_new = check_text(definition, text_field)
    field = field_to_fill(definition, connection, sparse_field)
    added: dict[str, Mapping[str, Any]] = {field: {"datatype": DataType.SPARSE_FLOAT_VECTOR}}
    if is_new:
        added[text_field] = {"datatype": DataType.VARCHAR, "max_length": MAX_TEXT_BYTES}

    def as_stored(row: Row) -> Row:
        return {**row, text_field: text_in(row, text_field, definition.primary)} if is_new else row

    fill = filler(encoder, definition.primary, text_field, text_of)
    text, properties = without_encoder(definition.description.get("description", ""), definition.properties)
    fingerprint = fingerprint_of(encoder)
    return Job(
        definition=definition,
        original_name=original_name,
        source=connection,
        target=connection,
        name=into or f"{original_name}_splade",
        fill=lambda rows: fill(rows, field),
        as_stored=as_stored,
        added=added,
        left_out=(field,) if field in fields else (),
        properties=without_fusion(properties),  # the fusion is not kept: it was chosen for the original's sides
        text=text,
        fingerprint=fingerprint,
        sparse_field=field,
        mark={
            "text": text_field,
            "sparse": field,
            "encoder": None if fingerprint is None else fingerprint.to_json(),
        },
    )
