"""Encodes the texts of a Ray dataset in a pool of actors (processes of Ray). Each actor loads its own model."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, Dataset

from splade_integrations.arrow import dense_column, dense_type, sparse_column
from splade_integrations.errors import first_line
from splade_integrations.evaluation.retrievers import DenseEncoder, load_dense
from splade_integrations.options import EncoderOptions

__all__ = ["Actors", "Concurrency", "DenseModel", "EncodeStage", "encode_dataset", "loaded_dense", "pool"]

# The number of actors, or a tuple of the smallest and the largest number of actors.
Concurrency = int | tuple[int, int]
# The name of a model of sentence-transformers, an object with the method `encode`, or a function that returns such an
# object.
DenseModel = str | DenseEncoder | Callable[[], DenseEncoder]

# The default numbers of rows that an actor gets at once, on a CPU and on a GPU. The encoder itself also works in blocks
# of these sizes.
_ROWS_ON_CPU, _ROWS_ON_GPU = 512, 2048


def encode_dataset(
    dataset: Dataset,
    model_name: str,
    *,
    text_column: str = "text",
    sparse_column: str = "sparse",
    dense: DenseModel | None = None,
    dense_column: str = "dense",
    error_column: str | None = None,
    rows_per_batch: int | None = None,
    concurrency: Concurrency = 1,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    **options: Unpack[EncoderOptions],
) -> Dataset:
    """Add a column of sparse vectors to a Ray dataset and, if `dense` is given, a column of dense vectors.

    Nothing runs until the returned dataset is iterated over or written. Each actor loads the models once. The result
    keeps all rows and columns. Ray keeps the order of the rows only if `preserve_order` is set in Ray's options before
    the dataset is made.

    Args:
        dataset: A dataset with a column of texts, from Parquet, JSON lines, a Hugging Face dataset or any other source.
        model_name: The folder of a SPLADE model, or its name on the hub. Each node of the cluster must reach it.
        text_column: The column of the texts.
        sparse_column: The name of the new column of sparse vectors. Its type is struct<indices: list<uint32>, values:
            list<float>>, both in Parquet files and in Ray's batches. `splade_integrations.arrow.sparse_rows` turns
            the column into a scipy matrix.
        dense: A dense model: the name of a model of sentence-transformers, an object with the method
            `encode(texts) -> (N, H)`, or a function that returns such an object. A function is called in each actor, so
            the model itself is not copied between processes.
        dense_column: The name of the new column of dense vectors. Its type is list<float>.
        error_column: The name of a column for errors. If a text cannot be encoded, its row gets the reason there, and
            no vectors. The default, None, ends the run at the first such text.
        rows_per_batch: The number of rows that Ray gives to an actor at once. None means 512, or 2 048 with GPUs.
        concurrency: The number of actors, or (the smallest number, the largest number) for a pool that grows and
            shrinks with the load. On CPUs, use one actor for each core: an actor computes in one thread.
        num_cpus: The number of CPUs that Ray reserves for an actor. Without a GPU, the default is 0.4. So even with one
            actor for each core, the tasks that read and write find a free CPU.
        num_gpus: The number of GPUs that Ray reserves for an actor, such as 1 or 0.5.
        **options: Options of `SpladeEncoder`, such as `dtype` and `max_length`.
    Returns:
        The dataset with the additional columns.
    Raises:
        TypeError: An option is unknown.

    Source:
        Ray's rules for batches and actor pools: https://docs.ray.io/en/latest/data/transforming-data.html.
    """
    stage = EncodeStage(
        model_name=model_name,
        options=options,
        text_column=text_column,
        sparse_column=sparse_column,
        dense=dense,
        dense_column=dense_column,
        error_column=error_column,
    )
    actors = Actors(rows_per_batch=rows_per_batch, concurrency=concurrency, num_cpus=num_cpus, num_gpus=num_gpus)
    return stage.apply(dataset, actors)


@dataclass(frozen=True, kw_only=True)
class Actors:
    """The pool of actors that encode. `encode_dataset` explains the arguments."""

    rows_per_batch: int | None = None
    concurrency: Concurrency = 1
    num_cpus: float | None = None
    num_gpus: float | None = None


@dataclass(frozen=True, kw_only=True)
class EncodeStage:
    """The settings of the actors that encode. Fields that are not described here mean the same as in `encode_dataset`.

    Args:
        seconds_column: The name of a new column for the encoding time of each row, in seconds. This is the time of
            the row's batch, divided by the number of rows in the batch. None adds no such column.
        skip_column: The name of a boolean column. A row with true in this column is not encoded.
    """

    model_name: str
    options: EncoderOptions = field(default_factory=lambda: EncoderOptions())
    text_column: str = "text"
    sparse_column: str = "sparse"
    dense: DenseModel | None = None
    dense_column: str = "dense"
    error_column: str | None = None
    seconds_column: str | None = None
    skip_column: str | None = None

    def __post_init__(self) -> None:
        """Make a relative path absolute, because Ray's workers may run in other folders."""
        if Path(self.model_name).is_dir():
            object.__setattr__(self, "model_name", str(Path(self.model_name).resolve()))

    def apply(
        self, dataset: Dataset, actors: Actors, actor: type | None = None, *, batches: int = 1, **arguments: Any
    ) -> Dataset:
        """Return the dataset with the encoding stage added.

        Args:
            dataset: A dataset with a column of texts.
            actors: The pool of actors.
            actor: The class of the actors. Its first argument is this stage. None means `Encode`.
            batches: The number of batches that an actor works on at the same time.
            **arguments: Further arguments of the class.
        """
        on_gpu = bool(actors.num_gpus)
        rows = actors.rows_per_batch or (_ROWS_ON_GPU if on_gpu else _ROWS_ON_CPU)
        # Ray gives whole blocks of rows to an actor. Small blocks spread the work over all actors. They also limit the
        # work that is done again after a process was killed.
        return dataset.repartition(target_num_rows_per_block=rows).map_batches(
            actor or Encode,
            fn_constructor_kwargs={"stage": self, **arguments},
            batch_format="pyarrow",
            batch_size=rows,
            compute=pool(actors.concurrency, batches),
            num_cpus=0.4 if actors.num_cpus is None and not on_gpu else actors.num_cpus,
            num_gpus=actors.num_gpus,
        )


def pool(concurrency: Concurrency, batches: int = 1) -> ActorPoolStrategy:
    """Return Ray's description of a pool of actors.

    Args:
        concurrency: The number of actors, or (the smallest number, the largest number).
        batches: The number of batches that an actor works on at the same time, each in its own thread.
    Raises:
        ValueError: A number of actors is below 1, or the largest number is below the smallest number.
    """
    least, most = (concurrency, concurrency) if isinstance(concurrency, int) else concurrency
    if not 1 <= least <= most:
        raise ValueError(
            "concurrency must be the number of actors, at least 1, or (the smallest number, the largest number), got "
            f"{concurrency!r}. Use the number of cores, or of GPUs."
        )
    threads = {"max_concurrent_calls_per_actor": batches, "enable_true_multi_threading": batches > 1}
    if least == most:
        return ActorPoolStrategy(size=least, **threads)
    return ActorPoolStrategy(min_size=least, max_size=most, **threads)


class Encode:
    """An actor that encodes batches.

    Args:
        stage: What to encode, and how.
    """

    def __init__(self, stage: EncodeStage) -> None:
        from splade_integrations.encoder import SpladeEncoder
        from splade_integrations.engine.memory import keep_less_memory

        keep_less_memory()
        self.stage = stage
        self.encoder = SpladeEncoder(stage.model_name, **stage.options)
        self.dense = loaded_dense(stage.dense, stage.options)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the batch with columns of vectors added."""
        start, stage = time.perf_counter(), self.stage
        self._check(table)
        texts: list[Any] = table[stage.text_column].to_pylist()
        reasons: list[str | None] = [None] * len(texts)
        if stage.error_column in table.column_names:
            reasons = table[stage.error_column].to_pylist()
        skipped = [False] * len(texts)
        if stage.skip_column in table.column_names:
            skipped = table[stage.skip_column].to_pylist()
        wanted = [row for row, skips in enumerate(skipped) if not skips and reasons[row] is None]
        for row in wanted:
            if not isinstance(texts[row], str):
                reasons[row] = f"the text must be a str, got {type(texts[row]).__name__}"
        columns = self._encoded(texts, [row for row in wanted if reasons[row] is None], reasons)
        if (
            stage.error_column is None
            and (bad := next((row for row, why in enumerate(reasons) if why), None)) is not None
        ):
            raise ValueError(
                f"each text in the column {stage.text_column!r} must be a str that can be encoded, got a batch whose "
                f"row {bad} cannot be encoded: {reasons[bad]}. Drop such rows with Dataset.filter, or collect the "
                "reasons with error_column='error'."
            )
        if stage.error_column is not None:
            columns[stage.error_column] = pa.array(reasons, pa.string())
        if stage.seconds_column is not None:
            seconds = (time.perf_counter() - start) / max(1, len(texts))
            columns[stage.seconds_column] = pa.array(np.full(len(texts), seconds))
        for name, column in columns.items():
            table = _with_column(table, name, column)
        return table

    def _check(self, table: pa.Table) -> None:
        stage = self.stage
        if stage.text_column not in table.column_names:
            raise ValueError(
                f"the dataset must have the column {stage.text_column!r}, got the columns "
                f"{', '.join(table.column_names)}. Name the column of the texts with text_column."
            )
        made = [stage.sparse_column] + ([] if self.dense is None else [stage.dense_column])
        if taken := [name for name in made if name in table.column_names]:
            raise ValueError(
                f"the dataset must not have a column {taken[0]!r} yet, got one. The new vectors go into a column of "
                "this name. Drop the column, or give another sparse_column or dense_column."
            )

    def _encoded(self, texts: list[Any], rows: list[int], reasons: list[str | None]) -> dict[str, pa.Array]:
        """Return the columns of vectors.

        If a batch fails, its texts are encoded one by one, and the errors of the texts that fail go into `reasons`.
        """
        try:
            found = self._vectors([texts[row] for row in rows])
        except Exception as err:
            if len(rows) == 1:
                reasons[rows[0]] = f"{type(err).__name__}: {first_line(err)}"
                return self._encoded(texts, [], reasons)
            single = []
            for row in rows:
                try:
                    single.append(self._vectors([texts[row]]))
                except Exception as one:
                    reasons[row] = f"{type(one).__name__}: {first_line(one)}"
            if not single:
                raise
            found = {name: pa.concat_arrays([columns[name] for columns in single]) for name in single[0]}
            rows = [row for row in rows if reasons[row] is None]
        places: NDArray[np.int64] = np.full(len(texts), -1, np.int64)
        places[rows] = np.arange(len(rows))
        return {name: _spread(column, places) for name, column in found.items()}

    def _vectors(self, texts: Sequence[str]) -> dict[str, pa.Array]:
        stage = self.stage
        columns = {stage.sparse_column: sparse_column(self.encoder.encode_documents(texts))}
        if self.dense is not None:
            empty = pa.array([], dense_type())
            columns[stage.dense_column] = (
                dense_column(np.asarray(self.dense.encode(list(texts)), np.float32)) if texts else empty
            )
        return columns


def loaded_dense(dense: DenseModel | None, options: EncoderOptions) -> DenseEncoder | None:
    """Return the dense model itself. `dense` has one of the three forms that `encode_dataset` accepts.

    Raises:
        TypeError: `dense` has none of these forms.
    """
    if isinstance(dense, str):
        return load_dense(dense, max_length=options.get("max_length"), device=str(options.get("device", "auto")))
    if dense is None or (hasattr(dense, "encode") and not isinstance(dense, type)):
        return dense
    if callable(dense):
        return dense()
    raise TypeError(
        "dense must be the name of a model of sentence-transformers, an object with the method encode, or a function "
        f"that returns such an object, got {type(dense).__name__}. Give one of these three."
    )


def _spread(column: pa.Array, places: NDArray[np.int64]) -> pa.Array:
    """Return the values of a column at the given positions, with a null for each position -1."""
    if len(column) == len(places):
        return column
    return pc.take(column, pa.array(places, mask=places < 0))


def _with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)
