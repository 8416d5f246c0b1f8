"""Makes a Ray dataset from the records of a file or a folder."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import pyarrow as pa
import ray
from ray.data import Dataset

from splade_integrations.ray.indexing import HELPER_CPUS
from splade_integrations.ray.rows import as_table
from splade_integrations.records import Record

__all__ = ["dataset_of"]

_ROWS = 512


def dataset_of(open_records: Callable[[], Iterable[Record]]) -> Dataset:
    """Return a dataset of prepared rows (see `splade_integrations.ray.rows`).

    One task on this machine reads all records, a few at a time.

    Args:
        open_records: A function that returns the records. The task calls it.
    """

    def read(_: pa.Table) -> Iterator[pa.Table]:
        records = iter(open_records())
        while some := list(islice(records, _ROWS)):
            yield as_table(some)

    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    return ray.data.from_items([0]).map_batches(
        read, batch_format="pyarrow", batch_size=None, num_cpus=HELPER_CPUS, label_selector=here
    )
