"""Runs `splade index --ray`: Ray encodes the records and writes them, and a summary says what limits the speed."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from splade_integrations.cli.progress import progress
from splade_integrations.cli.terminal import stdout
from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.lite import address_for_processes

if TYPE_CHECKING:
    from splade_integrations.cli.milvus_store import Store
    from splade_integrations.cli.ray_options import RayOptions
    from splade_integrations.options import EncoderOptions
    from splade_integrations.ray import RunReport
    from splade_integrations.records import Record

__all__ = ["index_on_ray", "print_summary"]

_BOTTLENECKS = {
    "encode": "encoding is the bottleneck; more --encoders, a GPU or --dtype int8 help",
    "write": "writing is the bottleneck; more --writers help on a Milvus server",
    "milvus": "Milvus or --rows-per-second is the bottleneck",
    "read": "reading is the bottleneck, or the run was too short to tell",
}


def index_on_ray(
    store: "Store",
    open_records: Callable[[], Iterable["Record"]],
    total: int | None,
    model: str,
    options: "EncoderOptions",
    dense: str | None,
    how: "RayOptions",
    *,
    resume: bool,
) -> "RunReport":
    """Encode records with Ray, and write them into a collection that exists.

    Args:
        store: The collection.
        open_records: A function that returns the records. Ray calls it in another process.
        total: The number of records, or None if it is unknown.
        model: The SPLADE model.
        options: The options of `SpladeEncoder`.
        dense: The name of the dense model, or None.
        how: The options for Ray.
        resume: Whether the collection may hold some of the records already.
    Raises:
        ValueError: The collection is in a milvus-lite file, but Ray uses other machines.
    """
    with require_extra("ray", module="splade index --ray"):
        from splade_integrations.ray.encoding import Actors
        from splade_integrations.ray.indexing import BadRows, Writers, encode_stage, run
        from splade_integrations.ray.local import connected, on_this_machine
        from splade_integrations.ray.records import dataset_of

    with connected(how.ray_address):
        if not on_this_machine() and (address := address_for_processes(store.uri)) != store.uri:
            raise ValueError(
                f"with a Ray cluster, --uri must be a Milvus server, got the milvus-lite file {store.uri}. Give the "
                f"address of a server. Other machines of the cluster cannot reach the file at {address}."
            )
        with progress("Indexing", total) as advance:
            return run(
                dataset_of(open_records),
                encode_stage(model, dense, options),
                Actors(rows_per_batch=how.rows_per_batch, concurrency=how.number_of_encoders(), num_gpus=how.gpus),
                store.place(),
                Writers(actors=how.writers, rows_per_second=how.rows_per_second),
                BadRows(side_file=how.bad_rows, most=how.max_bad_rows),
                resume=resume,
                advance=advance,
            )


def print_summary(report: "RunReport", where: str, what: str) -> None:
    """Print what a run did, the rates of its stages, and the stage that the other stages waited for.

    Args:
        report: The report of the run.
        where: The name and the address of the collection.
        what: What the rows are: "documents" or "chunks".
    """
    rates = report.rates()
    lines: list[Any] = [
        f"{report.written:,} {what} added, {report.skipped:,} already in {where}, {report.bad:,} left out"
        + (f" (see {report.side_file})." if report.side_file else "."),
        f"{report.rows:,} rows in {report.seconds:,.1f} s after {report.start_seconds:,.1f} s to start: "
        f"{rates['all']:,.0f} texts/s; encoding alone {rates['encode']:,.0f}, writing alone {rates['write']:,.0f}.",
        f"{_BOTTLENECKS[report.bottleneck()].capitalize()}.",
    ]
    for line in lines:
        stdout().print(line, markup=False, soft_wrap=True)
