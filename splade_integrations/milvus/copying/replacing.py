"""Let a copy take the name and the aliases of its original. No row is lost, even if a program is still writing.

A run that is killed at any of these steps can be repeated:

1. The original gets a temporary name. From then on, programs that write to the old name fail.
2. The original and the copy are compared again, which finds the rows that were written before step 1.
3. The copy gets the name and the aliases of the original.
4. The original is dropped.
"""

import dataclasses

from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.copying.definition import Definition, call
from splade_integrations.milvus.copying.job import Job, mark_of
from splade_integrations.milvus.copying.report import Report
from splade_integrations.milvus.copying.table import Table

__all__ = ["finished", "original_of", "replace_original"]

_ASIDE = "_replaced"


def original_of(name: str, connection: Connection) -> str:
    """Return the original's current name, which is a temporary name if an earlier run was killed in step 2.

    The steps are listed at the top of this module.
    """
    aside = f"{name}{_ASIDE}"
    there = [one for one in (name, aside) if call(connection, "has_collection", collection_name=one)]
    return there[0] if there else name


def replace_original(job: Job, report: Report) -> Report:
    """Let the copy take the place of the original, and return the report with the copy's new name.

    Args:
        job: The copy, which a run has just found equal to its original.
        report: What that run did.
    Raises:
        ValueError: The original keeps changing under its temporary name.
    """
    connection, name = job.source, job.original_name
    aside = f"{name}{_ASIDE}"
    if job.definition.name == name:
        call(connection, "rename_collection", old_name=name, new_name=aside)
        call(connection, "load_collection", collection_name=aside, timeout=None)
    moved = dataclasses.replace(job, definition=Definition.read(connection, aside))
    again = moved.compare()
    if again.unsettled:
        raise ValueError(
            f"the original must not change while it is replaced, got {again.unsettled} changed rows in {aside!r}, its "
            f"temporary name. Stop the programs that write to it, and run the same command with --resume."
        )
    call(connection, "rename_collection", old_name=job.name, new_name=name)
    call(connection, "load_collection", collection_name=name, timeout=None)
    _move_aliases_and_drop(connection, aside, name)
    return dataclasses.replace(
        report,
        collection=name,
        written=report.written + again.written,
        deleted=report.deleted + again.deleted,
        passes=report.passes + again.passes,
    )


def finished(name: str, connection: Connection) -> Report | None:
    """Finish a run that was killed after it began step 3. Return its report, or None if there was no such run.

    The steps are listed at the top of this module.
    """
    aside = f"{name}{_ASIDE}"
    if not all(call(connection, "has_collection", collection_name=one) for one in (name, aside)):
        return None
    copy = Definition.read(connection, name)
    mark = mark_of(copy.properties)
    if mark is None or mark["original"] != name or copy.name != name:
        return None
    aliases = _move_aliases_and_drop(connection, aside, name)
    call(connection, "load_collection", collection_name=name, timeout=None)
    return Report(
        original=name,
        collection=name,
        sparse_field=mark.get("sparse"),
        rows=Table.of(connection, name, copy).count(),
        written=0,
        deleted=0,
        passes=0,
        unsettled=0,
        aliases=aliases,
    )


def _move_aliases_and_drop(connection: Connection, aside: str, name: str) -> tuple[str, ...]:
    aliases = tuple(call(connection, "list_aliases", collection_name=aside)["aliases"])
    for alias in aliases:
        call(connection, "alter_alias", collection_name=name, alias=alias)
    call(connection, "drop_collection", collection_name=aside)
    return aliases
