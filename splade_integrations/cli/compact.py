"""`splade compact`: rewrites a collection of milvus-lite without the rows that were deleted or replaced."""

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
    """Rewrite a milvus-lite collection without its deleted rows.

    milvus-lite keeps rows in its files after they were deleted or replaced. It still reads these rows in each search,
    and counts their words for BM25. The command copies all other rows into a new collection, which then takes the place
    of the old collection. Rows that other programs write in the meantime are copied, too. Nothing is encoded again. A
    Milvus server compacts its collections by itself, so the command refuses to run on a server.

    Examples:

      splade compact --uri splade.db

      splade compact --uri splade.db -c documents --resume
    """
    with connect(uri, "", "") as connection:
        from splade_integrations.milvus import copying

        with running("Compacting") as advance:
            report = copying.compact(collection, connection, resume=resume, advance=advance)
    print_report(report, uri, as_json=as_json)
