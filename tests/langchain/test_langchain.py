"""Tests of LangChain's embedding and hybrid store, over real milvus-lite files."""

import asyncio
import fcntl
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_tests.integration_tests import RetrieversIntegrationTests
from milvus_lite.server_manager import server_manager_instance
from pymilvus import DataType, Function, FunctionType, MilvusClient, RRFRanker

from splade_integrations import Pruning, SpladeEncoder
from splade_integrations.fusion import Fusion
from splade_integrations.langchain import HybridMilvus, SpladeSparseEmbedding, hybrid_milvus
from splade_integrations.langchain.options import connection_arguments
from tests.support.adapters import HashEmbeddings, WordCounts, count
from tests.support.proxy import milvus_proxy
from tests.support.server import milvus_lite_server

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")

ANIMALS = [
    Document("Cats purr when they are content.", id="cat", metadata={"legs": 4, "home": True}),
    Document("Dogs bark at strangers.", id="dog", metadata={"legs": 4}),
    Document("Sparrows sing at dawn.", id="sparrow", metadata={"legs": 2, "colour": "brown"}),
    Document("Spiders weave webs.", id="spider", metadata={"legs": 8}),
]


@pytest.fixture(scope="module")
def dense():
    return HashEmbeddings()


@pytest.fixture(scope="module")
def sparse(encoder):
    return SpladeSparseEmbedding(encoder=encoder)


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "test.db")


@pytest.fixture
def store(dense, sparse, uri):
    return hybrid_milvus(dense, sparse, uri=uri)


@pytest.fixture(scope="module")
def prose() -> list[str]:
    words = Path(asyncio.__file__).with_name("base_events.py").read_text().split()
    return [" ".join(words[start : start + 9]) for start in range(0, 9 * 150, 9)]


@pytest.fixture(scope="module")
def prose_store(dense, sparse, prose, tmp_path_factory):
    store = hybrid_milvus(dense, sparse, uri=tmp_path_factory.mktemp("prose") / "prose.db")
    store.add_texts(prose, [{"half": i % 2} for i in range(len(prose))], ids=[str(i) for i in range(len(prose))])
    return store


@pytest.fixture(scope="module")
def animals(dense, sparse, tmp_path_factory):
    store = hybrid_milvus(dense, sparse, uri=tmp_path_factory.mktemp("animals") / "animals.db")
    store.add_documents(ANIMALS)
    return store


def ids_of(documents):
    return [document.id for document in documents]


# Search


@pytest.fixture(scope="module")
def exact(dense, encoder, prose):
    """Return the (dense, sparse) scores of a query against all prose. Only numpy and scipy compute them."""
    vectors, weights = np.array(dense.embed_documents(prose)), encoder.encode_documents(prose)

    def scores(query):
        return vectors @ dense.embed_query(query), (weights @ encoder.encode_queries([query]).T).toarray()[:, 0]

    return scores


QUERIES = ["run the event loop until complete", "a socket that is closed", "transport protocol"]


@pytest.mark.parametrize("k", [4, 10])
@pytest.mark.parametrize("query", QUERIES)
def test_hybrid_is_reciprocal_rank_fusion_of_both_exact_rankings(prose_store, exact, query, k):
    fused = dict.fromkeys(range(150), 0.0)
    for side in exact(query):
        for rank, position in enumerate(np.argsort(-side, kind="stable")[:100], start=1):
            if side[position] != 0:
                fused[position] += 1 / (60 + rank)
    hits = prose_store.similarity_search_with_score(query, k=k)
    # Ties may be in any order. So the test compares the best k scores, and each document's score with its exact score.
    np.testing.assert_allclose([score for _, score in hits], sorted(fused.values(), reverse=True)[:k], atol=1e-7)
    np.testing.assert_allclose([score for _, score in hits], [fused[int(d.id)] for d, _ in hits], atol=1e-7)


@pytest.mark.parametrize("mode", ["dense", "sparse"])
def test_one_side_alone_is_its_exact_ranking(prose_store, exact, prose, mode):
    for query in QUERIES:
        scores = exact(query)[mode == "sparse"]
        hits = prose_store.similarity_search_with_score(query, k=7, mode=mode)
        best = np.argsort(-scores, kind="stable")[:7]
        assert [int(document.id) for document, _ in hits] == best.tolist()
        assert [document.page_content for document, _ in hits] == [prose[position] for position in best]
        np.testing.assert_allclose([score for _, score in hits], scores[best], rtol=1e-4)
        assert asyncio.run(prose_store.asimilarity_search_with_score(query, k=7, mode=mode)) == hits


def test_a_search_may_choose_its_candidates_and_fusion(prose_store):
    query = QUERIES[0]
    ours = prose_store.similarity_search_with_score(query, k=10)
    few = prose_store.similarity_search_with_score(query, k=10, fetch_k=3)
    assert len(ours) == 10
    assert len(few) <= 6
    weighted = Function(
        name="weighted",
        input_field_names=[],
        function_type=FunctionType.RERANK,
        params={"reranker": "weighted", "weights": [0.0, 1.0]},
    )
    by_weight = prose_store.similarity_search(query, k=5, reranker=weighted)
    assert ids_of(by_weight) == ids_of(prose_store.similarity_search(query, k=5, mode="sparse"))
    by_type = prose_store.similarity_search_with_score(query, k=10, ranker_type="rrf", ranker_params={"k": 60})
    np.testing.assert_allclose([score for _, score in by_type], [score for _, score in ours], atol=1e-7)
    with pytest.raises(ValueError, match=r"sides \('dense', 'sparse'\) or a list .* got 'bm25'"):
        prose_store.similarity_search(query, mode="bm25")
    for param, mode in [([{}], "dense"), ([{}, {}, {}], "hybrid"), ({"params": {}}, "hybrid")]:
        with pytest.raises(ValueError, match=r"param must be a list with one item for each side \(dense, sparse\)"):
            prose_store.similarity_search(query, mode=mode, param=param)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse"])
def test_a_filter_binds_every_side(animals, mode):
    found = animals.similarity_search("cats, dogs and spiders", k=4, expr="legs == 4", mode=mode)
    assert {document.id for document in found} == {"cat", "dog"}
    assert ids_of(animals.similarity_search("singing", expr="colour == 'brown'", mode=mode)) == ["sparrow"]


def test_found_documents_carry_text_metadata_and_id(animals):
    for mode in ("hybrid", "dense", "sparse"):
        found = animals.similarity_search("sparrows sing at dawn", k=4, mode=mode)
        sparrow = next(document for document in found if document.id == "sparrow")
        assert sparrow.page_content == "Sparrows sing at dawn."
        assert sparrow.metadata == {"legs": 2, "colour": "brown"}


def test_retriever(animals):
    retriever = animals.as_retriever(search_kwargs={"k": 3, "expr": "legs <= 4"})
    found = retriever.invoke("barking dogs")
    assert {document.id for document in found} == {"cat", "dog", "sparrow"}
    assert asyncio.run(retriever.ainvoke("barking dogs")) == found
    assert len(retriever.invoke("barking dogs", k=2)) == 2
    assert ids_of(animals.as_retriever(search_kwargs={"k": 1, "mode": "sparse"}).invoke("barking dogs")) == ["dog"]
    with pytest.raises(TypeError, match=r"got 'fetchk'. Use one of these: .*fetch_k"):
        animals.as_retriever(search_kwargs={"fetchk": 3})


class TestHybridRetriever(RetrieversIntegrationTests):
    """Run LangChain's own tests of retrievers on a store of at least three documents."""

    @pytest.fixture(autouse=True)
    def _store(self, animals):
        type(self).store = animals

    @property
    def retriever_constructor(self):
        return lambda k=3: self.store.as_retriever(search_kwargs={"k": k})

    @property
    def retriever_constructor_params(self):
        return {}

    @property
    def retriever_query_example(self):
        return "a dog that barks"


# Adding, replacing, deleting


def test_adding_the_same_ids_again_replaces(store):
    assert store.add_documents(ANIMALS) == ["cat", "dog", "sparrow", "spider"]
    assert store.add_documents(ANIMALS) == ["cat", "dog", "sparrow", "spider"]
    assert count(store) == 4
    store.add_documents([Document("Whales dive deep.", id="cat", metadata={"fins": 2})])
    assert count(store) == 4
    [whale] = store.similarity_search("diving whales", k=1, mode="sparse")
    assert (whale.page_content, whale.metadata) == ("Whales dive deep.", {"fins": 2})
    assert "cat" not in ids_of(store.similarity_search("cats purr", expr="home == true"))
    store.add_texts(["Whales breach."], ids=["cat"])
    assert count(store) == 4


def test_the_first_documents_are_written_like_later_ones(dense, sparse, uri):
    store = hybrid_milvus(dense, sparse, uri=uri, timeout=60)  # LangChain passes the timeout twice
    for _ in range(2):
        store.add_documents(ANIMALS, partition_name="_default")
    assert count(store) == len(ANIMALS)


@pytest.mark.parametrize(
    "upsert", [HybridMilvus.upsert, lambda *args, **keys: asyncio.run(HybridMilvus.aupsert(*args, **keys))]
)
def test_upsert_is_adding_by_another_name(dense, sparse, uri, upsert):
    store = hybrid_milvus(dense, sparse, uri=uri, embed_metadata=["author"])
    upsert(store, documents=[Document("About machines.", id="a", metadata={"author": "Turing", "old": 1})])
    upsert(store, ["a"], [Document("About engines.", metadata={"author": "Lovelace"})])
    [found] = store.similarity_search("lovelace", mode="sparse")
    assert (found.id, found.page_content) == ("a", "About engines.")
    assert found.metadata == {"author": "Lovelace"}  # nothing remains of the first document's metadata
    with pytest.raises(ValueError, match=r"texts\[0\] must be at most 65535 bytes"):
        upsert(store, ["b"], [Document("x" * 70_000)])
    upsert(store, documents=[])


def test_no_ids_are_not_ids_that_are_missing(store):
    with pytest.raises(ValueError, match=r"ids must have one item for each of the 1 texts, got 0"):
        store.add_texts(["a text"], ids=[])
    assert store.add_texts([], ids=[]) == []


def test_what_was_found_can_be_changed_and_added_again(store):
    store.add_documents(ANIMALS)
    [dog] = store.similarity_search("bark", k=1, mode="sparse")
    dog.page_content = "Dogs howl at the moon."
    assert store.add_documents([dog]) == ["dog"]
    assert count(store) == 4
    assert ids_of(store.similarity_search("howling at the moon", k=1, mode="sparse")) == ["dog"]


def test_documents_without_ids_get_some(store):
    documents = [Document("Cats purr."), Document("Dogs bark.", id="dog"), Document("Birds sing.")]
    cat, dog, bird = store.add_documents(documents)
    assert dog == "dog"
    assert len({cat, bird, *store.add_documents(documents)}) == 5
    assert {d.page_content for d in store.get_by_ids([cat, dog, bird])} == {d.page_content for d in documents}
    assert count(store) == 5
    assert documents[0].id is None  # the caller's documents are not changed


def test_milvus_numbers_the_documents_if_asked(dense, sparse, uri):
    store = hybrid_milvus(dense, sparse, uri=uri, auto_id=True)
    documents = [Document("Cats purr."), Document("Dogs bark.")]
    with pytest.raises(ValueError, match="ids must not be given with auto_id=True"):
        store.add_documents(documents, ids=["a", "b"])
    first, second = store.add_documents(documents), store.add_documents(documents)
    assert all(isinstance(number, str) and number.isdigit() for number in first + second)
    assert len({*first, *second}) == count(store) == 4
    with pytest.raises(ValueError, match=r"must be None, got 'a'. Milvus numbers the rows of collection"):
        store.add_documents(documents, ids=["a", "b"])
    assert store.delete(ids=first)
    assert count(store) == 2
    [found] = store.similarity_search("bark", k=1, mode="sparse")
    assert store.get_by_ids([found.id, "0", "none"]) == [found]
    assert store.delete(ids=[found.id, "none"])
    assert count(store) == 1


def test_a_store_opened_before_the_collection_takes_it_as_it_is(dense, sparse, uri, model_folder):
    first, second = hybrid_milvus(dense, sparse, uri=uri, auto_id=True), hybrid_milvus(dense, sparse, uri=uri)
    first.add_texts(["Cats purr."])
    assert len(second.add_texts(["Dogs bark."])) == 1  # Milvus numbers documents, as the first store decided
    assert count(second) == 2
    third = hybrid_milvus(dense, sparse, uri=uri, collection_name="other")
    pruned = SpladeSparseEmbedding(model_name=model_folder, document_pruning=Pruning(max_active_dims=4))
    fourth = hybrid_milvus(dense, pruned, uri=uri, collection_name="other")
    third.add_texts(["Cats purr."], ids=["cat"])
    with pytest.raises(ValueError, match="'other' must be used with the encoder that it was made with"):
        fourth.add_texts(["Dogs bark."], ids=["dog"])
    with pytest.raises(ValueError, match="'other' must be used with the encoder that it was made with"):
        fourth.similarity_search("a cat")
    assert count(third) == 1


def test_where_a_store_is(uri):
    for named, arguments, place in [
        ({"token": "root:Milvus"}, None, {"uri": "http://localhost:19530", "token": "root:Milvus"}),
        ({}, {"uri": ""}, {"uri": "http://localhost:19530"}),
        ({"host": "db", "port": 80}, None, {"uri": "http://db:80"}),
        (
            {"db_name": "two"},
            {"host": "db", "secure": True},
            {"uri": "https://db:19530", "secure": True, "db_name": "two"},
        ),
        ({"uri": Path(uri)}, {"uri": uri}, {"uri": uri}),
    ]:
        given = {"uri": None, "host": None, "port": None} | named
        assert connection_arguments(**given, arguments=arguments) == place
    with pytest.raises(TypeError, match="uri must be given without host"):
        connection_arguments(uri, "db", None, None)


def test_after_unpickling_the_model_loads_off_the_event_loop(model_folder, monkeypatch):
    sparse = pickle.loads(pickle.dumps(SpladeSparseEmbedding(model_name=model_folder)))
    load, threads = SpladeEncoder.__init__, []

    def recorded(self, *arguments, **options):
        threads.append(threading.current_thread())
        load(self, *arguments, **options)

    monkeypatch.setattr(SpladeEncoder, "__init__", recorded)
    assert asyncio.run(sparse.aembed_query("a cat")) == sparse.embed_query("a cat")
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


def test_ids_are_checked_before_anything_is_written(store):
    for error, message, ids in [
        (ValueError, "got 'a' 2 times", ["a", "b", "a"]),
        (ValueError, "one item for each of the 3 texts, got 2", ["a", "b"]),
        (TypeError, r"ids\[1\] must be a str or None, got int", ["a", 1, "b"]),
    ]:
        with pytest.raises(error, match=message):
            store.add_texts(["x", "y", "z"], ids=ids)
    assert not store.client.has_collection(store.collection_name)


def test_texts_and_metadata_are_checked_before_anything_is_written(store):
    good = ["x"] * 600  # more than one chunk
    for error, message, bad in [
        (TypeError, r"texts\[600\] must be a str, got NoneType", None),
        (ValueError, r"texts\[600\] must be at most 65535 bytes of UTF-8 .*, got 70000", "x" * 70_000),
        (ValueError, r"texts\[600\] must be valid Unicode", "lone \ud800"),
    ]:
        with pytest.raises(error, match=message):
            store.add_texts([*good, bad])
    with pytest.raises(TypeError, match="got one str"):
        store.add_texts("a bare string")
    with pytest.raises(ValueError, match="one item for each of the 2 texts, got 1"):
        store.add_texts(["x", "y"], [{}])
    assert not store.client.has_collection(store.collection_name)


def test_nothing_to_add_is_no_error(store):
    assert store.add_documents([]) == store.add_texts([]) == []
    assert asyncio.run(store.aadd_documents([])) == []
    assert store.similarity_search("x") == store.similarity_search("x", mode="sparse") == []
    assert not store.client.has_collection(store.collection_name)


def test_delete(store):
    store.add_documents(ANIMALS)
    assert store.delete(ids=["cat"])
    assert store.delete(expr="legs == 8")
    assert {d.id for d in store.similarity_search("cats and spiders")} == {"dog", "sparrow"}
    assert asyncio.run(store.adelete(ids=["dog"]))
    assert ids_of(store.similarity_search("dogs")) == ["sparrow"]


def test_langchains_indexing_leaves_no_duplicates(store):
    records = InMemoryRecordManager(namespace="test")
    records.create_schema()

    def run(texts):
        documents = [Document(text, metadata={"source": text.split()[0]}) for text in texts]
        return index(documents, records, store, cleanup="full", source_id_key="source", key_encoder="sha256")

    assert run(["cats purr", "dogs bark"])["num_added"] == 2
    assert run(["cats purr", "dogs bark"])["num_skipped"] == 2
    assert run(["cats purr", "dogs howl"]) == {"num_added": 1, "num_updated": 0, "num_skipped": 1, "num_deleted": 1}
    assert {d.page_content for d in store.similarity_search("dogs")} == {"cats purr", "dogs howl"}


def test_what_was_added_is_flushed(store, uri):
    store.add_documents(ANIMALS)
    assert list(Path(uri).rglob("*.parquet")), "milvus-lite has written no segment file, so the rows are not flushed"


# Opening


def test_reopened_collections_still_hold_their_documents(dense, sparse, uri, store):
    store.add_documents(ANIMALS)
    numbered = hybrid_milvus(dense, sparse, uri=uri, collection_name="numbered", auto_id=True)
    numbered.add_texts(["Cats purr."])
    store.client.close()
    server_manager_instance.release_server(uri)  # this also happens when the process ends
    reopened = hybrid_milvus(dense, sparse, uri=uri)
    assert ids_of(reopened.similarity_search("barking dogs", k=1, mode="sparse")) == ["dog"]
    assert {d.id for d in reopened.similarity_search("dogs")} == {"cat", "dog", "sparrow", "spider"}
    reopened.add_documents(ANIMALS)
    assert count(reopened) == 4
    numbered = hybrid_milvus(dense, sparse, uri=uri, collection_name="numbered")
    numbered.add_texts(["Dogs bark."])
    assert count(numbered) == 2


def test_framework_classmethods(dense, sparse, uri):
    arguments = {"embedding": [dense, sparse], "connection_args": {"uri": uri}}
    for _ in range(2):
        store = HybridMilvus.from_documents(ANIMALS, **arguments, collection_name="documents")
        assert isinstance(store, HybridMilvus)
        assert count(store) == 4
    store = asyncio.run(HybridMilvus.afrom_documents(ANIMALS[:2], **arguments, collection_name="documents"))
    assert count(store) == 4
    assert ids_of(store.similarity_search("bark", k=1, mode="sparse")) == ["dog"]
    store = HybridMilvus.from_texts(["Cats purr."], **arguments, collection_name="documents", drop_old=True)
    assert [d.page_content for d in store.similarity_search("bark")] == ["Cats purr."]
    store = asyncio.run(HybridMilvus.afrom_texts(["a", "b"], **arguments, collection_name="texts", ids=["1", "2"]))
    assert {d.id for d in store.similarity_search("a")} == {"1", "2"}


def test_options_reach_the_collection(dense, sparse, uri):
    index_params = [
        {"index_type": "FLAT", "metric_type": "IP", "params": {}},
        {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP", "params": {}},
    ]
    store = hybrid_milvus(
        dense,
        sparse,
        connection_args={"uri": uri},
        index_params=index_params,
        vector_field=["d", "s"],
        text_field="body",
        primary_field="key",
        metadata_field="data",
        enable_dynamic_field=False,
        metadata_schema={"year": {"dtype": DataType.INT64}},
        metadata_fields={"place": str},
        collection_properties={"owner": "tests"},
    )
    store.add_texts(["Cats purr.", "Dogs bark."], [{"year": 1}, {"year": 2, "place": "x", "body": 1}], ids=["c", "d"])
    description = store.client.describe_collection(store.collection_name)
    names = [field["name"] for field in description["fields"]]
    assert names == ["key", "body", "d", "s", "data", "year", "place"]
    assert not description["enable_dynamic_field"]
    assert store.client.describe_index(store.collection_name, "d")["metric_type"] == "IP"
    [found] = store.similarity_search("bark", expr="year == 2")
    assert (found.id, found.metadata) == ("d", {"year": 2, "place": "x", "body": 1})
    with pytest.raises(
        TypeError, match=r"metadatas\[0\]\['year'\] must fit the collection's field of type INT64, got str"
    ):
        store.add_texts(["Ants march."], [{"year": "3"}])
    # The index does not have the default metric. A store that is opened without a metric uses the index's metric.
    names = {"vector_field": ["d", "s"], "text_field": "body", "metadata_field": "data"}
    plain = hybrid_milvus(dense, sparse, uri=uri, **names)
    for mode in ("hybrid", "dense", "sparse"):
        found = plain.similarity_search_with_score("bark", mode=mode)
        assert found == store.similarity_search_with_score("bark", mode=mode)
    plain.add_texts(["Cows moo."], [{"year": 3, "unknown": 1}], ids=["m"])
    assert plain.get_by_ids(["m"])[0].metadata == {"year": 3, "unknown": 1}
    with pytest.raises(TypeError, match=r"got 'no_such_option'. Use one of these: .*primary_field"):
        hybrid_milvus(dense, sparse, uri=uri, collection_name="new", no_such_option=1)
    with pytest.raises(TypeError, match=r"got 'builtin_function'. For Milvus's BM25 use bm25=True"):
        hybrid_milvus(dense, sparse, uri=uri, collection_name="new", builtin_function=1)
    with pytest.raises(TypeError, match="uri must be given once"):
        hybrid_milvus(dense, sparse, uri=uri, connection_args={"uri": "http://localhost:19530"})


def test_embeddings_in_the_wrong_place_are_named(dense, sparse, encoder, uri):
    for sides, message in [
        ([sparse, dense], "got SpladeSparseEmbedding, HashEmbeddings. Swap them"),
        ([dense, dense], "got HashEmbeddings, HashEmbeddings"),
        ([dense, encoder], "got HashEmbeddings, SpladeEncoder. Make the sparse one"),
        ([], "got none"),
        (None, "got NoneType"),
    ]:
        with pytest.raises(TypeError, match=message):
            HybridMilvus(sides, connection_args={"uri": uri})
    assert not Path(uri).exists()


def test_a_collection_with_other_fields_is_refused(dense, sparse, uri):
    client = MilvusClient(uri)
    client.create_collection("other", dimension=16)
    with pytest.raises(
        ValueError, match=r"'other' must have the field 'text', got the fields id \(INT64\), .*text_field"
    ):
        hybrid_milvus(dense, sparse, uri=uri, collection_name="other")
    hybrid_milvus(dense, sparse, uri=uri, collection_name="ours").add_documents(ANIMALS)
    with pytest.raises(
        ValueError, match=r"field 'sparse' \(a dense vector\), got .* Name the right field with vector_field"
    ):
        hybrid_milvus(dense, sparse, uri=uri, collection_name="ours", vector_field=["sparse", "dense"])
    assert not hybrid_milvus(dense, sparse, uri=uri, collection_name="other", drop_old=True).collection.exists()
    client.create_alias("ours", "theirs")
    with pytest.raises(ValueError, match="must be named directly, got 'theirs', which is an alias of 'ours'"):
        hybrid_milvus(dense, sparse, uri=uri, collection_name="theirs", drop_old=True)
    one_side = hybrid_milvus(dense, None, uri=uri, collection_name="ours")
    assert len(one_side.similarity_search("dogs")) == 4
    with pytest.raises(ValueError, match="must get a vector for each vector field, got none for 'sparse'"):
        one_side.add_documents(ANIMALS)


def test_a_database_that_does_not_open_says_why(dense, sparse, tmp_path):
    (tmp_path / "file.db").write_text("milvus-lite 2 wrote one file")
    for name, message in [
        ("missing/test.db", "got a folder that does not exist"),
        ("test.sqlite", "got a path with another ending"),
        ("file.db", "got a file, but milvus-lite 3 keeps"),
    ]:
        with pytest.raises(OSError, match=message):
            hybrid_milvus(dense, sparse, uri=tmp_path / name)
    locked = tmp_path / "locked.db"
    locked.mkdir()
    with (locked / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OSError, match=r"locked\.db' must be .* most likely because another process has it open"):
            hybrid_milvus(dense, sparse, uri=locked)
    assert hybrid_milvus(dense, sparse, uri=locked).add_documents(ANIMALS)


def test_opening_a_store_logs_nothing(dense, sparse, uri, caplog):
    hybrid_milvus(dense, sparse, uri=uri).add_documents(ANIMALS)
    hybrid_milvus(dense, sparse, uri=uri)
    assert caplog.records == []


# Async


def test_async_equals_sync_in_two_event_loops(store):
    async def use_it(text):
        assert await store.aadd_documents([*ANIMALS, Document(text, id="late")]) == [
            "cat", "dog", "sparrow", "spider", "late",
        ]  # fmt: skip
        hits = await store.asimilarity_search_with_score(text)
        searches = [store.asimilarity_search_with_score(text) for _ in range(20)]
        assert await asyncio.gather(*searches) == [hits] * 20
        return hits

    for text in ("Whales dive deep.", "Ants march on."):
        hits = asyncio.run(use_it(text))
        assert hits == store.similarity_search_with_score(text)
        assert count(store) == 5
        [late] = store.similarity_search(text, k=1, mode="sparse")
        assert (late.id, late.page_content) == ("late", text)


def test_many_may_add_first_at_once(dense, uri):
    store = hybrid_milvus(dense, SpladeSparseEmbedding(encoder=WordCounts()), uri=uri)

    async def add_all():
        return await asyncio.gather(*(store.aadd_texts([f"text {i}"], ids=[str(i)]) for i in range(16)))

    assert asyncio.run(add_all()) == [[str(i)] for i in range(16)]
    assert count(store) == 16


def test_adding_leaves_the_event_loop_free(dense, uri):
    store = hybrid_milvus(dense, SpladeSparseEmbedding(encoder=WordCounts()), uri=uri)
    texts = [" ".join(f"word{(i * j) % 997}" for j in range(1, 120)) for i in range(1000)]
    store.add_texts(["the collection is there"], ids=["first"])

    async def turns_of_the_loop():
        turns, adding = 0, asyncio.create_task(store.aadd_texts(texts, ids=[str(i) for i in range(1000)]))
        while not adding.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert len(await adding) == 1000
        return turns

    assert asyncio.run(turns_of_the_loop()) > 20  # it would be one or two if the work blocked the loop


def test_without_langchain_the_import_names_the_pip_line():
    script = "import sys; sys.modules['langchain_core'] = None; import splade_integrations.langchain"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "OptionalDependencyError: splade_integrations.langchain needs langchain_core" in result.stderr
    assert "pip install 'splade-integrations[langchain]'" in result.stderr


# Many questions at once


def test_a_batch_is_answered_as_one_by_one(prose_store, prose):
    questions = [text[:30] for text in prose[:5]] + ["", "the"]
    for how in (
        {},
        {"mode": "sparse"},
        {"filter": {"half": 1}},
        {"fusion": Fusion(sides=("dense", "sparse"), weights=(0.3, 0.7))},
    ):
        alone = [ids_of(prose_store.similarity_search(question, k=3, **how)) for question in questions]
        assert [ids_of(found) for found in prose_store.similarity_search_many(questions, k=3, **how)] == alone
        retriever = prose_store.as_retriever(search_kwargs={"k": 3, **how})
        assert [ids_of(found) for found in retriever.batch(questions)] == alone
        assert [ids_of(found) for found in asyncio.run(retriever.abatch(questions))] == alone
        assert ids_of(retriever.invoke(questions[0])) == alone[0]
    assert prose_store.similarity_search_many([]) == []
    with pytest.raises(TypeError, match="queries must be a list of str, got the str 'abc'"):
        prose_store.similarity_search_many("abc")
    mmr = prose_store.as_retriever(search_type="mmr")
    assert [ids_of(found) for found in mmr.batch(questions[:2])] == [
        ids_of(mmr.invoke(question)) for question in questions[:2]
    ]


def test_a_batch_is_one_call_of_the_encoder_and_one_request(dense, prose):
    encoder = WordCounts()
    with milvus_lite_server() as server, milvus_proxy(server) as proxy:
        store = hybrid_milvus(dense, SpladeSparseEmbedding(encoder=encoder), uri=proxy.uri)
        store.add_texts(prose)
        proxy.seen.clear()
        encoder.batches.clear()
        found = store.as_retriever(search_kwargs={"k": 2}).batch([text[:40] for text in prose[:8] * 8])
        assert [len(one) for one in found] == [2] * 64
        assert encoder.batches == [64]
        assert {name: len(requests) for name, requests in proxy.seen.items() if "Search" in name} == {"HybridSearch": 1}


class Runs(BaseCallbackHandler):
    def __init__(self):
        self.seen = []

    def on_retriever_start(self, serialized, query, *, tags=None, metadata=None, **kwargs):
        self.seen.append(("start", query, tags))

    def on_retriever_end(self, documents, **kwargs):
        self.seen.append(("end", len(documents)))

    def on_retriever_error(self, error, **kwargs):
        self.seen.append(("error", type(error).__name__))


def test_a_batch_reports_a_run_for_each_question(prose_store):
    retriever = prose_store.as_retriever(search_kwargs={"k": 2}, tags=["mine"])
    alone, together, awaited = Runs(), Runs(), Runs()
    for question in ("one", "two"):
        retriever.invoke(question, {"callbacks": [alone]})
    retriever.batch(["one", "two"], {"callbacks": [together]})
    asyncio.run(retriever.abatch(["one", "two"], {"callbacks": [awaited]}))
    assert sorted(map(repr, together.seen)) == sorted(map(repr, alone.seen)) == sorted(map(repr, awaited.seen))
    assert {tuple(run[2][:1]) for run in together.seen if run[0] == "start"} == {("mine",)}


def test_a_batch_keeps_good_answers_beside_errors(tmp_path, sparse):
    class Fails(HashEmbeddings):
        def embed_query(self, text):
            if text == "boom":
                raise RuntimeError("no")
            return super().embed_query(text)

    store = hybrid_milvus(Fails(), sparse, uri=tmp_path / "fails.db")
    store.add_texts(["a cat", "a dog"], ids=["cat", "dog"])
    retriever, runs = store.as_retriever(), Runs()
    for found in (
        retriever.batch(["a dog", "boom"], {"callbacks": [runs]}, return_exceptions=True),
        asyncio.run(retriever.abatch(["a dog", "boom"], return_exceptions=True)),
    ):
        assert set(ids_of(found[0])) == {"cat", "dog"}
        assert isinstance(found[1], RuntimeError)
    assert ("error", "RuntimeError") in runs.seen
    with pytest.raises(RuntimeError, match="no"):
        retriever.batch(["a dog", "boom"])


def test_a_stored_fusion_binds_only_hybrid_searches(tmp_path, dense, sparse):
    place = {"uri": str(tmp_path / "bound.db")}
    store = hybrid_milvus(dense, sparse, bm25=True, **place)
    store.add_texts(["a cat", "a dog"], ids=["cat", "dog"])
    store.collection.record_fusion(Fusion(sides=("dense", "bm25")))
    lacking = hybrid_milvus(dense, sparse, **place)
    with pytest.raises(ValueError, match="Open the collection with its bm25 side as well"):
        lacking.similarity_search("a dog")
    for how in ({"mode": "dense"}, {"mode": ["dense", "sparse"]}, {"fusion": {"sides": ["dense", "sparse"]}}):
        assert lacking.similarity_search("a dog", **how)
    assert lacking.similarity_search_by_vector(dense.embed_query("a dog"))
    with pytest.raises(ValueError, match=r"this store's sides \('dense', 'sparse'\), got 'bm25'"):
        lacking.similarity_search("a dog", fusion=Fusion(sides=("dense", "bm25")))
    for how in ({}, {"fusion": Fusion(sides=("sparse",))}, {"reranker": RRFRanker()}):
        with pytest.raises(ValueError, match="relevance scores and score_threshold must be used"):
            store.similarity_search_with_relevance_scores("a dog", **how)
    found = store.similarity_search_with_relevance_scores("a dog", fusion=Fusion(sides=("dense",)))
    assert all(0 <= score <= 1 for _, score in found)
    with pytest.raises(TypeError, match="ranker_params must be given with ranker_type"):
        store.similarity_search("a dog", ranker_params={"k": 3})
