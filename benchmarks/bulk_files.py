"""Compare the speed of two writers of files for Milvus's bulk import: our writer, and pymilvus's.

python -m benchmarks.bulk_files [--rows 20000] [--rounds 5]

`python -m benchmarks.ray_data files` measures our writer as a stage of Ray Data.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import CollectionSchema, DataType, MilvusClient
from pymilvus.bulk_writer import BulkFileType, LocalBulkWriter

from benchmarks.measuring import ratio, spread
from splade_integrations.arrow import dense_column, sparse_type
from splade_integrations.milvus.bulk_files import BulkFolder, SparseForm

DIM, TERMS, VOCABULARY, WORDS = 384, 120, 30_522, 60


def schema() -> CollectionSchema:
    """Return the schema of a collection with an id, a text, a dense and a sparse vector, and two metadata fields."""
    made = MilvusClient.create_schema()
    made.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
    made.add_field("text", DataType.VARCHAR, max_length=65_535)
    made.add_field("dense", DataType.FLOAT_VECTOR, dim=DIM)
    made.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    made.add_field("year", DataType.INT64)
    made.add_field("author", DataType.VARCHAR, max_length=100)
    made.verify()
    return made


def made_up(rows: int) -> pa.Table:
    """Return made-up rows in the same form as the rows that Ray Data's encoding stage returns."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{n}" for n in range(5000)])
    terms = np.sort(rng.permuted(np.arange(VOCABULARY, dtype=np.uint32)[None].repeat(64, 0), axis=1)[:, :TERMS], axis=1)
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * TERMS)
    lists = [
        pa.ListArray.from_arrays(offsets, pa.array(terms[rng.integers(0, 64, rows)].reshape(-1))),
        pa.ListArray.from_arrays(offsets, pa.array(rng.random(rows * TERMS, np.float32) + np.float32(0.01))),
    ]
    return pa.table(
        {
            "id": [f"passage {n}" for n in range(rows)],
            "text": [" ".join(some) for some in words[rng.integers(0, 5000, (rows, WORDS))].tolist()],
            "dense": dense_column(rng.standard_normal((rows, DIM), np.float32)),
            "sparse": pa.StructArray.from_arrays(lists, fields=list(sparse_type())),
            "year": rng.integers(1900, 2026, rows),
            "author": [f"author {n % 997}" for n in range(rows)],
        }
    )


def as_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows in the form that pymilvus's writer accepts."""
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        row["sparse"] = dict(zip(row["sparse"]["indices"], row["sparse"]["values"], strict=True))
    return rows


def by_pymilvus(rows: list[dict[str, Any]], folder: Path) -> tuple[float, Path]:
    """Write rows with pymilvus's writer, and return the seconds and the file."""
    copies = [dict(row) for row in rows]  # because pymilvus's writer changes the rows that it gets
    start = time.perf_counter()
    writer = LocalBulkWriter(schema(), str(folder), chunk_size=1 << 40, file_type=BulkFileType.PARQUET)
    for row in copies:
        writer.append_row(row)
    writer.commit()
    return time.perf_counter() - start, Path(writer.batch_files[0][0])


def by_us(table: pa.Table, folder: Path, sparse: SparseForm) -> tuple[float, Path]:
    """Write rows with our writer, and return the seconds and the file."""
    start = time.perf_counter()
    written = BulkFolder(folder, schema(), sparse).write(table, "rows")
    return time.perf_counter() - start, folder / written.file


def check_equal(ours: Path, theirs: Path) -> None:
    """Read the same 100 rows of both files, and exit if they differ."""
    for mine, right in zip(_page(ours), _page(theirs), strict=True):
        if mine != right:
            raise SystemExit(f"our row must equal pymilvus's row {right}, got {mine}. Find out which row is wrong.")


def _page(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(file).slice(1000, 100).to_pylist()
    for row in rows:
        sparse = row["sparse"]
        pairs = json.loads(sparse) if isinstance(sparse, str) else zip(sparse["indices"], sparse["values"], strict=True)
        row["sparse"] = {int(term): float(np.float32(weight)) for term, weight in dict(pairs).items()}
    return rows


def compare(rows: int, rounds: int) -> None:
    """Write the same rows with each writer in turn, and print the rates of the writers."""
    table = made_up(rows)
    listed = as_rows(table)
    seconds: dict[str, list[float]] = {"pymilvus": [], "struct": [], "json": []}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as place:
            took, theirs = by_pymilvus(listed, Path(place, "theirs"))
            seconds["pymilvus"].append(took)
            forms: tuple[SparseForm, ...] = ("struct", "json")
            for form in forms:
                took, ours = by_us(table, Path(place, form), form)
                seconds[form].append(took)
                if number == 0:
                    check_equal(ours, theirs)
                    print(f"{form}: 100 rows equal; {ours.stat().st_size / rows:.0f} bytes a row")
            if number == 0:
                print(f"pymilvus: {theirs.stat().st_size / rows:.0f} bytes a row")
    for name, values in seconds.items():
        rate = spread([rows / value for value in values])
        line = f"{name:<9} {rate.median:>10,.0f} rows/s ({rate.least:,.0f} to {rate.most:,.0f})"
        if name != "pymilvus":
            times = ratio(seconds["pymilvus"], values)
            line += f"  {times.median:.1f} times as fast as pymilvus ({times.least:.1f} to {times.most:.1f})"
        print(line)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    compare(arguments.rows, arguments.rounds)


if __name__ == "__main__":
    main()
