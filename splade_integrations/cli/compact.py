"""`splade compact`: writes a collection of milvus-lite anew, without the rows that were deleted or replaced."""

from typing import Annotated

import typer

from splade_integrations.cli.copying import connect, print_report, running
from splade_integrations.cli.options import CollectionName, Json, Uri

__all__ = ["compact"]


def compact(
    uri: Uri = "./splade.db",
    collection: CollectionName = "splade",
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Write a milvus-lite collection anew, without its deleted rows.

    milvus-lite keeps deleted and replaced rows in its files, reads them in each search, and counts their words for
    BM25. A full Milvus server compacts by itself, so the command refuses it. Nothing is encoded again, and rows that
    programs write meanwhile are found.

    Examples:

      splade compact --uri splade.db

      splade compact --uri splade.db -c documents --resume
    """
    with connect(uri, "", "") as connection:
        from splade_integrations.milvus import copying

        with running("Compacting") as advance:
            report = copying.compact(collection, connection, resume=resume, advance=advance)
    print_report(report, uri, as_json=as_json)
