"""Measure Ray Data on this machine: encoding, writing files, and memory.

python -m benchmarks.ray_data speed [--texts 20000] [--rounds 3]     two actors against one process, on the same cores
python -m benchmarks.ray_data files [--rows 200000]                  files behind a stage that makes 12 000 rows/s
python -m benchmarks.ray_data memory [--texts 20000 200000]          the peak of all processes together
"""

import argparse
import subprocess
import sys
import tempfile
import time
import xml.dom.minidom
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from pymilvus import CollectionSchema
from scipy.sparse import csr_array

from benchmarks.bulk_files import made_up
from benchmarks.measuring import ratio, spread
from benchmarks.processes import PeakOfAll
from splade_integrations.arrow import sparse_column, sparse_rows
from splade_integrations.encoder import SpladeEncoder
from splade_integrations.milvus.filters import Engine
from splade_integrations.milvus.schema import Schema
from splade_integrations.models.offline import splade_model_path
from splade_integrations.ray import Actors, BadRows, connected, encode_dataset, write_bulk_files
from splade_integrations.ray.bulk import FileWriter
from splade_integrations.ray.local import OBJECT_STORE_BYTES
from splade_integrations.ray.report import RunReport, collect
from splade_integrations.ray.rows import as_table
from splade_integrations.records import Record

ROWS = 512  # rows in a batch on a CPU, as in `encode_dataset`
ROWS_ON_GPU = 2048
TEXTS_PER_SECOND = 12_000  # the speed of the artificial stage, `Sleep`


def real_texts(count: int, words: int | None = None) -> list[str]:
    """Return numbered texts of 8 to 60 words from Python's library. If `words` is given, all have this many words."""
    folder = Path(xml.dom.minidom.__file__).parents[2]
    found = [word for path in sorted(folder.glob("*.py"))[:60] for word in path.read_text().split() if word.isalpha()]
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 61, count) if words is None else np.full(count, words)
    starts = rng.integers(0, len(found) - 61, count)
    places = zip(starts.tolist(), lengths.tolist(), strict=True)
    return [f"{number} " + " ".join(found[start : start + length]) for number, (start, length) in enumerate(places)]


# Speed


def in_one_process(encoder: SpladeEncoder, texts: list[str], folder: Path) -> tuple[float, csr_array]:
    """Encode and write texts in this process. Return the texts per second after the first block, and the rows."""
    blocks, begin, done = [], 0.0, 0
    for number, rows in enumerate(encoder.stream_documents(texts, block_rows=ROWS)):
        table = pa.table({"text": texts[done : done + rows.shape[0]], "sparse": sparse_column(rows)})
        pq.write_table(table, folder / f"{number}.parquet")
        done += rows.shape[0]
        blocks.append(table)
        begin = begin or time.perf_counter()
    rate = (len(texts) - ROWS) / (time.perf_counter() - begin)
    return rate, sparse_rows(pa.concat_tables(blocks)["sparse"], encoder.dim)


def with_ray(model: str, texts: list[str], folder: Path, dim: int) -> tuple[float, float, csr_array]:
    """Encode texts with two actors, and write each block of rows when it comes.

    Returns:
        The texts per second from the first block to the last file, the seconds before the first block, and the rows.
        The texts per second do not count the first block of each actor, because both actors work on these two blocks
        before the clock starts.
    """
    start, blocks, begin = time.perf_counter(), [], 0.0
    table = pa.table({"place": np.arange(len(texts)), "text": texts})
    dataset = encode_dataset(ray.data.from_arrow(table), model, concurrency=2, rows_per_batch=ROWS, device="cpu")
    for number, block in enumerate(dataset.iter_batches(batch_format="pyarrow", batch_size=None)):
        begin = begin or time.perf_counter()
        pq.write_table(block, folder / f"{number}.parquet")
        blocks.append(block)
    rate = (len(texts) - 2 * ROWS) / (time.perf_counter() - begin)
    ordered = pa.concat_tables(blocks).sort_by("place")
    return rate, begin - start, sparse_rows(ordered["sparse"], dim)


def speed(count: int, rounds: int) -> None:
    """Measure one process and Ray in turn, check that their rows are equal, and compare their rates."""
    texts, model = real_texts(count), splade_model_path()
    encoder = SpladeEncoder(model, device="cpu")
    rates: dict[str, list[float]] = {"one process": [], "Ray, two actors": []}
    started = time.perf_counter()
    with connected(num_cpus=2), tempfile.TemporaryDirectory() as place:
        print(f"Ray started in {time.perf_counter() - started:.1f} s")
        for number in range(rounds):
            rate, right = in_one_process(encoder, texts, Path(place))
            rates["one process"].append(rate)
            rate, before, found = with_ray(model, texts, Path(place), encoder.dim)
            rates["Ray, two actors"].append(rate)
            difference = abs(found - right).max()
            latest = ", ".join(f"{name} {values[-1]:,.0f} texts/s" for name, values in rates.items())
            print(
                f"round {number + 1}: {latest}; Ray took {before:.1f} s before the first block; "
                f"largest difference {difference:.1e}",
                flush=True,
            )
            if difference > 1e-5:
                raise SystemExit(
                    f"Ray's rows must equal those of one process within 1e-5, got a difference of {difference:.1e}. "
                    "Find out which rows are wrong."
                )
    for name, values in rates.items():
        rate_of = spread(values)
        print(f"{name:<16} {rate_of.median:>8,.0f} texts/s ({rate_of.least:,.0f} to {rate_of.most:,.0f})")
    share = ratio(rates["Ray, two actors"], rates["one process"])
    print(f"Ray's rate is {share.median:.2f} ({share.least:.2f} to {share.most:.2f}) times the rate of one process")


# Files


class Sleep:
    """A stage of Ray Data that sleeps for as long as a GPU would need to encode, and returns ready-made rows."""

    def __init__(self) -> None:
        table = made_up(ROWS_ON_GPU)
        texts = table["text"].to_pylist()
        rows = as_table(Record(str(n), text, {"year": n, "by": "me"}) for n, text in enumerate(texts))
        for name in ("sparse", "dense"):
            rows = rows.append_column(name, table[name])
        self._rows = rows.combine_chunks()

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return ready-made rows with the ids of the batch `table`."""
        start = time.perf_counter()
        rows = self._rows.slice(0, len(table))
        rows = rows.set_column(rows.column_names.index("id"), "id", table["id"].cast(pa.string()))
        time.sleep(max(0.0, len(rows) / TEXTS_PER_SECOND - (time.perf_counter() - start)))
        return rows


def files(rows: int) -> None:
    """Write the rows of the artificial stage to files, with one task at a time, and print the rates."""
    definition: CollectionSchema = Schema(primary_field="id").definition(Engine.SERVER, 384, "")
    with connected(num_cpus=2), tempfile.TemporaryDirectory() as folder:
        stage = ray.data.range(rows).repartition(target_num_rows_per_block=ROWS_ON_GPU)
        made = stage.map_batches(
            Sleep,
            batch_format="pyarrow",
            batch_size=ROWS_ON_GPU,
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=0.1,
        )
        written = made.map_batches(
            FileWriter(folder, definition.to_dict(), "struct"),
            batch_format="pyarrow",
            batch_size=20_000,
            compute=ray.data.TaskPoolStrategy(size=1),
            num_cpus=0.1,
        )
        report = RunReport()
        collect(written, report, side_file=None, max_bad_rows=0, advance=lambda _: None)
        size = sum(path.stat().st_size for path in Path(folder).glob("*.parquet"))
    rates = report.rates()
    print(
        f"{report.written:,} rows in files of 20 000 rows: {rates['all']:,.0f} rows/s from the first file to the last; "
        f"one writer alone {rates['write']:,.0f} rows/s; {size / rows:,.0f} bytes a row"
    )


# Memory


def memory(counts: list[int]) -> None:
    """Measure the memory for each number of texts, in a new process that does not make the texts itself."""
    for count in counts:
        with tempfile.TemporaryDirectory() as place:
            corpus = Path(place, "corpus.parquet")
            rows = pa.table({"id": np.arange(count), "text": real_texts(count, 8)})
            pq.write_table(rows, corpus, row_group_size=4096)
            del rows
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.ray_data", "one-memory"]
            subprocess.run([*command, "--corpus", str(corpus)], check=True)


def one_memory(corpus: Path) -> None:
    """Encode the texts of a corpus into files, and print the peak memory."""
    count = pq.read_metadata(corpus).num_rows
    with tempfile.TemporaryDirectory() as place, connected(num_cpus=2), PeakOfAll() as watched:
        report = write_bulk_files(
            ray.data.read_parquet(str(corpus), override_num_blocks=max(2, count // 10_000)),
            splade_model_path(),
            Path(place, "files"),
            rows_per_file=5_000,
            actors=Actors(concurrency=2),
            bad_rows=BadRows(side_file=None, most=0),
            device="cpu",
        )
    peak = watched.peak
    print(
        f"{count:,} texts: peak {peak.total / 2**20:,.0f} MiB = {peak.private / 2**20:,.0f} MiB proportional set + "
        f"{peak.shared / 2**20:,.0f} MiB in /dev/shm; object store of {OBJECT_STORE_BYTES / 2**20:,.0f} MiB; "
        f"{report.rates()['all']:,.0f} texts/s",
        flush=True,
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "files", "memory", "one-memory"])
    parser.add_argument("--texts", type=int, nargs="+", default=[])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    run: dict[str, Callable[[], None]] = {
        "speed": partial(speed, (arguments.texts or [20_000])[0], arguments.rounds),
        "files": partial(files, arguments.rows),
        "memory": partial(memory, arguments.texts or [20_000, 200_000]),
        "one-memory": partial(one_memory, arguments.corpus),
    }
    run[arguments.what]()


if __name__ == "__main__":
    main()
