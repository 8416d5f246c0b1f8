"""Encode the docstrings of Python's standard library with Ray, on all cores, and search them.

    python examples/ray_index.py [NUMBER_OF_TEXTS]

On a cluster, three lines change. They are marked with "cluster".
"""

import os
import sys
import tempfile

import pyarrow as pa
import ray.data
from stdlib_corpus import read_corpus

from splade_integrations import SpladeEncoder, to_dicts
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.schema import Schema
from splade_integrations.models.offline import splade_model_path
from splade_integrations.ray import Actors, RunReport, connected, index_dataset

QUESTION = "remove a directory and all files in it"


def read_texts(count: int | None) -> ray.data.Dataset:
    """Return a dataset of docstrings, with ids and metadata."""
    entries = read_corpus()[:count]
    table = pa.table(
        {
            "id": [entry.name for entry in entries],
            "text": [entry.page for entry in entries],
            "kind": [entry.kind for entry in entries],
        }
    )
    return ray.data.from_arrow(table)  # cluster: ray.data.read_parquet("s3://bucket/corpus/")


def index(uri: str, count: int | None = None) -> RunReport:
    """Encode the texts and write them into a collection. To continue after a kill, call this function again."""
    with connected():  # cluster: connected("ray-head:6379")
        return index_dataset(
            read_texts(count),
            splade_model_path(),
            uri=uri,  # cluster: uri="http://milvus:19530"
            collection_name="docstrings",
            actors=Actors(concurrency=os.cpu_count() or 1),
            advance=lambda rows: print(".", end="", flush=True),
            max_length=128,
        )


def search(uri: str, question: str) -> list[str]:
    """Return the ids of the best five texts."""
    query = to_dicts(SpladeEncoder(splade_model_path(), max_length=128).encode_queries([question]))[0]
    collection = Collection("docstrings", Schema(primary_field="id", dense_field=None), Connection(uri))
    return [hit.id for hit in collection.search({"sparse": query}, k=5)]


def main(count: int | None = None) -> None:
    """Index, print what the run did, and search."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        uri = f"{folder}/docstrings.db"
        report = index(uri, count)
        rates = report.rates()
        print(
            f"\n{report.written:,} texts in {report.seconds:.0f} s after {report.start_seconds:.0f} s to start. "
            f"Encoding: {rates['encode']:,.0f} texts/s, writing: {rates['write']:,.0f}, "
            f"bottleneck: {report.bottleneck()}"
        )
        print(f"{QUESTION}: {', '.join(search(uri, QUESTION))}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
