"""Add SPLADE vectors to a collection on a server without a copy: add a field, fill it row by row, then index it.

This module was written from Milvus's source (3.0.0-beta of July 2026, `addCollectionFieldTask` and `upsertTask` in
internal/proxy) and has not been run on a server. The tests check the requests that this module sends.

In Milvus 3.0.0-beta, a new field must be nullable. An upsert with partial_update keeps the stored row's other
fields. If Milvus numbers the rows of a collection, an upsert gives the rows new numbers. Milvus 2.6 and milvus-lite
3.2.2 cannot add vector fields to a collection.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.copying.definition import Definition, call
from splade_integrations.milvus.copying.filling import check_text, filler, new_field
from splade_integrations.milvus.copying.job import mark_of, write_mark
from splade_integrations.milvus.copying.passes import MOST_PASSES, Pass, Row, passes
from splade_integrations.milvus.copying.report import Report
from splade_integrations.milvus.copying.table import Table
from splade_integrations.milvus.defaults import ROWS_PER_WRITE
from splade_integrations.milvus.filters import Engine, ids_expr
from splade_integrations.milvus.fingerprint import record
from splade_integrations.milvus.patience import Pace
from splade_integrations.milvus.schema import index_of
from splade_integrations.models.fingerprint import fingerprint_of
from splade_integrations.sparse import SparseTextEncoder

with require_extra("milvus", module=__name__):
    from pymilvus import DataType, MilvusClient
    from pymilvus.exceptions import MilvusException

__all__ = ["add_sparse_in_place"]


def add_sparse_in_place(
    encoder: SparseTextEncoder,
    collection_name: str,
    connection: Connection,
    *,
    text_field: str = "text",
    sparse_field: str | None = None,
    text_of: Callable[[Mapping[str, Any]], str] | None = None,
    rows_per_second: float = 500.0,
    resume: bool = False,
    advance: Callable[[int], object] = lambda _: None,
    most_passes: int = MOST_PASSES,
) -> Report:
    """Add SPLADE vectors to the rows of a collection on a server.

    This function has not been run on a server so far, so try it on a copy of the collection first.

    The function reads all rows to find those that have no vector yet. So an interrupted call can be continued, and rows
    that other programs add meanwhile get a vector as well. To update a row, the server reads the stored row and writes
    it again with the vector. A change that another program makes between these two steps is lost. `add_sparse` does
    not have this risk.

    Args:
        encoder: The encoder of the texts.
        collection_name: The name of the collection, or an alias.
        connection: The server.
        text_field: The field that holds the texts.
        sparse_field: The name of the new field. None means "sparse", or another name if "sparse" is taken.
        text_of: Returns the text to encode for a row. None means the text of `text_field`.
        rows_per_second: The largest number of rows to update in a second, so that searches are not slowed down.
        resume: Whether to continue an earlier call. With False, there must be no earlier call.
        advance: Called repeatedly, each time with the number of rows read since its previous call.
        most_passes: The largest number of times that the collection is read.
    Returns:
        What was done. If `unsettled` is not 0, the collection is still changing: call again with `resume=True`.
    Raises:
        ValueError: The collection is not on a server, or Milvus numbers its rows. The reasons that `add_sparse` lists
            apply as well. Nothing has been written.
    """
    definition = Definition.read(connection, collection_name)
    name, fingerprint = definition.name, fingerprint_of(encoder)
    mark = mark_of(definition.properties) or {}
    begun = mark.get("in_place")
    _check(definition, text_field, begun=begun, resume=resume)
    call(connection, "load_collection", collection_name=name, timeout=None)
    field = begun or new_field(definition, connection, sparse_field)
    wanted = {
        "original": name,
        "complete": False,
        "in_place": field,
        "text": text_field,
        "encoder": None if fingerprint is None else fingerprint.to_json(),
    }
    if begun is not None and {**mark, "complete": False} != wanted:
        raise ValueError(
            f"the SPLADE field {begun!r} of collection {name!r} must be filled with the encoder and the text field of "
            "the earlier call, got another encoder or text field. Give the options of the earlier call."
        )
    write_mark(connection, name, wanted)
    record(connection.client, name, fingerprint)
    if field not in definition.fields:
        how = {"data_type": DataType.SPARSE_FLOAT_VECTOR, "nullable": True}
        call(connection, "add_collection_field", collection_name=name, field_name=field, **how)
    read = definition.fields if text_of is not None else (definition.primary, text_field)
    table = Table.of(connection, name, definition).only([*dict.fromkeys([*read, field])])
    fill = filler(encoder, definition.primary, text_field, text_of)
    pace = Pace(rows_per_second)
    found = passes(lambda: _one_pass(table, field, fill, text_field, pace, advance), most_passes)
    params = MilvusClient.prepare_index_params()
    params.add_index(field, **index_of("sparse", connection.engine))
    call(connection, "create_index", collection_name=name, index_params=params, sync=False)
    call(connection, "refresh_load", collection_name=name, timeout=None)
    unsettled = found[-1].written
    write_mark(connection, name, {**wanted, "complete": not unsettled})
    return Report(
        original=name,
        collection=name,
        sparse_field=field,
        rows=found[-1].rows,
        written=sum(one.written for one in found),
        deleted=0,
        passes=len(found),
        unsettled=unsettled,
        aliases=definition.aliases,
    )


def _check(definition: Definition, text_field: str, *, begun: str | None, resume: bool) -> None:
    name = definition.name
    if definition.engine is not Engine.SERVER:
        raise ValueError(
            f"the collection {name!r} must be on a Milvus server, got {definition.engine.value}, which cannot add the "
            "field. To fill a copy instead, leave out --in-place (in Python: use add_sparse)."
        )
    if definition.auto_id:
        raise ValueError(
            f"the rows of collection {name!r} must have keys that the user gave, got keys that Milvus gave (auto_id). "
            "An update would give these rows new keys. To fill a copy instead, leave out --in-place (in Python: use "
            "add_sparse)."
        )
    if check_text(definition, text_field):
        raise ValueError(
            f"the texts of collection {name!r} must be in a field, got the dynamic key {text_field!r}. To fill a "
            "copy in which this key is a field, leave out --in-place (in Python: use add_sparse)."
        )
    if begun is not None and not resume:
        raise ValueError(
            f"the collection {name!r} must have no SPLADE field from an earlier call with --in-place, got {begun!r}. "
            "Continue that call with --resume (in Python: resume=True)."
        )


def _one_pass(
    table: Table,
    field: str,
    fill: Callable[[Sequence[Row], str], list[Row]],
    text_field: str,
    pace: Pace,
    advance: Callable[[int], object],
) -> Pass:
    """Give a vector to each row that has none."""
    found = Pass()
    for partition in table.partitions():
        for page in table.pages(partition):
            waiting = [row for row in page if not row.get(field)]
            found.rows += len(page)
            found.written += len(waiting)
            while waiting:
                some, waiting = waiting[:ROWS_PER_WRITE], waiting[ROWS_PER_WRITE:]
                pace.wait(len(some))
                without = [{key: value for key, value in row.items() if key != field} for row in some]
                vectors = [{table.primary: row[table.primary], field: row[field]} for row in fill(without, field)]
                _update(table, vectors, partition)
                # If a text was changed after it was read, its row now has the vector of the old text. So the row is
                # updated again.
                there = _there(table, some, partition)
                waiting = [
                    there[row[table.primary]]
                    for row in some
                    if there.get(row[table.primary], row).get(text_field) != row.get(text_field)
                ] + waiting
            advance(len(page))
    return found


def _update(table: Table, vectors: list[Row], partition: str | None) -> None:
    how: dict[str, Any] = {} if partition is None else {"partition_name": partition}
    how |= {"collection_name": table.name, "partial_update": True}
    try:
        call(table.connection, "upsert", data=vectors, **how)
    except MilvusException:
        # If one of the rows has been deleted meanwhile, the server refuses all rows, because the update has no values
        # for the other fields of the deleted row.
        there = _there(table, vectors, partition)
        if len(there) == len(vectors):
            raise
        if there:
            call(table.connection, "upsert", data=[row for row in vectors if row[table.primary] in there], **how)


def _there(table: Table, rows: Sequence[Row], partition: str | None) -> dict[Any, Row]:
    """Return {key: stored row} for those of the rows that are still stored."""
    expr = ids_expr(table.primary, [row[table.primary] for row in rows])
    return {row[table.primary]: row for row in table.matching(expr, partition)}
