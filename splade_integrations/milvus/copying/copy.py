"""Copy a collection with all of its vectors, for example from a milvus-lite file to a server. Nothing is encoded."""

import json
from collections.abc import Callable
from typing import Any

from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.copying.definition import Definition
from splade_integrations.milvus.copying.job import Job
from splade_integrations.milvus.copying.report import Estimate, Report
from splade_integrations.milvus.fingerprint import recorded

__all__ = ["bytes_of", "copy_collection", "estimate_copy"]


def copy_collection(
    collection_name: str,
    source: Connection,
    target: Connection,
    *,
    into: str | None = None,
    resume: bool = False,
    advance: Callable[[int], object] = lambda _: None,
) -> Report:
    """Copy a collection to another server or file, or under another name, without encoding its texts again.

    The copy has the fields, keys, vectors, partitions and properties of the original. Indexes keep their type and
    metric. But if the copy goes from milvus-lite to a server or from a server to milvus-lite, vectors get this
    package's default index with the same metric. The original is only read. The copy also gets the changes that other
    programs make to the original meanwhile: both collections are compared again until they are equal, but at most five
    times.

    Args:
        collection_name: The name of the original, or an alias.
        source: The server or file of the original.
        target: The server or file of the copy. It may be the same object as `source` if `into` is a new name.
        into: The name of the copy. None means the name of the original.
        resume: True continues a copy that an earlier call began. If that copy is complete, it is compared with the
            original again. Rows that only the copy has are deleted. With False, there must be no copy yet.
        advance: Called repeatedly, each time with the number of rows checked (and copied, if the copy needed them)
            since its previous call.
    Returns:
        What was done. If `unsettled` is not 0, the original is still changing: call again with `resume=True`.
    Raises:
        ValueError: The collection does not exist or cannot be copied, or the copy's name is taken. Nothing has been
            written.

    Example:
        >>> import tempfile
        >>> from splade_integrations.milvus.clients import Connection
        >>> from splade_integrations.milvus.collection import Collection
        >>> from splade_integrations.milvus.copying import copy_collection
        >>> from splade_integrations.milvus.rows import Row
        >>> from splade_integrations.milvus.schema import Schema
        >>> here, there = (Connection(tempfile.mkdtemp() + "/example.db") for _ in range(2))
        >>> fruit = Collection("fruit", Schema(dense_field=None), here)
        >>> fruit.write([Row(id="a", text="apple", sparse={1: 1.0}), Row(id="b", text="plum", sparse={2: 1.0})])
        ['a', 'b']
        >>> report = copy_collection("fruit", here, there)
        >>> report.rows, report.written, report.unsettled
        (2, 2, 0)
        >>> Collection("fruit", Schema(dense_field=None), there).get(["b"])[0].text
        'plum'
    """
    return _job(collection_name, source, target, into).run(resume=resume, advance=advance)


def estimate_copy(collection_name: str, source: Connection, target: Connection, *, into: str | None = None) -> Estimate:
    """Return how many rows and bytes `copy_collection` would copy, and raise its errors. Nothing is written."""
    job = _job(collection_name, source, target, into)
    job.load()
    job.check(resume=True)
    rows = job.original.count()
    sample = job.original.first_page()
    return Estimate(
        original=job.original_name,
        collection=job.name,
        sparse_field=None,
        rows=rows,
        hours=0.0,
        sparse_bytes=0,
        bytes=rows * bytes_of(sample) // max(1, len(sample)),
    )


def bytes_of(rows: list[dict[str, Any]]) -> int:
    """Return the size of rows in bytes: 4 for each number of a dense vector, and 8 for each term of a sparse vector.

    All other values have the size of their JSON.
    """
    size = 0
    for row in rows:
        for value in row.values():
            if isinstance(value, list) and value and isinstance(value[0], float):
                size += 4 * len(value)
            elif isinstance(value, dict) and value and all(isinstance(key, int) for key in value):
                size += 8 * len(value)
            else:
                size += len(json.dumps(value, ensure_ascii=False, default=repr).encode())
    return size


def _job(collection_name: str, source: Connection, target: Connection, into: str | None) -> Job:
    definition = Definition.read(source, collection_name)
    return Job(
        definition=definition,
        original_name=definition.name,
        source=source,
        target=target,
        name=into or definition.name,
        properties=definition.properties,
        text=definition.description.get("description", ""),
        fingerprint=recorded(dict(definition.description)),
        mark={"source": source.uri},
    )
