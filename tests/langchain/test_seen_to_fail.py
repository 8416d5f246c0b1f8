"""Tests of behaviour that users expect but that some store once got wrong, on a milvus-lite file and on a server."""

import asyncio
import copy
import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.stores import InMemoryStore
from pymilvus import DataType

from splade_integrations.langchain import HybridMilvus, SpladeSparseEmbedding, hybrid_milvus
from tests.support.adapters import HashEmbeddings, WordCounts, count

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")

TENANTS = [
    Document("Cats purr when they are content.", id="cat", metadata={"tenant": "a", "year": 1}),
    Document("Dogs bark at strangers.", id="dog", metadata={"tenant": "b", "year": 2}),
    Document("Sparrows sing at dawn.", id="sparrow", metadata={"tenant": "a", "year": 3}),
]
MODES = ["hybrid", "dense", "sparse"]
ODD_IDS = [
    "C:\\scans\\a.txt",
    "docs\\new.txt",
    "it's",
    'say "x"',
    "tab\there",
    "line\nbreak",
    "ü",
    "100%",
    "a' or 1 == 1",
]


@pytest.fixture
def sparse(encoder):
    return SpladeSparseEmbedding(encoder=encoder)


@pytest.fixture
def store(sparse, place):
    return hybrid_milvus(HashEmbeddings(), sparse, **place)


@pytest.fixture
def filled(store):
    store.add_documents(TENANTS)
    return store


def ids_of(documents):
    return [document.id for document in documents]


# Filters apply, and unknown keywords are refused


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["filter", "expr"])
@pytest.mark.parametrize(
    "value", ['tenant == "b"', {"tenant": "b"}, {"$or": [{"year": {"$in": [2]}}, {"tenant": "c"}]}]
)
def test_a_filter_binds_by_either_name_in_either_form(filled, mode, name, value):
    keywords = {"k": 10, "mode": mode, name: value}
    question = "a dog that barks"
    assert ids_of(filled.similarity_search(question, **keywords)) == ["dog"]
    assert ids_of(asyncio.run(filled.asimilarity_search(question, **keywords))) == ["dog"]
    retriever = filled.as_retriever(search_kwargs=keywords)
    assert ids_of(retriever.invoke(question)) == ids_of(asyncio.run(retriever.ainvoke(question))) == ["dog"]
    assert ids_of(filled.iterate(**{name: value})) == ["dog"]


def test_filter_and_expr_together_are_refused(filled):
    for method in (filled.similarity_search, filled.max_marginal_relevance_search):
        with pytest.raises(TypeError, match="filter and expr must not be given together"):
            method("dogs", filter={"year": 2}, expr="year == 2")


@pytest.mark.parametrize("unknown", [{"exprs": "year > 1"}, {"where": {}}, {"score_threshold": 0.9}])
def test_an_unknown_keyword_names_what_there_is(filled, unknown):
    message = f"got '{next(iter(unknown))}'. Use one of these: .*expr.*filter.*group_by"
    for method in (filled.similarity_search, filled.similarity_search_with_score, filled.max_marginal_relevance_search):
        with pytest.raises(TypeError, match=message):
            method("dogs", **unknown)
    with pytest.raises(TypeError, match=message):
        asyncio.run(filled.asimilarity_search("dogs", **unknown))
    with pytest.raises(TypeError, match=message):
        filled.as_retriever(search_kwargs=unknown)
    with pytest.raises(TypeError, match="add_texts must be given known options, got 'partition'"):
        filled.add_documents(TENANTS, partition="x")


def test_one_list_under_a_key_does_not_break_filters_on_it(filled):
    filled.add_documents([Document("Ants march.", id="ant", metadata={"tenant": ["a", "b"]})])
    assert set(ids_of(filled.similarity_search("x", k=9, filter={"tenant": {"$in": ["a"]}}))) == {"cat", "sparrow"}
    filled.delete(filter={"tenant": {"$in": ["a", "z"]}})
    assert set(ids_of(filled.iterate())) == {"dog", "ant"}


# Empty texts and empty questions


@pytest.mark.parametrize("embedded", ["", "   ", "\n\t", "\u200b"])
def test_a_text_without_a_word_is_never_found_by_sparse_search(store, sparse, embedded):
    store.add_texts([embedded, "You can read and write."], ids=["empty", "full"])
    assert ids_of(store.similarity_search("What can you do", k=9, mode="sparse")) == ["full"]
    document, query = sparse.embed_documents([embedded])[0], sparse.embed_query("What can you do")
    assert not document.keys() & query.keys()
    assert not sparse.embed_query(embedded).keys() & document.keys()
    assert store.get_by_ids(["empty"])[0].page_content == embedded


@pytest.mark.parametrize("question", ["", "  "])
def test_an_empty_question_is_answered_by_the_sides_that_can(filled, question):
    by_dense = ids_of(filled.similarity_search(question, mode="dense"))
    assert len(by_dense) == 3
    assert ids_of(filled.similarity_search(question)) == by_dense
    assert filled.similarity_search(question, mode="sparse") == []
    assert ids_of(asyncio.run(filled.asimilarity_search(question))) == by_dense
    weighted = {"ranker_type": "weighted", "ranker_params": {"weights": [0.5, 0.5]}}
    assert ids_of(filled.similarity_search(question, **weighted)) == by_dense


# Ids


def test_a_numbered_collection_takes_the_ids_that_it_gives(sparse, place):
    store = hybrid_milvus(HashEmbeddings(), sparse, auto_id=True, **place)
    added = store.add_texts(["Cats purr.", "Dogs bark.", "Birds sing."])
    assert all(isinstance(one, str) for one in added)
    [found] = store.similarity_search("bark", k=1, mode="sparse")
    assert found.id == added[1]
    assert store.delete(ids=[found.id])
    assert store.get_by_ids(added) == [Document("Cats purr.", id=added[0]), Document("Birds sing.", id=added[2])]


def test_odd_ids_are_exactly_themselves(sparse, place):
    store = hybrid_milvus(HashEmbeddings(), sparse, **place)
    store.add_texts([f"text {place}" for place in range(len(ODD_IDS))], ids=ODD_IDS)
    for position, key in enumerate(ODD_IDS):
        assert store.get_by_ids([key]) == [Document(f"text {position}", id=key)]
    assert ids_of(store.get_by_ids([*ODD_IDS, "none"])) == ODD_IDS
    assert set(ids_of(store.iterate())) == set(ODD_IDS)
    assert set(ids_of(store.similarity_search("text", k=20))) == set(ODD_IDS)
    store.add_texts(["changed"], ids=ODD_IDS[:1])
    assert count(store) == len(ODD_IDS)
    left = list(ODD_IDS)
    while left:
        store.delete([left.pop()])
        assert set(ids_of(store.iterate())) == set(left)


def test_nothing_is_deleted_by_omission(filled):
    for nothing in ({}, {"filter": {}}, {"expr": ""}, {"filter": "  "}, {"ids": ["cat"], "filter": {}}):
        with pytest.raises(ValueError, match=r"delete must be given ids, or a filter .* call clear\(\)"):
            filled.delete(**nothing)
    filled.delete(ids=[])
    filled.delete(ids=["none"], filter={"tenant": "a"})
    filled.delete(ids=["cat"], filter={"tenant": "b"})
    assert count(filled) == 3
    filled.delete(ids=["cat", "dog", "none"], filter={"tenant": "b"})
    assert set(ids_of(filled.iterate())) == {"cat", "sparrow"}
    asyncio.run(filled.adelete(["cat"], expr="year == 1"))
    assert set(ids_of(filled.iterate())) == {"sparrow"}
    filled.clear()
    assert count(filled) == 0
    filled.add_documents(TENANTS)
    assert count(filled) == 3


# Metadata


def test_metadata_comes_back_as_given_under_any_key(store):
    metadata = {
        "pk": 1, "text": "mine", "dense": [1.5], "sparse": {"a": {"b": [None, True]}}, "metadata": 1, "$meta": 0, "": 1,
        "a b": 1, 'q"\\\'': "v", "ü": "\x00\n", "big": 2**63 - 1, "tiny": 5e-324, "one": 1.0, "none": None, "list": [],
    }  # fmt: skip
    store.add_documents([Document("x", id="1", metadata=metadata)])
    for found in (store.get_by_ids(["1"]), store.similarity_search("x"), list(store.iterate())):
        assert found[0].metadata == metadata
        assert [type(value) for value in found[0].metadata.values()] == [
            type(found[0].metadata[key]) for key in found[0].metadata
        ]
    assert type(store.get_by_ids(["1"])[0].metadata["one"]) is float


@pytest.mark.parametrize(
    "value",
    [
        Path("x"),
        Decimal("1.5"),
        float("nan"),
        float("inf"),
        {1, 2},
        (1, 2),
        b"x",
        2**64,
        datetime.date(2020, 1, 1),
        "\ud800",
        {1: 2},
    ],
)
def test_what_json_cannot_hold_is_refused_by_document_and_key(store, value):
    for held in (value, [0, value], {"deep": value}):
        with pytest.raises((TypeError, ValueError), match=r"metadatas\[1\]\['bad'\]"):
            store.add_texts(["x", "y"], [{}, {"good": 1, "bad": held}])
    assert not store.collection.exists()


def test_replacing_replaces_metadata_whole(filled):
    filled.add_documents([Document("Whales dive.", id="cat", metadata={"fins": 2})])
    assert filled.get_by_ids(["cat"])[0].metadata == {"fins": 2}
    for condition in ({"tenant": "a"}, 'tenant == "a"'):
        assert ids_of(filled.similarity_search("whales", k=9, filter=condition)) == ["sparrow"]


# Searches that LangChain offers


def test_maximal_marginal_relevance_chooses_among_fused_candidates(place):
    store = hybrid_milvus(HashEmbeddings(), SpladeSparseEmbedding(encoder=WordCounts()), **place)
    # Twins have the same dense vector, so the second twin adds nothing.
    store.add_texts(["apple", "apple", "apple", "pear"], ids=["a1", "a2", "a3", "p"])
    best = ids_of(store.similarity_search("apple", k=2))
    assert set(best) < {"a1", "a2", "a3"}
    diverse = ids_of(store.max_marginal_relevance_search("apple", k=2, lambda_mult=0.3))
    assert len(diverse) == 2
    assert "p" in diverse
    assert ids_of(asyncio.run(store.amax_marginal_relevance_search("apple", k=2, lambda_mult=0.3))) == diverse
    assert "p" not in ids_of(store.max_marginal_relevance_search("apple", k=2, lambda_mult=1.0))
    assert "p" not in ids_of(
        store.max_marginal_relevance_search("apple", k=2, fetch_k=2, lambda_mult=0.0, mode="sparse")
    )
    retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "lambda_mult": 0.3})
    assert ids_of(retriever.invoke("apple")) == diverse
    vector = HashEmbeddings().embed_query("apple")
    assert "p" in ids_of(store.max_marginal_relevance_search_by_vector(vector, k=2, lambda_mult=0.3))
    assert ids_of(store.similarity_search_by_vector(vector, k=3)) == ids_of(
        store.similarity_search("apple", k=3, mode="dense")
    )


def test_search_by_vector_of_either_side(filled, sparse):
    question = "a dog that barks"
    for mode, vector in (("dense", HashEmbeddings().embed_query(question)), ("sparse", sparse.embed_query(question))):
        wanted = filled.similarity_search_with_score(question, mode=mode)
        assert filled.similarity_search_with_score_by_vector(vector) == wanted
        assert asyncio.run(filled.asimilarity_search_with_score_by_vector(vector)) == wanted
        assert filled.similarity_search_by_vector(vector, filter={"year": 9}) == []


def test_a_store_without_dense_vectors_says_why_it_cannot_compare(sparse, place):
    store = hybrid_milvus(None, sparse, **place)
    store.add_documents(TENANTS)
    for call in (
        lambda: store.max_marginal_relevance_search("dogs"),
        lambda: store.as_retriever(search_type="mmr"),
        lambda: asyncio.run(store.amax_marginal_relevance_search("dogs")),
    ):
        with pytest.raises(
            ValueError,
            match="must be used on a store with dense vectors, got a store with only sparse",
        ):
            call()


def test_relevance_scores_where_they_mean_something(filled, sparse, place):
    scored = filled.similarity_search_with_relevance_scores(TENANTS[1].page_content, mode="dense")
    assert scored[0][0].id == "dog"
    assert scored[0][1] == pytest.approx(1.0, abs=1e-5)
    assert all(0 <= score <= 1 for _, score in scored)
    threshold = {"mode": "dense", "score_threshold": 0.99}
    retriever = filled.as_retriever(search_type="similarity_score_threshold", search_kwargs=threshold)
    assert ids_of(retriever.invoke(TENANTS[1].page_content)) == ["dog"]
    assert ids_of(asyncio.run(retriever.ainvoke(TENANTS[1].page_content))) == ["dog"]
    for mode, why in (
        ("hybrid", "A fused score does not measure relevance"),
        ("sparse", "A SPLADE score has no upper end"),
    ):
        keywords = {"mode": mode, "score_threshold": 0.5}
        message = f"{why}. Use mode='dense', or limit the number of results by k"
        with pytest.raises(ValueError, match=message):
            filled.similarity_search_with_relevance_scores("dogs", **keywords)
        with pytest.raises(ValueError, match=message):
            filled.as_retriever(search_type="similarity_score_threshold", search_kwargs=keywords)
    other = place | {"collection_name": place["collection_name"] + "_ip"}
    index_params = [{"metric_type": "IP"}, {}]
    inner = hybrid_milvus(HashEmbeddings(), sparse, index_params=index_params, **other)
    inner.add_documents(TENANTS)
    with pytest.raises(ValueError, match="by the metric IP has no fixed scale"):
        inner.similarity_search_with_relevance_scores("dogs", mode="dense")


def test_parent_document_retriever_over_the_store(store):
    retrievers = pytest.importorskip("langchain_classic.retrievers")
    splitters = pytest.importorskip("langchain_text_splitters")
    retriever = retrievers.ParentDocumentRetriever(
        vectorstore=store,
        docstore=InMemoryStore(),
        child_splitter=splitters.CharacterTextSplitter(separator=".", chunk_size=20, chunk_overlap=0),
        search_type="mmr",
    )
    retriever.add_documents([Document("Cats purr. Cats sleep."), Document("Dogs bark. Dogs run.")], ids=["c", "d"])
    assert {document.page_content for document in retriever.invoke("dogs bark")} == {
        "Cats purr. Cats sleep.",
        "Dogs bark. Dogs run.",
    }


@pytest.mark.parametrize("mode", MODES)
def test_one_hit_a_document_of_several_chunks(place, mode):
    store = hybrid_milvus(HashEmbeddings(), SpladeSparseEmbedding(encoder=WordCounts()), **place)
    chunks = [("apple " * (30 - i) + f"w{i}", {"source": "long"}) for i in range(30)]
    others = [(f"apple other{i}", {"source": f"d{i}"}) for i in range(5)] + [("apple alone", {}), ("apple too", {})]
    store.add_texts([text for text, _ in chunks + others], [metadata for _, metadata in chunks + others])
    found = store.similarity_search("apple", k=8, mode=mode, group_by="source")
    sources = [document.metadata.get("source") for document in found]
    assert len(found) == 8
    assert sources.count("long") == 1
    assert sources.count(None) == 2  # each document without a source forms a separate group
    assert asyncio.run(store.asimilarity_search("apple", k=8, mode=mode, group_by="source")) == found
    assert ids_of(store.similarity_search("apple", k=2, mode=mode, group_by="source")) == ids_of(found)[:2]
    best = store.similarity_search("apple", k=1, mode=mode, filter={"source": "long"})
    assert best[0] in found


# Parameters and partitions


def test_a_range_is_obeyed_or_refused(filled):
    sparse = filled.similarity_search_with_score("a dog that barks", mode="sparse")
    radius = (sparse[0][1] + sparse[1][1]) / 2
    kept = filled.similarity_search("a dog that barks", mode="sparse", param={"params": {"radius": radius}})
    assert ids_of(kept) == ["dog"]
    param = [{"params": {}}, {"params": {"radius": 1e6}}]
    if not filled.collection.connection.lite:
        return
    with pytest.raises(ValueError, match="radius must not be given to a search of several sides on milvus-lite 3, got"):
        filled.similarity_search("dogs", param=param)


def test_a_misspelt_partition_is_an_error(filled):
    for call in (
        lambda: filled.similarity_search("dogs", partition_names=["nope"]),
        lambda: filled.delete(ids=["dog"], partition_names=["nope"]),
        lambda: filled.delete(filter={"year": 2}, partition_names=["_default", "nope"]),
        lambda: list(filled.iterate(partition_names=["nope"])),
        lambda: asyncio.run(filled.asimilarity_search("dogs", partition_names=["nope"])),
    ):
        with pytest.raises(ValueError, match=r"partition_names must be partitions .*\(_default\), got 'nope'"):
            call()
    assert count(filled) == 3
    filled.client.create_partition(filled.collection_name, "new")
    filled.add_texts(["Ants march."], ids=["ant"], partition_name="new")
    assert ids_of(filled.similarity_search("dogs", partition_names=["new"])) == ["ant"]
    filled.delete(ids=["ant", "dog"], partition_names=["new"])
    assert set(ids_of(filled.iterate())) == {"cat", "dog", "sparrow"}


def test_a_partition_key_keeps_tenants_apart(sparse, place):
    store = hybrid_milvus(HashEmbeddings(), sparse, partition_key_field="tenant", num_partitions=4, **place)
    store.add_documents(TENANTS)
    assert ids_of(store.similarity_search("dogs", filter={"tenant": "b"})) == ["dog"]
    assert ids_of(store.similarity_search("dogs", expr="tenant == 'b'")) == ["dog"]
    assert store.get_by_ids(["dog"])[0].metadata == TENANTS[1].metadata
    with pytest.raises(ValueError, match=r"metadatas\[0\] must have a value under 'tenant'"):
        store.add_texts(["x"], [{"year": 1}])


def test_k_and_offset(filled):
    everything = filled.similarity_search("a dog that barks", k=3)
    assert filled.similarity_search("a dog that barks", k=2, offset=1) == everything[1:]
    for k in (0, -1, True, 2.5, 20_000):
        with pytest.raises(ValueError, match="k must be an int from 1 to 16384"):
            filled.similarity_search("dogs", k=k)


# Opening


def test_opened_with_documents_by_every_way(sparse, place):
    name = place.pop("collection_name")
    embeddings = [HashEmbeddings(), sparse]
    store = HybridMilvus.from_documents(TENANTS, embeddings, collection_name=name, **place)
    assert set(ids_of(store.iterate())) == {"cat", "dog", "sparrow"}
    store = HybridMilvus.from_texts(["one"], embeddings, [{"n": 1}], name, ids=["1"], drop_old=True, **place)
    assert list(store.iterate()) == [Document("one", id="1", metadata={"n": 1})]
    store = asyncio.run(HybridMilvus.afrom_texts(["two"], embeddings, collection_name=name, ids=["2"], **place))
    store = asyncio.run(
        HybridMilvus.afrom_documents([Document("three", id="3")], embeddings, collection_name=name, **place)
    )
    assert ids_of(store.iterate()) == ["1", "2", "3"]


def test_a_deep_copy_is_of_the_same_collection(filled):
    twin = copy.deepcopy(filled)
    twin.add_texts(["Ants march."], ids=["ant"])
    assert ids_of(filled.get_by_ids(["ant"])) == ["ant"]
    retriever = copy.deepcopy(filled.as_retriever(search_kwargs={"k": 1, "mode": "sparse"}))
    assert ids_of(retriever.invoke("ants")) == ["ant"]


def test_bm25_is_a_side_of_its_own(sparse, place):
    store = hybrid_milvus(HashEmbeddings(), sparse, bm25=True, **place)
    store.add_documents(TENANTS)
    assert ids_of(store.similarity_search("strangers", mode="bm25")) == ["dog"]
    assert len(store.similarity_search("strangers")) == 3
    assert store.similarity_search("", mode="bm25") == []
    with pytest.raises(ValueError, match="A BM25 score has no upper end"):
        store.similarity_search_with_relevance_scores("strangers", mode="bm25")
    store.add_texts(["Ants march."], ids=["dog"])
    assert store.similarity_search("strangers", mode="bm25") == []


def test_vectors_made_elsewhere(filled, sparse):
    texts = ["Ants march.", ""]
    pairs = list(zip(HashEmbeddings().embed_documents(texts), sparse.embed_documents(texts), strict=True))
    assert filled.add_embeddings(texts, pairs, [{"n": 1}, {}], ids=["ant", "empty"]) == ["ant", "empty"]
    assert ids_of(filled.similarity_search("ants", k=1, mode="sparse")) == ["ant"]
    with pytest.raises(ValueError, match="ids must have one item for each of the 2 texts, got 1"):
        filled.add_embeddings(texts, pairs, ids=["ant"])


def test_a_typed_column_and_its_index(sparse, place):
    fields = {"year": {"dtype": DataType.INT64, "index": True}, "tenant": str}
    store = hybrid_milvus(HashEmbeddings(), sparse, metadata_fields=fields, **place)
    store.add_documents([*TENANTS, Document("No year.", id="none", metadata={"other": 1})])
    assert "year" in store.client.list_indexes(store.collection_name)
    assert ids_of(store.similarity_search("x", k=9, filter={"year": {"$gt": 2}})) == ["sparrow"]
    assert set(ids_of(store.similarity_search("x", k=9, filter={"year": {"$ne": 1}}))) == {"dog", "sparrow", "none"}
    assert store.get_by_ids(["none"])[0].metadata == {"other": 1}
