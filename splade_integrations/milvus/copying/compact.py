"""Rewrite a milvus-lite collection without the rows that were deleted or replaced."""

from collections.abc import Callable

from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.copying.definition import Definition
from splade_integrations.milvus.copying.job import Job
from splade_integrations.milvus.copying.replacing import finished, original_of, replace_original
from splade_integrations.milvus.copying.report import Report
from splade_integrations.milvus.filters import Engine
from splade_integrations.milvus.fingerprint import recorded

__all__ = ["compact"]


def compact(
    collection_name: str,
    connection: Connection,
    *,
    resume: bool = False,
    advance: Callable[[int], object] = lambda _: None,
) -> Report:
    """Copy all rows to a new collection, so that milvus-lite no longer stores the rows that were deleted or replaced.

    The new collection has the keys, fields, vectors, partitions and properties of the old collection. At the end, the
    new collection takes the name and the aliases of the old collection, which is then dropped. Until then, searches use
    the old collection. Rows that other programs write meanwhile are copied as well. Nothing is encoded.

    milvus-lite's own `compact` does nothing. A Milvus server compacts by itself.

    Args:
        collection_name: The name of the collection, or an alias.
        connection: The milvus-lite file, or a server that milvus-lite runs.
        resume: Whether to continue an earlier call that was interrupted.
        advance: Called repeatedly, each time with the number of rows checked (and copied, if the copy needed them)
            since its previous call.
    Returns:
        What was done. If `unsettled` is not 0, the old collection was not replaced, because other programs kept
        changing it. Call again with `resume=True`.
    Raises:
        ValueError: The collection does not exist or cannot be copied, or the connection is to a full Milvus server.
            Nothing has been written.

    Example:
        >>> import tempfile
        >>> from splade_integrations.milvus.clients import Connection
        >>> from splade_integrations.milvus.collection import Collection
        >>> from splade_integrations.milvus.copying import compact
        >>> from splade_integrations.milvus.rows import Row
        >>> from splade_integrations.milvus.schema import Schema
        >>> place = Connection(tempfile.mkdtemp() + "/example.db")
        >>> fruit = Collection("fruit", Schema(dense_field=None), place)
        >>> fruit.write([Row(id="a", text="apple", sparse={1: 1.0}), Row(id="b", text="plum", sparse={2: 1.0})])
        ['a', 'b']
        >>> fruit.delete(ids=["a"])
        >>> report = compact("fruit", place)
        >>> report.collection, report.rows, report.unsettled
        ('fruit', 1, 0)
        >>> fruit.get(["b"])[0].text
        'plum'
    """
    if connection.engine is Engine.SERVER:
        raise ValueError(
            f"the collection {collection_name!r} must be in milvus-lite, got a Milvus server. A server compacts by "
            "itself. To start a compaction at once, call MilvusClient.compact."
        )
    if resume and (report := finished(collection_name, connection)) is not None:
        return report
    found = original_of(collection_name, connection)
    definition = Definition.read(connection, found)
    name = definition.name if found == collection_name else collection_name
    job = Job(
        definition=definition,
        original_name=name,
        source=connection,
        target=connection,
        name=f"{name}_compact",
        properties=definition.properties,
        text=definition.description.get("description", ""),
        fingerprint=recorded(dict(definition.description)),
        mark={"compact": True},
    )
    report = job.run(resume=resume, advance=advance)
    return report if report.unsettled else replace_original(job, report)
