"""The parts that `splade add-sparse`, `copy` and `compact` share: connections, progress and printed reports."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from splade_integrations.cli.interrupting import saying_if_interrupted
from splade_integrations.cli.options import check_milvus_file
from splade_integrations.cli.terminal import print_json, stdout

if TYPE_CHECKING:
    from splade_integrations.milvus.clients import Connection
    from splade_integrations.milvus.copying import Estimate, Report

__all__ = ["connect", "print_estimate", "print_report", "running"]


@contextmanager
def connect(uri: str, token: str, db_name: str, *, must_exist: bool = True) -> Iterator["Connection"]:
    """Open a connection to Milvus, and close it at the end of the `with` block.

    Args:
        uri: A milvus-lite file or a server.
        token: The server's token.
        db_name: The server's database. "" means the default database.
        must_exist: Whether a milvus-lite file must exist already.
    """
    if must_exist:
        check_milvus_file(uri)
    from splade_integrations.milvus.clients import Connection

    connection = Connection(uri, {"token": token, "db_name": db_name})
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def running(description: str) -> Iterator[Callable[[int], None]]:
    """Show progress, and after Ctrl-C say how to continue.

    Yields a function that must be called with the number of rows that were finished since its last call.
    """
    from splade_integrations.cli.progress import progress

    kept = "the rows that were written are kept. To continue, run the same command with --resume."
    with saying_if_interrupted(lambda: kept), progress(description, None) as advance:
        yield advance


def print_report(report: "Report", uri: str, *, as_json: bool) -> None:
    """Print the report of a copy, and how to switch an alias to the new collection.

    Raises:
        ValueError: The original was still changing during its last comparison with the copy.
    """
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        field = "" if report.sparse_field is None else f", SPLADE vectors in the field {report.sparse_field!r}"
        out = stdout()
        out.print(
            f"{report.collection!r} of {uri}: {report.rows:,} rows{field}. {report.written:,} written and "
            f"{report.deleted:,} deleted in {report.passes} comparisons with {report.original!r}.",
            soft_wrap=True,
        )
        if report.collection != report.original:
            out.print("To switch an alias to the new collection, run in Python:", soft_wrap=True)
            for alias in report.aliases or ("ALIAS",):
                line = f'MilvusClient("{uri}").alter_alias("{report.collection}", "{alias}")'
                out.print(f"    {line}", soft_wrap=True, markup=False)
    if report.unsettled:
        raise ValueError(
            f"the original {report.original!r} must stop changing, got {report.unsettled:,} changed rows in the last "
            "comparison. These changes are in the copy, but later changes may be missing. Stop the programs that write "
            "to the original, and run the same command with --resume."
        )


def print_estimate(estimate: "Estimate", *, as_json: bool) -> None:
    """Print the estimated size of a copy, and the estimated time to encode it."""
    if as_json:
        print_json(dataclasses.asdict(estimate))
        return
    encoding = ""
    if estimate.sparse_field is not None:
        encoding = (
            f" Encoding takes about {estimate.hours:.2g} hours on this machine. The SPLADE vectors, in the field "
            f"{estimate.sparse_field!r}, take about {estimate.sparse_bytes:,} bytes."
        )
    stdout().print(
        f"{estimate.original!r} has {estimate.rows:,} rows. The collection {estimate.collection!r} would take about "
        f"{estimate.bytes:,} bytes without indexes.{encoding} Nothing was written.",
        soft_wrap=True,
    )
