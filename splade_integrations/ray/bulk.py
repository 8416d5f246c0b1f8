"""Encodes a Ray dataset into Parquet files for Milvus's bulk import."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pymilvus import CollectionSchema
from ray.data import Dataset

from splade_integrations.arrow import sparse_type
from splade_integrations.milvus.bulk_files import BulkFolder, SparseForm
from splade_integrations.milvus.defaults import document_terms, is_blank
from splade_integrations.milvus.filters import Engine
from splade_integrations.milvus.schema import Schema
from splade_integrations.options import EncoderOptions
from splade_integrations.ray.digests import SkipDone, digests, name_of, read_digests, write_digests
from splade_integrations.ray.encoding import Actors, DenseModel, loaded_dense, pool
from splade_integrations.ray.indexing import HELPER_CPUS, BadRows, encode_stage
from splade_integrations.ray.report import RunReport, collect, result
from splade_integrations.ray.rows import DENSE, ID, METADATA, SPARSE, TEXT, Columns, good_rows, without_repeated_ids

__all__ = ["FileWriter", "write_bulk_files"]

_ROWS_PER_FILE = 20_000
_NAMES = ("id", "text", "metadata", "sparse", "dense")


def write_bulk_files(
    dataset: Dataset,
    model_name: str,
    folder: str | Path,
    *,
    columns: Columns = Columns(),  # noqa: B008  # the default is immutable
    dense: DenseModel | None = None,
    bm25: bool = False,
    sparse: SparseForm = "struct",
    rows_per_file: int = _ROWS_PER_FILE,
    actors: Actors = Actors(),  # noqa: B008
    bad_rows: BadRows = BadRows(),  # noqa: B008
    advance: Callable[[int], object] = lambda _: None,
    **options: Unpack[EncoderOptions],
) -> RunReport:
    """Encode a Ray dataset into files that Milvus can import.

    The files fit a collection with the fields that `splade index` creates. At the end, `BulkFolder.finish` lists the
    files in manifest.json. A run that was killed can be started again with the same arguments. Rows in finished files
    are then neither encoded nor written again.

    Args:
        dataset: A dataset with ids and texts. Each id may occur only once, because an import keeps all rows, even rows
            with equal ids.
        model_name: As in `encode_dataset`.
        folder: The folder for the files. All nodes of the cluster must reach it, for example on a shared disk.
        columns: The columns of the ids, the texts and the metadata.
        dense: As in `encode_dataset`.
        bm25: Whether the collection also has a BM25 index, for English texts. Milvus computes the BM25 vectors.
        sparse: The form of sparse vectors: "struct" for Milvus 2.5.8 or newer, "json" for older servers.
        rows_per_file: The number of rows in a file. The rows of several files must fit into Ray's object store at once.
        actors: The actors that encode.
        bad_rows: What happens to rows that cannot be indexed.
        advance: A function that is called with the number of rows that were finished since its last call.
        **options: Options of `SpladeEncoder`.
    Returns:
        What the run did.
    Raises:
        TooManyBadRowsError: There are more bad rows than `bad_rows.most`.
        ValueError: The folder holds files for a collection with other fields.
    """
    width = None
    if dense is not None and (model := loaded_dense(dense, options)) is not None:
        width = len(model.encode(["width"])[0])
    schema = Schema(
        primary_field="id", dense_field=None if dense is None else "dense", bm25_field="bm25" if bm25 else None
    )
    fields = schema.definition(Engine.SERVER, width, "")
    place = Path(folder).resolve()
    bulk = BulkFolder(place, fields, sparse)
    rows = dataset.map_batches(columns, batch_format="pyarrow", batch_size=None)
    if len(done := read_digests(place)):
        rows = rows.map_batches(
            SkipDone,
            fn_constructor_args=(done,),
            batch_format="pyarrow",
            batch_size=None,
            compute=pool(1),
            num_cpus=HELPER_CPUS,
        )
    encoded = encode_stage(model_name, dense, options).apply(rows, actors)
    results = encoded.map_batches(
        FileWriter(str(place), fields.to_dict(), sparse),
        batch_format="pyarrow",
        batch_size=rows_per_file,
        num_cpus=HELPER_CPUS,
    )
    report = RunReport(encoders=pool(actors.concurrency).max_size)
    collect(results, report, side_file=bad_rows.side_file, max_bad_rows=bad_rows.most, advance=advance)
    bulk.finish()
    return report


@dataclass(frozen=True)
class FileWriter:
    """A task that writes one file from a batch of encoded rows.

    The name of the file is computed from its rows. So if Ray runs a task again, the new file replaces the first file.

    Args:
        folder: The folder.
        fields: The collection's fields, as `CollectionSchema.to_dict` returns them. A `CollectionSchema` itself cannot
            be pickled.
        sparse: The form of sparse vectors.
    """

    folder: str
    fields: dict[str, Any]
    sparse: SparseForm

    def __call__(self, table: pa.Table) -> pa.Table:
        """Write the rows of a batch, and return what was done (see `result`)."""
        start = time.perf_counter()
        table = without_repeated_ids(table)
        rows = table.take(pa.array(good_rows(table), pa.int64()))
        if len(rows):
            marks = digests(rows)
            name = name_of(marks)
            folder = BulkFolder(self.folder, CollectionSchema.construct_from_dict(self.fields), self.sparse)
            write_digests(folder.path, name, marks)
            folder.write(_fields(rows), name)
        return result(table, written=len(rows), seconds=time.perf_counter() - start, waited=0.0)


def _fields(rows: pa.Table) -> pa.Table:
    """Return encoded rows as a table with the collection's fields. Milvus's dynamic field also holds the metadata."""
    columns: dict[str, Any] = {
        "id": rows[ID],
        "text": rows[TEXT],
        "metadata": rows[METADATA],
        "sparse": _with_terms(rows[SPARSE], rows[TEXT]),
        "$meta": _dynamic(rows[METADATA]),
    }
    if DENSE in rows.column_names:
        columns["dense"] = rows[DENSE]
    return pa.table(columns)


def _with_terms(sparse: pa.ChunkedArray, texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replace the sparse vectors of blank texts, and sparse vectors without terms, by a placeholder.

    Milvus refuses a sparse vector without terms.
    """
    lengths = pc.list_value_length(pc.struct_field(sparse, "indices")).to_numpy()
    empty = (lengths == 0) | np.array([is_blank(text) for text in texts.to_pylist()])
    if not empty.any():
        return sparse
    ((term, weight),) = document_terms({}, "").items()
    placeholder = pa.array([{"indices": [term], "values": [weight]}], sparse_type())
    both = pa.concat_arrays([*(chunk.cast(sparse_type()) for chunk in sparse.chunks), placeholder])
    places = np.where(empty, len(sparse), np.arange(len(sparse)))
    return pa.chunked_array([both.take(pa.array(places))])


def _dynamic(metadata: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the metadata without the keys that Milvus's dynamic field does not allow."""
    texts = metadata.to_pylist()
    if not any(f'"{name}":' in text or '"$' in text for text in texts for name in _NAMES):
        return metadata

    def cleaned(text: str) -> str:
        items = json.loads(text).items()
        return json.dumps({key: value for key, value in items if key not in _NAMES and key[:1] != "$"})

    return pa.chunked_array([pa.array([cleaned(text) for text in texts], pa.string())])
