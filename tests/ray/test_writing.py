"""The actors that write rows wait while Milvus is away, leave out rows that it refuses, and hold back the encoders."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pyarrow as pa
import pytest
import ray
import ray.data
from pymilvus import MilvusClient
from pymilvus.grpc_gen import common_pb2, milvus_pb2
from scipy.sparse import csr_array

from splade_integrations.arrow import sparse_column
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.patience import Pace
from splade_integrations.milvus.schema import Schema
from splade_integrations.ray import Actors
from splade_integrations.ray.encoding import EncodeStage
from splade_integrations.ray.place import Place
from splade_integrations.ray.rows import SPARSE, as_table
from splade_integrations.ray.writing import EncodeAndWrite, SkipStored, WriteRows
from splade_integrations.records import Record
from tests.support.proxy import milvus_proxy
from tests.support.server import milvus_lite_server

SCHEMA = Schema(primary_field="id", dense_field=None)


@pytest.fixture(scope="module")
def server():
    with milvus_lite_server() as uri:
        Collection("c", SCHEMA, Connection(uri)).create()
        yield uri


def batch(*texts):
    table = as_table(Record(text, text, {"n": 1}) for text in texts)
    rows = csr_array(np.ones((len(texts), 3), np.float32))
    return table.append_column(SPARSE, sparse_column(rows))


def stored(uri):
    client = MilvusClient(uri)
    return {row["id"] for row in client.query("c", filter="", output_fields=["id"], limit=1000)}


def test_writers_wait_for_milvus(server):
    with milvus_proxy(server) as proxy:
        write = WriteRows(Place(uri=proxy.uri, name="c", schema=SCHEMA), 60, None).write
        # pymilvus itself repeats a call after the first fault, and we repeat it after the second fault.
        proxy.faults["Insert"] = [grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED]
        (row,) = write(batch("a", "b")).to_pylist()
        assert (row["written"], row["bad"]) == (2, [])
        assert row["waited_seconds"] > 0.2
        assert len(proxy.seen["Insert"]) == 3
        assert {"a", "b"} <= stored(server)
        impatient = WriteRows(Place(uri=proxy.uri, name="c", schema=SCHEMA), 0.1, None).write
        proxy.faults["Insert"] = [grpc.StatusCode.RESOURCE_EXHAUSTED]
        with pytest.raises(grpc.RpcError):
            impatient(batch("never"))


def test_refused_rows_are_named(server):
    def refuse(request, ask):
        if b"refused" in request.SerializeToString():
            status = common_pb2.Status(code=1100, reason="the text is refused", error_code=1)
            return milvus_pb2.MutationResult(status=status)
        return milvus_pb2.MutationResult.FromString(ask(request.SerializeToString()))

    with milvus_proxy(server) as proxy:
        write = WriteRows(Place(uri=proxy.uri, name="c", schema=SCHEMA), 60, None).write
        proxy.answers["Insert"] = refuse
        (row,) = write(batch("good", "refused", "fine")).to_pylist()
    assert row["written"] == 2
    assert [bad["id"] for bad in row["bad"]] == ["refused"]
    assert "the text is refused" in row["bad"][0]["reason"]
    assert {"good", "fine"} <= stored(server)
    assert "refused" not in stored(server)


def test_stored_rows_are_skipped(server):
    place = Place(uri=server, name="c", schema=SCHEMA)
    WriteRows(place, 60, None).write(batch("it's", "d"))
    table = batch("it's", "new", "d")
    other = json.dumps({"n": 2})
    table = table.set_column(2, "metadata", [[table["metadata"][0].as_py(), "{}", other]])
    assert SkipStored(place, 60)(table)["skipped"].to_pylist() == [True, False, False]


def test_the_rate_is_bounded():
    pace, start = Pace(1000), time.monotonic()
    for _ in range(5):
        pace.wait(50)
    assert time.monotonic() - start >= 0.2
    assert Pace(None).wait(10**9) == 0


class SlowWriter:
    """An actor that notes the batches that arrive, and answers none until it is opened."""

    def __init__(self):
        self._arrived, self._opened = 0, threading.Event()

    def write(self, table):
        self._arrived += 1
        self._opened.wait(60)
        return pa.table({"rows": [len(table)]})

    def arrived(self):
        return self._arrived

    def open(self):
        self._opened.set()


def test_encoding_does_not_run_ahead_of_writing(local_ray, random_bert_folder):
    writer = ray.remote(num_cpus=0.1, max_concurrency=50)(SlowWriter).remote()
    rows = ray.data.from_arrow(pa.table({"text": [f"text {number}" for number in range(80)]}))
    stage = EncodeStage(model_name=random_bert_folder, options={"device": "cpu", "max_length": 16})
    actors = Actors(rows_per_batch=4)
    results = stage.apply(rows, actors, EncodeAndWrite, batches=EncodeAndWrite.BATCHES, writers=[writer])
    with ThreadPoolExecutor() as pool:
        run = pool.submit(results.take_all)
        try:
            while ray.get(writer.arrived.remote()) == 0:
                time.sleep(0.1)
            time.sleep(3)  # enough for all 20 batches, if nothing held the encoder back
            assert ray.get(writer.arrived.remote()) == EncodeAndWrite.BATCHES
        finally:
            ray.get(writer.open.remote())
        assert sum(row["rows"] for row in run.result(60)) == 80
