"""Tests with a server that goes down, comes back, or claims to be a full Milvus. A gRPC proxy plays these roles."""

import asyncio
import importlib.metadata
import json
import socket
import time

import grpc
import pytest
from pymilvus.exceptions import MilvusException

from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.filters import Engine
from splade_integrations.milvus.rows import Row
from splade_integrations.milvus.schema import Schema
from tests.support.proxy import milvus_proxy
from tests.support.server import milvus_lite_server

LITE2 = importlib.metadata.version("milvus-lite").startswith("2.")
pytestmark = pytest.mark.skipif(LITE2, reason="milvus-lite 2 has no server")
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
ROWS = [
    Row(id="a", text="apple", dense=[1.0, 0.0], sparse={1: 1.0}, metadata={"n": 1}),
    Row(id="b", text="banana", dense=[0.0, 1.0], sparse={2: 1.0}, metadata={"n": 2}),
]
BOTH = {"dense": [1.0, 0.1], "sparse": {1: 1.0, 2: 0.5}}


@pytest.fixture(scope="module")
def server():
    with milvus_lite_server() as uri:
        yield uri


@pytest.fixture
def proxy(server):
    with milvus_proxy(server) as proxy:
        yield proxy


@pytest.fixture
def collection(proxy, request):
    made = Collection(request.node.name[:40].replace("[", "_").replace("]", ""), Schema(), Connection(proxy.uri))
    made.write(ROWS)
    proxy.seen.clear()
    return made


def ids_of(hits):
    return [hit.id for hit in hits]


def search(collection, way, **how):
    if way == "sync":
        return ids_of(collection.search(BOTH, **how))
    return ids_of(asyncio.run(collection.asearch(BOTH, **how)))


WAYS = ["sync", "async"]


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_comes_back_is_waited_for(collection, proxy, way):
    proxy.faults["HybridSearch"] = [UNAVAILABLE, UNAVAILABLE]
    assert search(collection, way) == ["a", "b"]
    assert len(proxy.seen["HybridSearch"]) == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("code", [UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_a_server_that_does_not_answer_is_a_clear_error_in_a_stated_time(collection, proxy, way, code):
    proxy.faults["HybridSearch"] = [code] * 100
    with pytest.raises(
        TimeoutError, match=f"Milvus at {proxy.uri} must answer within 1 s, got no answer to hybrid_search"
    ):
        search(collection, way, timeout=1)


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_is_down_is_a_clear_error(collection, proxy, way):
    assert search(collection, way) == ["a", "b"]
    proxy.stop()
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="Check that the server runs"):
        search(collection, way, timeout=2)
    assert time.monotonic() - started < 20  # it once took five minutes
    for read in (lambda: collection.get(["a"], timeout=1), lambda: list(collection.iterate(timeout=1))):
        with pytest.raises(TimeoutError, match="got no answer to query"):
            read()
    with pytest.raises(TimeoutError, match="got no answer to has_collection"):
        collection.write(ROWS, timeout=1)
    with pytest.raises(TimeoutError, match="got no answer to delete"):
        collection.delete(ids=["a"], timeout=1)


def test_a_store_says_so_for_all_its_calls_by_its_own_timeout(proxy):
    collection = Collection("own_timeout", Schema(), Connection(proxy.uri), timeout=1)
    collection.write(ROWS)
    proxy.faults["Query"] = [UNAVAILABLE] * 100
    with pytest.raises(TimeoutError, match="within 1 s, got no answer to query"):
        collection.get(["a"])


@pytest.mark.parametrize("way", WAYS)
def test_a_released_collection_is_loaded_and_searched_once_more(collection, proxy, way):
    collection.client.release_collection(collection.name)
    proxy.seen.clear()
    assert search(collection, way) == ["a", "b"]
    assert len(proxy.seen["HybridSearch"]) == 2
    assert len(proxy.seen["LoadCollection"]) == 1
    collection.client.release_collection(collection.name)
    assert ids_of(collection.get(["b"])) == ["b"]
    collection.client.release_collection(collection.name)
    assert ids_of(collection.iterate()) == ["a", "b"]


def test_other_errors_are_passed_on_at_once(collection, proxy):
    proxy.faults["Search"] = [grpc.StatusCode.PERMISSION_DENIED]
    with pytest.raises(grpc.RpcError, match="injected"):
        collection.search({"dense": [1.0, 0.0]})
    assert len(proxy.seen["Search"]) == 1


# The following tests check which requests a full Milvus server would get. They run without such a server.


@pytest.fixture
def full(proxy):
    proxy.pretend("v2.6.5")
    schema = Schema(metadata_fields={"year": int}, partition_key_field="tenant")
    options = {"consistency_level": "Bounded", "num_shards": 2, "num_partitions": 8, "properties": {"owner": "me"}}
    collection = Collection("full", schema, Connection(proxy.uri), create_options=options, replica_number=2)
    collection.client.drop_collection("full")
    yield collection
    collection.client.drop_collection("full")


def test_a_full_server_is_recognised_and_gets_its_own_indexes(full, proxy):
    assert full.engine is Engine.SERVER
    full.write([Row(id="a", text="x", dense=[1.0, 0.0], sparse={1: 1.0}, metadata={"tenant": "t"})])
    created = proxy.seen["CreateCollection"][-1]
    assert (created.shards_num, created.num_partitions, created.consistency_level) == (2, 8, 2)
    assert {pair.key: pair.value for pair in created.properties}["owner"] == "me"
    indexes = {one.field_name: {pair.key: pair.value for pair in one.extra_params} for one in proxy.seen["CreateIndex"]}
    assert indexes["dense"]["index_type"] == "AUTOINDEX"
    assert indexes["sparse"]["index_type"] == "SPARSE_INVERTED_INDEX"
    assert "inverted_index_algo" not in json.dumps(indexes)
    assert "drop_ratio" not in json.dumps(indexes)
    assert proxy.seen["LoadCollection"][-1].replica_number == 2
    # Rows are upserted, because a full Milvus's insert would keep two rows with the same id. No flush is needed,
    # because a full Milvus flushes by itself.
    assert len(proxy.seen["Upsert"]) == 1
    assert not proxy.seen["Insert"]
    assert not proxy.seen["Flush"]


def test_a_range_goes_to_a_full_server_for_every_side(full, proxy):
    full.write([Row(id="a", text="x", dense=[1.0, 0.0], sparse={1: 1.0}, metadata={"tenant": "t"})])
    full.search(BOTH, params={"sparse": {"params": {"radius": 0.5}}}, filter={"tenant": "t"}, k=3)
    [asked] = proxy.seen["HybridSearch"]
    dense, sparse = ({pair.key: pair.value for pair in one.search_params} for one in asked.requests)
    assert "radius" not in dense["params"]
    assert json.loads(sparse["params"])["radius"] == 0.5
    assert all("tenant" in one.dsl for one in asked.requests)


def test_a_server_that_is_not_there_is_a_clear_error():
    with pytest.raises(TimeoutError, match=r"Milvus at http://127\.0\.0\.1:9 must answer, got no answer"):
        Connection("http://127.0.0.1:9", {"timeout": 0.5})


def test_a_file_opens_though_its_port_belonged_to_a_closed_one(tmp_path, monkeypatch):
    server, manager = (pytest.importorskip(f"milvus_lite.{name}") for name in ("adapter.grpc.server", "server_manager"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = server.start_server_in_thread
    monkeypatch.setattr(server, "start_server_in_thread", lambda **how: start(**{**how, "port": port}))
    first, second = str(tmp_path / "first.db"), str(tmp_path / "second.db")
    closed = Connection(first).client
    manager.server_manager_instance.release_server(first)
    with pytest.raises((MilvusException, grpc.RpcError)):
        closed.list_collections(timeout=1)
    assert Connection(second).client.list_collections() == []
