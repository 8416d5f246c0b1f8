"""`splade copy`: copies a collection with its vectors to another server or file. Nothing is encoded."""

from typing import Annotated

import typer

from splade_integrations.cli.copying import connect, print_estimate, print_report, running
from splade_integrations.cli.options import CollectionName, DatabaseName, Json, Token, Uri

__all__ = ["copy"]


def copy(
    to: Annotated[str, typer.Option(help="Milvus file or server that gets the copy.", show_default=False)],
    uri: Uri = "./splade.db",
    collection: CollectionName = "splade",
    into: Annotated[str | None, typer.Option(help="Name of the copy.", show_default="the original's")] = None,
    token: Token = "",
    db_name: DatabaseName = "",
    to_token: Annotated[
        str,
        typer.Option(help="Token of the server that gets the copy.", envvar="MILVUS_TO_TOKEN", show_default=False),
    ] = "",
    to_db_name: Annotated[
        str, typer.Option(help="Database that gets the copy.", show_default="the server's default")
    ] = "",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue an interrupted run, or compare an existing copy with the original again."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print an estimate of the size.")] = False,
    as_json: Json = False,
) -> None:
    """Copy a collection to another Milvus file or server.

    Nothing is encoded again. The copy has the same keys, fields, vectors, partitions and properties as the original.
    The original stays as it is. With --resume, the command deletes rows of the copy that the original does not have.

    Examples:

      splade copy --uri splade.db -c splade --to http://localhost:19530

      splade copy --uri http://localhost:19530 -c documents --to local.db --dry-run
    """
    if dry_run and resume:
        raise ValueError("--dry-run must be given without --resume, got both. Leave one out.")
    from splade_integrations.milvus import copying

    with connect(uri, token, db_name) as source, connect(to, to_token, to_db_name, must_exist=False) as target:
        if dry_run:
            estimate = copying.estimate_copy(collection, source, target, into=into)
            print_estimate(estimate, as_json=as_json)
            return
        with running("Copying") as advance:
            report = copying.copy_collection(collection, source, target, into=into, resume=resume, advance=advance)
    print_report(report, to, as_json=as_json)
