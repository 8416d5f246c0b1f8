"""Indexes a Ray dataset into a Milvus collection, which may be in use meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import ray
from ray.data import Dataset

from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.lite import address_for_processes
from splade_integrations.milvus.schema import Schema
from splade_integrations.options import EncoderOptions
from splade_integrations.ray.encoding import Actors, DenseModel, EncodeStage, loaded_dense, pool
from splade_integrations.ray.place import Place
from splade_integrations.ray.report import RunReport, collect
from splade_integrations.ray.rows import DENSE, ERROR, SECONDS, SKIPPED, SPARSE, TEXT, Columns
from splade_integrations.ray.writing import EncodeAndWrite, SkipStored, WriteRows

__all__ = ["HELPER_CPUS", "BadRows", "Writers", "encode_stage", "index_dataset", "run"]

# The number of CPUs that Ray reserves for an actor that looks up or writes rows. These actors mostly wait for Milvus.
# If they reserved more, they might have to wait for CPUs that other tasks hold, while those tasks in turn wait for
# these actors.
HELPER_CPUS = 0.1


@dataclass(frozen=True, kw_only=True)
class Writers:
    """How rows are written into a collection.

    Args:
        actors: The number of actors that write. milvus-lite accepts rows from only one actor.
        rows_per_second: The largest number of rows per second that all actors write together. None sets no limit.
        patience_seconds: For how many seconds a call is repeated while Milvus does not answer, or asks for fewer
            requests.
    """

    actors: int = 1
    rows_per_second: float | None = None
    patience_seconds: float = 600.0


@dataclass(frozen=True, kw_only=True)
class BadRows:
    """What happens to rows that cannot be indexed.

    Args:
        side_file: The file for these rows and the reasons, with one JSON object per line. None writes no file.
        most: The largest number of such rows that a run allows. One more such row ends the run.
    """

    side_file: str | Path | None = "bad-rows.jsonl"
    most: int = 100


def index_dataset(
    dataset: Dataset,
    model_name: str,
    *,
    uri: str,
    collection_name: str = "splade",
    milvus_token: str = "",
    db_name: str = "",
    columns: Columns = Columns(),  # noqa: B008  # the default is immutable
    dense: DenseModel | None = None,
    bm25: bool = False,
    actors: Actors = Actors(),  # noqa: B008
    writers: Writers = Writers(),  # the default is immutable
    bad_rows: BadRows = BadRows(),
    advance: Callable[[int], object] = lambda _: None,
    **options: Unpack[EncoderOptions],
) -> RunReport:
    """Encode a Ray dataset and write it into a Milvus collection, which may be in use meanwhile.

    A row replaces the stored row with the same id. Rows that are stored already, with the same text and metadata, are
    neither encoded nor written. So a run that was killed can be started again, and the collection then gets the same
    rows as in a run that was not killed. If the collection does not exist, it is created with the fields that
    `splade index` creates. If Milvus does not answer or asks for fewer requests, the whole pipeline waits.

    Args:
        dataset: A dataset with ids and texts.
        model_name: As in `encode_dataset`.
        uri: The address of a Milvus server. If all of Ray runs on this machine, `uri` may also be a milvus-lite file.
        collection_name: The name of the collection.
        milvus_token: The server's token.
        db_name: The server's database.
        columns: The columns of the ids, the texts and the metadata.
        dense: As in `encode_dataset`.
        bm25: Whether a new collection also gets a BM25 index, for English texts.
        actors: The actors that encode.
        writers: How rows are written.
        bad_rows: What happens to rows that cannot be indexed.
        advance: A function that is called with the number of rows that were finished since its last call.
        **options: Options of `SpladeEncoder`.
    Returns:
        What the run did.
    Raises:
        TooManyBadRowsError: There are more bad rows than `bad_rows.most`.
        ValueError: The collection was made with another encoder or lacks a field. Or several actors would write into
            milvus-lite.
        TimeoutError, MilvusException: Milvus has not answered for `writers.patience_seconds`.
    """
    stage = encode_stage(model_name, dense, options)
    schema = Schema(
        primary_field="id", dense_field=None if dense is None else "dense", bm25_field="bm25" if bm25 else None
    )
    existed = _make_collection(uri, collection_name, milvus_token, db_name, schema, stage)
    place = Place(
        uri=address_for_processes(uri), name=collection_name, schema=schema, token=milvus_token, db_name=db_name
    )
    rows = dataset.map_batches(columns, batch_format="pyarrow", batch_size=None)
    return run(rows, stage, actors, place, writers, bad_rows, resume=existed, advance=advance)


def run(
    rows: Dataset,
    stage: EncodeStage,
    actors: Actors,
    place: Place,
    writers: Writers,
    bad_rows: BadRows,
    *,
    resume: bool,
    advance: Callable[[int], object],
) -> RunReport:
    """Encode prepared rows, and write them into a collection that exists.

    Args:
        rows: A dataset of prepared rows (see `splade_integrations.ray.rows`).
        stage: How the rows are encoded.
        actors: The actors that encode the rows.
        place: The collection.
        writers: The actors that write the rows.
        bad_rows: What happens to rows that cannot be indexed.
        resume: Whether the collection may hold some of the rows already.
        advance: A function that is called with the number of rows that were finished since its last call.
    """
    _check_writers(place, writers)
    if resume:
        rows = rows.map_batches(
            SkipStored,
            fn_constructor_args=(place, writers.patience_seconds),
            batch_format="pyarrow",
            batch_size=actors.rows_per_batch or 512,
            compute=pool(1),
            num_cpus=HELPER_CPUS,
        )
    share = None if writers.rows_per_second is None else writers.rows_per_second / writers.actors
    made = ray.remote(num_cpus=HELPER_CPUS, max_restarts=-1, max_task_retries=-1)(WriteRows)
    handles = [made.remote(place, writers.patience_seconds, share) for _ in range(writers.actors)]
    results = stage.apply(rows, actors, EncodeAndWrite, batches=EncodeAndWrite.BATCHES, writers=handles)
    report = RunReport(encoders=pool(actors.concurrency).max_size, writers=writers.actors)
    collect(results, report, side_file=bad_rows.side_file, max_bad_rows=bad_rows.most, advance=advance)
    collection = place.open()
    if collection.connection.lite:
        collection.flush()
    return report


def encode_stage(model_name: str, dense: DenseModel | None, options: EncoderOptions) -> EncodeStage:
    """Return the stage that encodes prepared rows."""
    return EncodeStage(
        model_name=model_name,
        options=options,
        text_column=TEXT,
        sparse_column=SPARSE,
        dense=dense,
        dense_column=DENSE,
        error_column=ERROR,
        seconds_column=SECONDS,
        skip_column=SKIPPED,
    )


def _make_collection(uri: str, name: str, token: str, db_name: str, schema: Schema, stage: EncodeStage) -> bool:
    """Create the collection if it does not exist, and return whether it existed."""
    from splade_integrations.encoder import SpladeEncoder

    connection = Connection(uri, {"token": token, "db_name": db_name})
    fingerprint = SpladeEncoder(stage.model_name, **stage.options).fingerprint
    collection = Collection(
        name, schema, connection, fingerprint=fingerprint, create_options={"consistency_level": "Strong"}
    )
    if collection.exists():
        return True
    width = None
    if (dense := loaded_dense(stage.dense, stage.options)) is not None:
        width = len(dense.encode(["width"])[0])
    collection.create(width)
    return False


def _check_writers(place: Place, writers: Writers) -> None:
    if writers.actors > 1 and place.open().connection.lite:
        raise ValueError(
            f"milvus-lite must get its rows from one writer, got {writers.actors}. Leave the number of writers out, or "
            "use a Milvus server."
        )
