"""Tests of a collection without a framework: its vector fields, its ids and its metadata.

tests/test_contract_stores.py tests what the stores for both frameworks share.
"""

import asyncio
import gc
import importlib.metadata
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest
from pymilvus import AsyncMilvusClient, DataType, MilvusClient
from scipy.sparse import csr_array

from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.defaults import MAX_TEXT_BYTES
from splade_integrations.milvus.filters import And, Compare, Engine
from splade_integrations.milvus.rows import Row
from splade_integrations.milvus.schema import Column, Schema

LITE2 = importlib.metadata.version("milvus-lite").startswith("2.")
ROWS = [
    Row(id="a", text="apple", dense=[1.0, 0.0], sparse={1: 1.0, 9: 0.5}, metadata={"n": 1}, columns={"own": "x"}),
    Row(id="b", text="banana", dense=[0.0, 1.0], sparse={2: 1.0, 9: 0.4}, metadata={"n": 2}, columns={"own": "x"}),
    Row(id="c", text="cherry", dense=[0.6, 0.8], sparse={3: 1.0, 9: 0.3}, metadata={"n": 3}, columns={"own": "y"}),
]
OWN = {"own": Column(DataType.VARCHAR)}


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "collection.db")


@pytest.fixture
def collection(uri):
    made = Collection("fruit", Schema(columns=OWN), Connection(uri))
    made.write(ROWS)
    return made


def ids_of(hits):
    return [hit.id for hit in hits]


def index_files(database, *names):
    """Return a collection's index files. A background thread of milvus-lite writes them after a flush."""
    written = None
    for _ in range(300):
        files = list(database.glob("collections/fruit/partitions/*/indexes/*idx"))
        found = {file: file.stat().st_size for file in files}
        if found and found == written and sorted(file.name.split(".", 1)[1] for file in found) == list(names):
            return files
        written = found
        time.sleep(0.1)
    raise TimeoutError(f"expected the index files {names}, got {files}")


@pytest.mark.skipif(LITE2, reason="milvus-lite 2 keeps everything in one file")
@pytest.mark.parametrize("written", [0, 100])
@pytest.mark.parametrize("way", ["open", "search", "asearch", "alias"])
def test_index_files_that_were_not_written_completely_are_built_again(tmp_path, uri, way, written):
    """This is what a kill or a full disk leaves behind while milvus-lite writes the index files of a segment."""
    schema = Schema(columns={"own": Column(DataType.VARCHAR, index=True)})
    made = Collection("fruit", schema, Connection(uri))
    made.write(ROWS)
    made.flush()
    made.client.create_alias("fruit", "basket")
    files = index_files(tmp_path / "collection.db", "dense.flat.idx", "own.inverted.sidx")
    whole = {file: file.read_bytes() for file in files}
    made.client.release_collection("fruit")
    for file in files:
        file.write_bytes(whole[file][:written])
    if way in ("open", "alias"):
        made = Collection("basket" if way == "alias" else "fruit", schema, Connection(uri))
    query = {"dense": [1.0, 0.1], "sparse": {9: 1.0}}
    hits = asyncio.run(made.asearch(query)) if way == "asearch" else made.search(query)
    assert sorted(ids_of(hits)) == ["a", "b", "c"]
    left = {file: file.read_bytes() for file in files if file.exists()}  # the others are built by the next process
    assert left
    assert left.items() <= whole.items()


@pytest.mark.skipif(LITE2, reason="milvus-lite 2 keeps everything in one file")
def test_an_index_file_whose_path_names_memory_and_space(tmp_path):
    """FAISS names the file in its error. Errors about memory or disk space delete no index file."""
    folder = tmp_path / "workspace with memory"
    folder.mkdir()
    uri = str(folder / "a.db")
    schema = Schema(index_params={"dense": {"index_type": "HNSW", "params": {"M": 8, "efConstruction": 32}}})
    made = Collection("fruit", schema, Connection(uri))
    made.write([Row(id=str(n), text="a", dense=[n + 1.0, 1.0], sparse={1: 1.0}) for n in range(50)])
    made.flush()
    [file] = index_files(folder / "a.db", "dense.hnsw.idx")
    made.client.release_collection("fruit")
    file.write_bytes(file.read_bytes()[:60])
    assert len(made.search({"dense": [1.0, 1.0]}, k=3)) == 3


@pytest.mark.skipif(LITE2, reason="milvus-lite 2 keeps everything in one file")
def test_threads_that_load_a_damaged_collection_at_the_same_time(collection, uri, tmp_path):
    collection.flush()
    [file] = index_files(tmp_path / "collection.db", "dense.flat.idx")
    collection.client.release_collection("fruit")
    file.write_bytes(b"")
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(lambda _: Collection("fruit", Schema(columns=OWN), Connection(uri)), range(8)))
    assert {tuple(ids_of(made.search({"sparse": {1: 1.0}}))) for made in opened} == {("a",)}


@pytest.mark.skipif(LITE2, reason="milvus-lite 2 keeps everything in one file")
def test_only_index_files_that_can_be_built_again_are_deleted(collection, tmp_path):
    collection.flush()
    folder = tmp_path / "collection.db"
    [file] = index_files(folder, "dense.flat.idx")
    other = folder / "databases" / "other" / file.relative_to(folder)
    pinned = file.with_name("data_000000_000000.dense.flat.idx")
    for kept in (other, pinned):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(b"kept")
    snapshot = folder / "collections/fruit/snapshots/metadata/s.json"
    snapshot.parent.mkdir(parents=True)
    snapshot.write_text(f'{{"index_files": {{"_default": ["indexes/{pinned.name}"]}}}}')
    assert collection.client.delete_index_files("fruit", slice(None)) == 1
    assert [file.exists(), pinned.exists(), other.exists()] == [False, True, True]


@pytest.mark.skipif(LITE2, reason="milvus-lite 2 keeps everything in one file")
def test_loading_a_collection_that_does_not_exist_deletes_no_index_file(collection, tmp_path):
    collection.flush()
    before = index_files(tmp_path / "collection.db", "dense.flat.idx")
    with pytest.raises(Exception, match="friut"):
        collection.client.load_collection("friut")
    assert list(tmp_path.glob("**/*idx")) == before


def test_a_search_of_a_mistyped_collection_names_those_that_exist_once(collection, uri, caplog):
    mistyped = Collection("friut", Schema(columns=OWN), collection.connection)
    assert mistyped.get(["a"]) == []
    assert caplog.messages == []  # no warning yet, because an application may read before it writes
    assert mistyped.search({"sparse": {1: 1.0}}) == asyncio.run(mistyped.asearch({"sparse": {1: 1.0}})) == []
    assert caplog.messages == [
        f"The collection 'friut' does not exist in {uri}, so a search finds nothing. These collections exist there: "
        "fruit. To search one of them, give its name as collection_name."
    ]
    assert ids_of(collection.search({"sparse": {1: 1.0}})) == ["a"]


def test_a_collection_that_is_not_there_is_empty(uri):
    collection = Collection("none", Schema(), Connection(uri))
    assert collection.search({"dense": [1.0, 0.0]}) == collection.get(["a"]) == list(collection.iterate()) == []
    assert collection.write([]) == []
    assert collection.count() == 0
    collection.delete(ids=["a"])
    collection.clear()
    assert asyncio.run(collection.asearch({"dense": [1.0, 0.0]})) == []
    assert not collection.exists()
    assert collection.layout is None


def test_own_columns_are_no_metadata(collection):
    [found] = collection.get(["a"])
    assert (found.metadata, found.columns) == ({"n": 1}, {"own": "x"})
    assert ids_of(collection.iterate(Compare("own", "eq", "x", column=True))) == ["a", "b"]
    assert ids_of(collection.iterate({"own": "x"})) == []  # "own" is not a metadata key
    collection.delete(filter=Compare("own", "eq", "x", column=True))
    assert ids_of(collection.iterate()) == ["c"]
    with pytest.raises(ValueError, match="a filter with a condition"):
        collection.delete(filter=And())


@pytest.mark.parametrize(
    "terms",
    [
        {9: 0.5, 1: 2},
        {np.int32(9): np.float32(0.5), np.int64(1): 2.0},
        {2**32 - 2: 1.0, 1: 2.0, 9: 0.5},
        {9: np.float16(0.5), True: 2, 3: False},
    ],
    ids=["plain numbers in any order", "numbers of numpy", "Milvus's largest id", "float16, and bools as 0 and 1"],
)
def test_sparse_rows_are_stored_as_given(collection, terms):
    collection.write([Row(id="d", text="date", dense=[1.0, 0.0], sparse=terms, columns={"own": "x"})])
    [best] = collection.search({"sparse": {1: 1.0, 9: 2.0}}, k=1)
    assert (best.id, best.score) == ("d", 3.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"9": 0.5}, {9.5: 0.5}, {(9, 1): 0.5}, {-1: 0.5}, {2**32 - 1: 0.5}, {2**70: 0.5},
        {9: "much"}, {9: None}, {9: [0.5, 1.0]}, {9: 1j}, {9: float("nan")}, {9: float("inf")}, {9: 1e39},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("others", [{}, {1: 1.0}], ids=["alone", "after a right term"])
def test_a_wrong_term_is_named_and_nothing_is_written(collection, wrong, others):
    rows = [Row(id="new", text="date", dense=[1.0, 0.0], sparse={1: 1.0}, columns={"own": "x"})]
    rows += [Row(id="bad", text="elder", dense=[1.0, 0.0], sparse={**others, **wrong}, columns={"own": "x"})]
    [pair] = wrong.items()
    with pytest.raises(ValueError, match=r"the sparse vector of texts\[1\] must have integers") as caught:
        collection.write(rows, batch_size=1)
    assert f"got {pair!r:.80}. " in str(caught.value)
    assert ids_of(collection.iterate()) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "terms", [[(9, 0.5)], csr_array(np.eye(1, dtype=np.float32)), "9"], ids=["pairs", "scipy", "str"]
)
def test_a_sparse_vector_that_is_not_a_dict_is_refused(collection, terms):
    with pytest.raises(TypeError, match=r"the sparse vector of texts\[0\] must be a dict"):
        collection.write([Row(text="date", dense=[1.0, 0.0], sparse=terms, columns={"own": "x"})])


def test_grouping_by_an_own_column_or_a_key(collection):
    both = {"dense": [1.0, 0.2], "sparse": {9: 1.0}}
    assert ids_of(collection.search(both, group_by="own")) == ["a", "c"]
    assert len(collection.search(both, group_by="n")) == 3
    assert len(collection.search(both, group_by="nosuch")) == 3
    assert ids_of(collection.search(both, group_by="own", k=1, options={"offset": 1})) == ["c"]


def test_a_side_that_cannot_answer_leaves_it_to_the_others(collection):
    by_dense = ids_of(collection.search({"dense": [1.0, 0.0]}))
    for empty in ({}, None, {2**32 - 3: 1e-6}):
        fused = collection.search({"dense": [1.0, 0.0], "sparse": empty})
        assert ids_of(fused) == by_dense
        assert fused[0].score == pytest.approx(1 / 61)  # a fused score, although only one side answers
        assert collection.search({"sparse": empty}) == []
    assert ids_of(collection.search({"dense": None, "sparse": {2: 1.0}})) == ["b"]


def test_ids_and_scores_alone(collection):
    [best] = collection.search({"sparse": {1: 1.0}}, ids_only=True, k=1)
    assert (best.id, best.score, best.text, best.metadata) == ("a", 1.0, "", {})


def test_all_rows_are_read_by_pages(uri):
    collection = Collection("many", Schema(dense_field=None), Connection(uri))
    ids = [f"{'odd' if i % 2 else 'even'}-{i}" for i in range(2500)]
    made = lambda chunk: [Row(id=key, text="x", sparse={1: 1.0}, metadata={"odd": key[0] == "o"}) for key in chunk]  # noqa: E731
    assert collection.ingest(ids, made) == ids
    assert ids_of(collection.iterate()) == sorted(ids)
    assert len(list(collection.iterate({"odd": True}))) == 1250

    async def keys():
        return [hit.id async for hit in collection.aiterate({"odd": False})]

    assert asyncio.run(keys()) == sorted(key for key in ids if key[0] == "e")
    assert ids_of(collection.get(ids[::-1])) == ids[::-1]
    collection.delete(filter={"odd": True})
    assert collection.count() == 1250


def test_what_cannot_be_written_leaves_no_collection(uri):
    collection = Collection("none", Schema(dense_field=None), Connection(uri))
    good = Row(id="a", text="x", sparse={1: 1.0})
    for bad, message in [
        (Row(id="a", text="x", sparse={1: 1.0}), "got 'a' 2 times"),
        (Row(id="", text="x", sparse={1: 1.0}), r"ids\[1\] must not be empty"),
        (Row(id="b", text="x" * (MAX_TEXT_BYTES + 1), sparse={1: 1.0}), r"texts\[1\] must be at most 65535 bytes"),
        (Row(id="b", text="x", sparse={1: 1.0}, metadata={"a": {1}}), r"metadatas\[1\]\['a'\]"),
    ]:
        for write in (collection.write, collection.check):
            with pytest.raises((ValueError, TypeError), match=message):
                write([good, bad])
    assert not collection.exists()


@pytest.mark.skipif(not LITE2, reason="milvus-lite 3 takes them")
def test_milvus_lite_2_is_given_no_id_that_its_queries_cannot_hold(uri):
    collection = Collection("ids", Schema(dense_field=None), Connection(uri))
    for key in ("it's", "a\\b", "a\nb"):
        with pytest.raises(ValueError, match="must have no apostrophe, backslash or control character"):
            collection.write([Row(id=key, text="x", sparse={1: 1.0})])
    collection.write([Row(id="a", text="x", sparse={1: 1.0})])
    collection.delete(ids=["it's", "x') or ('1'='1"])
    assert collection.count() == 1


def test_a_collection_dropped_by_another_is_made_anew(collection):
    collection.client.drop_collection("fruit")
    assert collection.write(ROWS[:1]) == ["a"]
    assert collection.count() == 1


def test_the_engine_is_known(uri):
    assert Connection(uri).engine is (Engine.LITE2 if LITE2 else Engine.LITE3)


# Clients


def test_clients_of_the_users_own(uri):
    client = MilvusClient(uri)
    collection = Collection("fruit", Schema(columns=OWN), Connection(client=client))
    collection.write(ROWS)
    assert collection.client is client
    assert collection.engine is (Engine.LITE2 if LITE2 else Engine.LITE3)
    assert ids_of(asyncio.run(collection.asearch({"sparse": {2: 1.0}}))) == ["b"]  # uses the sync client, in a thread

    async def by_another():
        aclient = AsyncMilvusClient(uri)
        other = Collection("fruit", Schema(columns=OWN), Connection(client=client, aclient=aclient))
        assert other.aclient is aclient
        return await other.asearch({"sparse": {2: 1.0}})

    assert ids_of(asyncio.run(by_another())) == ["b"]


def test_each_loop_has_a_client_and_closed_loops_are_let_go(collection):
    loops = []

    async def use_it():
        loops.append(weakref.ref(asyncio.get_running_loop()))
        return await collection.asearch({"sparse": {2: 1.0}})

    for _ in range(2):
        assert ids_of(asyncio.run(use_it())) == ["b"]
    gc.collect()
    # The first loop's client was dropped when the second loop asked for a client. (gRPC itself keeps a loop while any
    # channel is open.)
    [held] = collection.connection._aclients._clients
    assert held is not loops[0]()


def test_threads_write_delete_and_search_at_once(collection):
    start = threading.Barrier(8)

    def work(number):
        start.wait()
        for turn in range(5):
            keys = [f"{number}-{turn}-{i}" for i in range(10)]
            collection.write([Row(id=key, text="x", dense=[1.0, 0.0], sparse={1: 1.0}) for key in keys])
            collection.delete(ids=keys[:5])
            collection.search({"dense": [1.0, 0.0], "sparse": {1: 1.0}})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert collection.count() == len(ROWS) + 8 * 5 * 5


@pytest.mark.parametrize("asynchronous", [False, True])
def test_readers_wait_for_a_writer_only_on_milvus_lite_2(collection, asynchronous):
    # milvus-lite 2 crashed when one thread searched while another wrote.
    def read():
        if asynchronous:
            return asyncio.run(collection.asearch({"dense": [1.0, 0.0]}))
        return collection.search({"dense": [1.0, 0.0]})

    with ThreadPoolExecutor(1) as pool:
        with collection.connection.lock:
            reading = pool.submit(read)
            done, _ = wait([reading], timeout=1 if LITE2 else 30)
            assert bool(done) != LITE2
        assert reading.result(30)[0].id == "a"
