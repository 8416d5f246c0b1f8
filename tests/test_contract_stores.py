"""The behaviour that both hybrid stores share, on milvus-lite files and, if MILVUS_URI is set, on that server."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from splade_integrations import Pruning, SpladeEncoder
from splade_integrations.milvus.lite import lite_version
from tests.support.adapters import STORES, WordCounts, count
from tests.support.places import PLACES, new_place

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")

ANIMALS = [
    ("cat", "Cats purr when they are content.", {"author": "Lovelace", "tenant": "a"}),
    ("dog", "Dogs bark at strangers.", {"author": "Turing", "tenant": "b"}),
    ("sparrow", "Sparrows sing at dawn.", {"author": "Hopper", "tenant": "a"}),
    ("spider", "Spiders weave webs.", {"author": "Hopper", "tenant": "b"}),
]
MODES = ["hybrid", "dense", "sparse"]


@pytest.fixture(params=STORES)
def adapter(request):
    return STORES[request.param]


@pytest.fixture(params=PLACES)
def place(request, tmp_path):
    """Return the keyword arguments, such as the uri, that say where to open a store."""
    with new_place(request.param, tmp_path) as options:
        yield options


@pytest.fixture
def lite(tmp_path):
    return {"uri": str(tmp_path / "test.db")}


@pytest.fixture
def store(adapter, encoder, place):
    return adapter.open(encoder, **place)


def test_both_sides_and_their_fusion_find(adapter, store):
    assert adapter.add(store, ANIMALS) == ["cat", "dog", "sparrow", "spider"]
    assert adapter.search(store, "a dog that barks", "sparse", k=1) == ["dog"]
    for mode in ("hybrid", "dense"):
        assert set(adapter.search(store, "a dog that barks", mode)) == {"cat", "dog", "sparrow", "spider"}
    adapter.delete(store, ["dog"])
    assert set(adapter.search(store, "a dog that barks")) == {"cat", "sparrow", "spider"}


def test_a_document_is_found_by_a_word_of_its_metadata_alone(adapter, place):
    store = adapter.open(WordCounts(), **place)
    adapter.add(store, ANIMALS)
    assert adapter.search(store, "Lovelace", "sparse") == ["cat"]
    assert adapter.search(store, "Lovelace")[0] == "cat"
    # The dense model embedded the text together with its metadata, so a search for this whole string finds the
    # document first.
    embedded = adapter.embedded(*ANIMALS[0])
    assert embedded != ANIMALS[0][1]
    assert adapter.search(store, embedded, "dense", k=1) == ["cat"]
    encoder = WordCounts()
    adapter.add(adapter.open(encoder, **place), ANIMALS[:1])
    assert set(encoder.vocabulary) == set(embedded.split())


@pytest.mark.parametrize("mode", MODES)
def test_a_tenants_filter_binds_both_sides_however_many_are_asked_for(adapter, store, mode):
    adapter.add(store, ANIMALS)
    for text in ("a dog that barks", "dogs and spiders, Turing"):
        found = adapter.search(store, text, mode, k=50, where=("tenant", "a"))
        assert set(found) <= {"cat", "sparrow"}
        if mode != "sparse":
            assert len(found) == 2
    assert adapter.search(store, "a dog that barks", mode, k=50, where=("tenant", "c")) == []


def test_a_text_without_terms_is_stored_and_never_found_by_sparse_search(adapter, place):
    store = adapter.open(WordCounts(), **place)
    adapter.add(store, [("ab", "alpha beta", {}), ("empty", "", {}), ("b", "beta", {})])
    assert count(store) == 3
    assert adapter.search(store, "alpha", "sparse") == ["ab"]
    by_dense_alone = adapter.search(store, "", "dense")
    assert by_dense_alone[0] == "empty"
    assert adapter.search(store, "", "sparse") == asyncio.run(adapter.asearch(store, "", "sparse")) == []
    assert adapter.search(store, "") == asyncio.run(adapter.asearch(store, "")) == by_dense_alone


def test_adding_again_replaces(adapter, store):
    for _ in range(2):
        adapter.add(store, ANIMALS)
        assert count(store) == 4
    adapter.add(store, [("cat", "Whales dive deep.", {"tenant": "c"})])
    assert count(store) == 4
    assert adapter.search(store, "diving whales", "sparse", k=1) == ["cat"]
    assert adapter.search(store, "cats", where=("tenant", "c")) == ["cat"]
    assert "cat" not in adapter.search(store, "cats", where=("tenant", "a"))


def test_a_store_built_outside_a_loop_works_in_two_loops(adapter, store):
    async def use_it(text):
        await adapter.aadd(store, [*ANIMALS, ("late", text, {})])
        return [await adapter.asearch(store, text, mode, k=5) for mode in MODES]

    for text in ("Whales dive deep.", "Ants march on."):
        assert asyncio.run(use_it(text)) == [adapter.search(store, text, mode, k=5) for mode in MODES]
        assert adapter.search(store, text, "sparse", k=1) == ["late"]
        assert count(store) == 5


def test_documents_are_encoded_in_chunks(adapter, place):
    encoder = WordCounts()
    store = adapter.open(encoder, **place)
    documents = [(str(i), f"word{i}", {}) for i in range(900)]
    assert adapter.add(store, documents) == [str(i) for i in range(900)]
    assert count(store) == 900
    assert encoder.batches == [512, 388]
    assert adapter.search(store, "word700", "sparse") == ["700"]


# Only on milvus-lite


def test_two_stores_over_one_file_may_write_and_delete_at_once(adapter, lite):
    encoder = WordCounts()
    # WordCounts numbers words without a lock, so it must see all words before the threads start.
    encoder.encode_documents([" ".join(f"word{number}" for number in range(16))])
    stores = [adapter.open(encoder, **lite, collection_name=f"c{i % 2}") for i in range(4)]

    def work(number):
        store = stores[number % 4]
        for turn in range(4):
            keys = [f"{number}-{turn}-{i}" for i in range(20)]
            adapter.add(store, [(key, f"word{number}", {}) for key in keys])
            adapter.delete(store, keys[:5])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    for collection in (0, 1):
        assert count(stores[collection]) == 8 * 4 * 15
    assert len(adapter.search(stores[0], "word0", "sparse", k=100)) == 60


# A collection must be used with the encoder that it was made with.


def test_a_collection_is_kept_to_its_encoder(adapter, place, encoder, model_folder, random_bert_folder):
    store = adapter.open(encoder, **place)
    adapter.add(store, ANIMALS)
    adapter.open(encoder, **place)
    same = SpladeEncoder(model_folder, max_length=256, query_pruning=Pruning(max_active_dims=9))
    assert adapter.search(adapter.open(same, **place), "a dog that barks", "sparse", k=1) == ["dog"]
    shorter = SpladeEncoder(model_folder, max_length=64, document_prompt="passage: ")
    with pytest.raises(ValueError, match=r"made with, '.*' \(max_length 256, document_prompt None\), got"):
        adapter.open(shorter, **place)
    other = SpladeEncoder(random_bert_folder, max_length=256)
    with pytest.raises(
        ValueError, match=r"weights '\w{16}'\), got '.*random-bert.*' \(weights '\w{16}'\)\. Load the collection's"
    ):
        adapter.open(other, **place)
    assert count(adapter.open(shorter, **place, allow_other_encoder=True)) == 4
    anew = adapter.open(shorter, **place, drop_old=True)
    adapter.add(anew, ANIMALS[:1])
    assert count(anew) == 1
    adapter.open(shorter, **place)
    with pytest.raises(ValueError, match="max_length 64"):
        adapter.open(encoder, **place)


def test_a_collection_that_does_not_know_its_encoder_is_warned_of_once(adapter, lite, encoder, caplog):
    store = adapter.open(WordCounts(), **lite)  # an encoder without a fingerprint
    adapter.add(store, ANIMALS)
    with caplog.at_level(logging.WARNING, "splade_integrations"):
        for _ in range(2):
            adapter.open(encoder, **lite)
        adapter.open(WordCounts(), **lite)
    [warned] = [record.getMessage() for record in caplog.records if "splade" in record.name]
    assert "'contract' does not record the encoder that it was made with" in warned


@pytest.mark.skipif(lite_version("x.db").startswith("2."), reason="milvus-lite 2 has no aliases")
def test_indexing_anew_behind_an_alias(adapter, lite, encoder, model_folder):
    """This follows the recipe of docs/re-indexing.md."""
    client = adapter.open(encoder, **lite, collection_name="documents_v1").client
    adapter.add(adapter.open(encoder, **lite, collection_name="documents_v1"), ANIMALS)
    client.create_alias("documents_v1", "documents")
    serving = adapter.open(encoder, **lite, collection_name="documents")
    assert adapter.search(serving, "a dog that barks", "sparse", k=1) == ["dog"]

    pruned = SpladeEncoder(model_folder, max_length=256, document_pruning=Pruning(max_active_dims=64))
    adapter.add(adapter.open(pruned, **lite, collection_name="documents_v2"), ANIMALS)
    with pytest.raises(ValueError, match="'documents_v1' must be used with the encoder"):
        adapter.open(pruned, **lite, collection_name="documents")
    client.alter_alias("documents_v2", "documents")
    serving = adapter.open(pruned, **lite, collection_name="documents")
    assert adapter.search(serving, "a dog that barks", "sparse", k=1) == ["dog"]
    client.drop_collection("documents_v1")
    assert set(adapter.search(serving, "a dog that barks")) == {"cat", "dog", "sparrow", "spider"}
