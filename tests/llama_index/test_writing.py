"""Tests of adding, replacing, deleting and reading nodes, on a file and on a server."""

import asyncio
import datetime
import decimal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.schema import TextNode

from splade_integrations.llama_index import HybridMilvusVectorStore, SpladeSparseEmbedding
from tests.llama_index.support import ANIMALS, MODES, all_of, animals, any_of, ask, embedded, node, none_of, where
from tests.support.adapters import DIM, WordCounts, count

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")

ODD_IDS = ["C:\\scans\\a.txt", "docs\\new.txt", "docs\\table.txt", "it's", 'say "hi"', "100%", "naïve", "a'b\"c\\d"]


def ids(store):
    return {one.node_id for one in store.get_nodes(filters=all_of())}


# Adding


def test_the_sparse_side_sees_the_text_of_the_dense_side(words):
    words.add(
        [
            node("ada", "Notes on the engine", {"author": "Lovelace"}),
            node(
                "alan",
                "On computable numbers",
                {"author": "Turing", "file": "x.pdf"},
                excluded_embed_metadata_keys=["file"],
            ),
        ]
    )
    assert words.query(ask("Lovelace", "sparse")).ids == ["ada"]
    assert words.query(ask("Lovelace")).ids[0] == "ada"
    assert words.query(ask("x.pdf", "sparse")).ids == []
    assert words.get_nodes(["ada"])[0].text == "Notes on the engine"


def test_adding_the_same_ids_again_replaces(store):
    for _ in range(2):
        assert store.add(animals()) == ["cat", "dog", "sparrow", "spider"]
        assert count(store) == 4
    store.add([node("cat", "Whales dive deep.", {"fins": 2})])
    assert count(store) == 4
    for mode in MODES:
        found = store.query(ask("Whales dive deep.", mode, k=1, filters=all_of(where("fins", 2))))
        assert found.ids == ["cat"]
    [whale] = store.query(ask("diving whales", "sparse", k=1)).nodes
    assert (whale.text, whale.metadata) == ("Whales dive deep.", {"fins": 2})
    # With milvus-lite's own upsert, filters would still match the old metadata.
    assert "cat" not in store.query(ask("cats purr", filters=all_of(where("legs", 4)))).ids


def test_nodes_are_encoded_in_chunks_and_flushed(uri):
    encoder = WordCounts()
    store = HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=SpladeSparseEmbedding(encoder=encoder))
    nodes = [node(str(i), f"word{i}") for i in range(900)]
    assert store.add(nodes) == [str(i) for i in range(900)]
    assert count(store) == 900
    assert encoder.batches == [512, 388]
    for i in (0, 511, 512, 899):
        assert store.query(ask(f"word{i}", "sparse")).ids == [str(i)]
    assert list(Path(uri).rglob("*.parquet")), "milvus-lite has written no segment file, so the rows are not flushed"


def test_nothing_to_add_is_no_error(store):
    assert store.add([]) == asyncio.run(store.async_add([])) == []
    for mode in MODES:
        assert store.query(ask("x", mode)).ids == []


REFUSED = [
    (ValueError, r"nodes\[600\] \('bad'\) must have an embedding, got None", {"embedding": None}),
    (ValueError, r"nodes\[600\] \('bad'\) must be at most 65535 bytes of UTF-8 .*, got 70000", {"text": "x" * 70_000}),
    (ValueError, r"nodes\[600\] \('bad'\) must be valid Unicode", {"text": "lone \ud800"}),
    (ValueError, r"ids must differ within a call, got '0' 2 times", {"id_": "0"}),
    *(
        (
            TypeError,
            rf"nodes\[600\] \('bad'\)\.metadata\['file'\] must be a value that JSON .* got {type(value).__name__}",
            {"metadata": {"file": value}},
        )
        for value in (Path("a.txt"), decimal.Decimal("1.5"), datetime.date(2020, 1, 2), {1, 2}, (1, 2), b"x")
    ),
    (TypeError, r"metadata\['a'\]\[1\]\['b'\] must be", {"metadata": {"a": [0, {"b": Path("x")}]}}),
    (ValueError, r"metadata\['x'\] must be a finite number, got nan", {"metadata": {"x": float("nan")}}),
    (ValueError, r"metadata\['x'\] must fit into 64 bits", {"metadata": {"x": 2**70}}),
    (TypeError, r"the keys of .*metadata\['x'\] must be str, got int 1", {"metadata": {"x": {1: 2}}}),
]


@pytest.mark.parametrize(("kind", "message", "fields"), REFUSED)
def test_nodes_are_checked_before_anything_is_written(words, kind, message, fields):
    good = [node(str(i), "x") for i in range(600)]  # more than one chunk
    bad = TextNode(**{"id_": "bad", "text": "x", "embedding": [1.0] * DIM} | fields)
    for add in (words.add, lambda nodes: asyncio.run(words.async_add(nodes))):
        with pytest.raises(kind, match=message):
            add([*good, bad])
    assert count(words) == 0


def test_numbers_of_numpy_are_numbers(store):
    store.add([node("a", "alpha", {"year": np.int64(1944), "score": np.float32(0.5), "on": np.bool_(True)})])
    [found] = store.get_nodes(["a"])
    assert found.metadata == {"year": 1944, "score": 0.5, "on": True}
    assert [type(value) for value in found.metadata.values()] == [int, float, bool]
    assert store.query(ask("alpha", filters=all_of(where("year", 1944)))).ids == ["a"]


def test_unknown_keywords_are_refused(store):
    with pytest.raises(TypeError, match="milvus_partition_names"):
        store.add(animals(), milvus_partition_names=["x"])
    with pytest.raises(TypeError, match="milvus_partition"):
        store.delete("cat-book", milvus_partition="x")
    with pytest.raises(TypeError, match="filter"):
        store.delete_nodes(["cat"], filter=all_of(where("legs", 4)))
    with pytest.raises(TypeError, match="filter"):
        asyncio.run(store.adelete_nodes(["cat"], filter=all_of(where("legs", 4))))
    with pytest.raises(TypeError, match="limit"):
        store.get_nodes(["cat"], limit=5)


# Deleting and reading


def test_deleting_and_getting(store):
    store.add(animals())
    found = store.get_nodes(list(ANIMALS))
    assert {one.node_id: (one.text, one.metadata) for one in found} == ANIMALS
    assert [one.node_id for one in found] == list(ANIMALS), "in the order of the ids"
    np.testing.assert_allclose(found[0].embedding, animals()[0].embedding, atol=1e-6)
    assert [one.node_id for one in store.get_nodes(filters=all_of(where("legs", 8)))] == ["spider"]
    store.delete("cat-book")
    store.delete_nodes(["dog"])
    assert set(store.query(ask("cats and dogs")).ids) == {"sparrow", "spider"}
    store.delete_nodes(filters=all_of(where("legs", 8)))
    assert store.query(ask("cats and dogs")).ids == ["sparrow"]


def test_ids_and_filters_mean_those_that_match_both(store):
    """The store once deleted nodes that met only one of the two conditions."""
    filters = any_of(where("legs", 8), where("colour", "brown"))
    store.add(animals())
    assert {one.node_id for one in store.get_nodes(["cat", "spider", "no"], filters)} == {"spider"}
    assert {one.node_id for one in asyncio.run(store.aget_nodes(["cat", "spider"], filters))} == {"spider"}
    store.delete_nodes(["cat", "spider", "no"], filters)
    assert ids(store) == {"cat", "dog", "sparrow"}
    asyncio.run(store.adelete_nodes(["cat", "sparrow"], filters))
    assert ids(store) == {"cat", "dog"}


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (none_of(where("legs", 4)), {"cat", "dog"}),
        (none_of(where("legs", 4), where("legs", 8)), {"cat", "dog", "spider"}),
        (all_of(where("colour", operator="is_empty")), {"sparrow"}),
        (all_of(where("legs", 2, ">"), where("legs", 8, "<")), {"sparrow", "spider"}),
        (any_of(where("colour", "BROWN"), where("home", 1)), {"cat", "dog", "sparrow", "spider"}),
    ],
)
def test_a_deletion_by_filter_deletes_what_it_says(store, filters, left):
    store.add(animals())
    store.delete_nodes(filters=filters)
    assert ids(store) == left


def test_nothing_is_deleted_by_omission(store):
    store.add(animals())

    def calls(**what):
        return [
            lambda: store.delete_nodes(**what),
            lambda: asyncio.run(store.adelete_nodes(**what)),
        ]

    for delete in (
        calls() + calls(filters=all_of()) + calls(filters=all_of(all_of())) + calls(filters=none_of(any_of()))
    ):
        with pytest.raises(ValueError, match=r"clear\(\)"):
            delete()
    for filters in (all_of(), all_of(where("legs", 4), all_of())):
        with pytest.raises(ValueError, match=r"at least one filter, got none.*clear\(\)"):
            store.delete_nodes(["cat"], filters)
    for read in (store.get_nodes, lambda: asyncio.run(store.aget_nodes())):
        with pytest.raises(ValueError, match=r"node_ids or filters must be given, got neither.*filters=Metadata"):
            read()
    for nothing in calls(node_ids=[]) + calls(node_ids=["no"]) + calls(node_ids=[], filters=all_of(where("legs", 4))):
        nothing()
    store.delete("no-book")
    store.delete_nodes(filters=all_of(where("legs", 5)))
    assert store.get_nodes([]) == asyncio.run(store.aget_nodes([])) == store.get_nodes(["no"]) == []
    assert count(store) == 4
    for refused in ("delete(None)", "delete(['cat-book'])"):
        with pytest.raises(TypeError, match="ref_doc_id must be a str, got"):
            eval(f"store.{refused}", {"store": store})
    with pytest.raises(TypeError):
        store.delete_nodes("cat")
    assert count(store) == 4


@pytest.mark.parametrize("name", ODD_IDS)
def test_an_id_with_quotes_or_backslashes_is_that_one(store, name):
    """With such ids, stores once kept the old version, raised a parse error, or found nothing."""
    store.add([node(other, "alpha", ref_doc_id=f"of {other}") for other in [*ODD_IDS, "docs/new.txt"]])
    assert [one.node_id for one in store.get_nodes([name])] == [name]
    assert [one.node_id for one in asyncio.run(store.aget_nodes([name, "it's"]))] == list(dict.fromkeys([name, "it's"]))
    assert store.query(ask("alpha", node_ids=[name])).ids == store.query(ask("alpha", doc_ids=[f"of {name}"])).ids
    assert store.query(ask("alpha", node_ids=[name])).ids == [name]
    store.add([node(name, "beta", ref_doc_id=f"of {name}")])
    assert count(store) == 9
    assert store.get_nodes([name])[0].text == "beta"
    store.delete_nodes([name])
    assert ids(store) == {*ODD_IDS, "docs/new.txt"} - {name}
    store.add([node(name, "gamma", ref_doc_id=f"of {name}")])
    store.delete(f"of {name}")
    assert ids(store) == {*ODD_IDS, "docs/new.txt"} - {name}


def test_a_document_of_no_name_or_an_odd_one(store):
    store.add([node("lone", "alpha"), node("none", "alpha", ref_doc_id="None"), node("one", "alpha", ref_doc_id="x")])
    store.delete("None")
    assert ids(store) == {"lone", "one"}
    store.delete("")
    assert ids(store) == {"lone", "one"}


def test_a_cleared_store_can_be_added_to(store):
    store.add(animals())
    store.clear()
    assert count(store) == 0
    store.add(animals()[:2])
    assert store.query(ask("dogs bark", "sparse", k=1)).ids == ["dog"]
    asyncio.run(store.aclear())
    assert count(store) == 0
    assert asyncio.run(store.async_add(animals())) == list(ANIMALS)
    assert store.query(ask("dogs bark", "sparse", k=1)).ids == ["dog"]


def test_more_rows_than_a_page(words):
    words.add([node(f"{i:05}", f"word{i % 2}", {"even": i % 2 == 0}, ref_doc_id=f"book{i % 3}") for i in range(2_500)])
    assert len(words.get_nodes(filters=all_of(where("even", operator="is_empty")))) == 0
    assert len(words.get_nodes([f"{i:05}" for i in range(2_500)])) == 2_500
    words.delete("book0")
    assert count(words) == 1_666
    words.delete_nodes(filters=all_of(where("even", 0, "!="), none_of(where("even", 1))))
    assert count(words) == 0, "true is not 1"


# Async and threads


def test_async_equals_sync_in_two_event_loops(store):
    async def use_it(text):
        assert await store.async_add([*animals(), node("late", text, ref_doc_id="late-book")]) == [*ANIMALS, "late"]
        found = {mode: await store.aquery(ask(text, mode, k=5)) for mode in MODES}
        assert await asyncio.gather(*(store.aquery(ask(text, k=5)) for _ in range(20))) == [found["hybrid"]] * 20
        [late] = await store.aget_nodes(["late"])
        assert late.text == text
        assert await store.aget_nodes(filters=all_of(where("legs", 8))) == store.get_nodes(["spider"])
        return found

    async def remove():
        await store.adelete("late-book")
        await store.adelete_nodes(["dog"])

    for text in ("Whales dive deep.", "Ants march on."):
        found = asyncio.run(use_it(text))
        assert count(store) == 5
        for mode in MODES:
            assert found[mode] == store.query(ask(text, mode, k=5))
            assert found[mode].ids
        assert found["sparse"].ids[0] == "late"
        asyncio.run(remove())
        assert set(store.query(ask("dogs", k=5)).ids) == {"cat", "sparrow", "spider"}


@pytest.fixture
def impatient_threads():
    """Let threads take turns every microsecond, so that code fails if a lock is missing."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("impatient_threads")
def test_many_may_add_at_once(words):
    parts = [[node(f"{part}-{i}", f"word{part}") for i in range(20)] for part in range(64)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(words.add, parts)) == [[one.node_id for one in part] for part in parts]
    assert count(words) == 1280
    for part in range(64):
        assert len(words.query(ask(f"word{part}", "sparse", k=100)).ids) == 20


def test_adding_leaves_the_event_loop_free(store, prose):
    nodes = [node(str(i), text) for i, text in enumerate(prose * 2)]
    store.add(nodes[:1])

    async def turns_of_the_loop():
        turns, adding = 0, asyncio.create_task(store.async_add(nodes))
        while not adding.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert len(await adding) == 300
        return turns

    assert asyncio.run(turns_of_the_loop()) > 20  # it would be one or two if the work blocked the loop


def test_without_async_clients_async_methods_run_in_threads(sparse, place):
    store = HybridMilvusVectorStore(**place, dim=DIM, sparse_embedding_function=sparse, use_async_client=False)
    store.add(animals())
    assert asyncio.run(store.aquery(ask("dogs"))) == store.query(ask("dogs"))
    assert asyncio.run(store.aget_nodes(["dog"])) == store.get_nodes(["dog"])
    assert embedded(store.get_nodes(["dog"])[0]).node_id == "dog"
