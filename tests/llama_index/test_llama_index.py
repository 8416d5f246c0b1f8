"""LlamaIndex: the embedding and the hybrid store, over real milvus-lite files."""

import asyncio
import fcntl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_index.vector_stores.milvus", reason="LlamaIndex's store needs pymilvus 2")
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.embeddings.base_sparse import BaseSparseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.vector_stores.milvus import MilvusVectorStore
from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction, BM25BuiltInFunction
from milvus_lite.server_manager import server_manager_instance
from pymilvus import MilvusClient

from splade_integrations.llama_index import HybridMilvusVectorStore, SpladeSparseEmbedding
from splade_integrations.llama_index.settings import _flat
from splade_integrations.milvus.settings import dense_index, sparse_index
from tests.support.adapters import DIM, WordCounts, count, unit_vector

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")

MODES = ["default", "sparse", "text_search", "hybrid"]
ANIMALS = {
    "cat": ("Cats purr when they are content.", {"legs": 4, "home": True}),
    "dog": ("Dogs bark at strangers.", {"legs": 4}),
    "sparrow": ("Sparrows sing at dawn.", {"legs": 2, "colour": "brown"}),
    "spider": ("Spiders weave webs.", {"legs": 8}),
}


class HashEmbedding(BaseEmbedding):
    """Gives unit vectors that depend only on the text and mean nothing."""

    def _get_text_embedding(self, text):
        return unit_vector(text)

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query):
        return self._get_text_embedding(query)


class Events(BaseEventHandler):
    seen: list

    def handle(self, event, **_):
        if "SparseEmbedding" in event.class_name():
            self.seen.append(event)


@pytest.fixture
def events():
    handler, dispatcher = Events(seen=[]), get_dispatcher()
    dispatcher.add_event_handler(handler)
    yield handler.seen
    dispatcher.event_handlers.remove(handler)


@pytest.fixture(scope="module")
def dense():
    return HashEmbedding()


@pytest.fixture(scope="module")
def sparse(encoder):
    return SpladeSparseEmbedding(encoder=encoder)


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "test.db")


@pytest.fixture
def store(sparse, uri):
    return HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse)


def node(id_, text, metadata=None, ref_doc_id=None, **fields):
    made = TextNode(id_=id_, text=text, metadata=metadata or {}, **fields)
    if ref_doc_id:
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=ref_doc_id)
    made.embedding = HashEmbedding().get_text_embedding(made.get_content(metadata_mode=MetadataMode.EMBED))
    return made


def animals():
    return [node(name, text, metadata, ref_doc_id=f"{name}-book") for name, (text, metadata) in ANIMALS.items()]


def ask(text, mode="hybrid", k=4, **fields):
    embedding = HashEmbedding().get_query_embedding(text)
    mode = VectorStoreQueryMode(mode)
    return VectorStoreQuery(query_embedding=embedding, query_str=text, mode=mode, similarity_top_k=k, **fields)


def equals(key, value, operator=FilterOperator.EQ):
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


# The embedding


def test_is_both_of_the_frameworks_sparse_embeddings():
    assert {BaseSparseEmbedding, BaseSparseEmbeddingFunction} < set(SpladeSparseEmbedding.__mro__)


def test_texts_reach_the_encoder_together():
    encoder = WordCounts()
    embedding = SpladeSparseEmbedding(encoder=encoder)
    texts = [f"word{i}" for i in range(600)]
    embedding.encode_documents(texts)
    embedding.encode_queries(texts)
    assert encoder.batches == [600, 600]
    embedding.get_text_embedding_batch(texts, show_progress=True)
    asyncio.run(embedding.aget_text_embedding_batch(texts))
    assert sorted(encoder.batches[2:]) == [88, 88, 512, 512]
    SpladeSparseEmbedding(encoder=encoder, embed_batch_size=300).get_text_embedding_batch(texts)
    assert encoder.batches[6:] == [300, 300]


def test_each_call_is_one_start_and_one_end_event(events):
    embedding = SpladeSparseEmbedding(encoder=WordCounts())
    asyncio.run(embedding.async_encode_queries(["a"]))
    for call, argument in [
        (embedding.encode_documents, ["a", ""]),
        (embedding.encode_queries, ["a", ""]),
        (embedding.get_text_embedding_batch, ["a", ""]),
        (embedding.get_query_embedding, "a"),
        (lambda texts: asyncio.run(embedding.async_encode_documents(texts)), ["a"]),
    ]:
        events.clear()
        rows = call(argument)
        start, end = events
        assert [start.class_name(), end.class_name()] == ["SparseEmbeddingStartEvent", "SparseEmbeddingEndEvent"]
        assert start.model_dict == {
            "class_name": "SpladeSparseEmbedding",
            "model_name": "WordCounts",
            "embed_batch_size": 512,
        }
        assert end.chunks == ([argument] if isinstance(argument, str) else argument)
        assert end.embeddings == ([rows] if isinstance(rows, dict) else rows)


def test_dumps_to_its_settings_alone(sparse, encoder):
    assert sparse.model_dump() == {
        "model_name": encoder.model_name,
        "embed_batch_size": 512,
        "num_workers": None,
        "class_name": "SpladeSparseEmbedding",
    }


# Empty vectors


def test_a_text_without_terms_is_stored_and_never_found_by_sparse_search(uri):
    embedding = SpladeSparseEmbedding(encoder=WordCounts())
    assert embedding.get_text_embedding("") == embedding.get_query_embedding("") == {}
    assert {} not in embedding.encode_documents([""]) + embedding.encode_queries([""])  # milvus-lite 3 refuses {}
    store = HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=embedding)
    store.add([node("ab", "alpha beta"), node("empty", ""), node("b", "beta")])
    assert count(store) == 3
    assert store.query(ask("alpha", "sparse")).ids == ["ab"]
    assert store.query(ask("", "sparse")).ids == []
    assert asyncio.run(store.aquery(ask("", "sparse"))).ids == []
    by_dense_alone = store.query(ask("", "default")).ids
    assert by_dense_alone[0] == "empty"
    assert store.query(ask("")).ids == asyncio.run(store.aquery(ask(""))).ids == by_dense_alone


# Search


@pytest.fixture(scope="module")
def prose() -> list[str]:
    words = Path(asyncio.__file__).with_name("base_events.py").read_text().split()
    return [" ".join(words[start : start + 9]) for start in range(0, 9 * 150, 9)]


@pytest.fixture(scope="module")
def prose_store(sparse, prose, tmp_path_factory):
    uri = tmp_path_factory.mktemp("prose") / "prose.db"
    store = HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse)
    store.add([node(str(i), text) for i, text in enumerate(prose)])
    return store


@pytest.fixture(scope="module")
def exact(dense, encoder, prose):
    """Return the (dense, sparse) scores of a query against all prose, computed by numpy and scipy alone."""
    vectors, weights = np.array(dense.get_text_embedding_batch(prose)), encoder.encode_documents(prose)

    def scores(query):
        dense_scores = vectors @ dense.get_query_embedding(query)
        return dense_scores, (weights @ encoder.encode_queries([query]).T).toarray()[:, 0]

    return scores


QUERIES = ["run the event loop until complete", "a socket that is closed", "transport protocol"]


@pytest.mark.parametrize("k", [4, 10])
@pytest.mark.parametrize("text", QUERIES)
def test_hybrid_is_reciprocal_rank_fusion_of_both_exact_rankings(prose_store, exact, text, k):
    fused = dict.fromkeys(range(150), 0.0)
    for side in exact(text):
        for rank, position in enumerate(np.argsort(-side, kind="stable")[:100], start=1):
            if side[position] != 0:
                fused[position] += 1 / (60 + rank)
    found = prose_store.query(ask(text, k=k))
    # Ties may be in any order. So this compares the best k scores, and each node's score with its exact score.
    np.testing.assert_allclose(found.similarities, sorted(fused.values(), reverse=True)[:k], atol=1e-7)
    np.testing.assert_allclose(found.similarities, [fused[int(id_)] for id_ in found.ids], atol=1e-7)


@pytest.mark.parametrize(("mode", "side"), [("default", 0), ("sparse", 1), ("text_search", 1)])
def test_one_side_alone_is_its_exact_ranking(prose_store, exact, prose, mode, side):
    for text in QUERIES:
        scores = exact(text)[side]
        found = prose_store.query(ask(text, mode, k=7))
        best = np.argsort(-scores, kind="stable")[:7]
        assert [int(id_) for id_ in found.ids] == best.tolist()
        assert [found_node.text for found_node in found.nodes] == [prose[position] for position in best]
        np.testing.assert_allclose(found.similarities, scores[best], rtol=1e-4)


def test_a_query_may_choose_its_candidates_and_results(prose_store):
    text = QUERIES[0]
    assert len(prose_store.query(ask(text, k=10)).ids) == 10
    assert len(prose_store.query(ask(text, k=10, sparse_top_k=3)).ids) <= 6
    assert prose_store.query(ask(text, k=2, hybrid_top_k=7)).ids == prose_store.query(ask(text, k=7)).ids


def test_the_ranker_is_the_frameworks_setting(prose_store, sparse):
    def rankers(name, params):
        return prose_store.model_copy(update={"hybrid_ranker": name, "hybrid_ranker_params": params})

    text = QUERIES[0]
    by_sparse = rankers("WeightedRanker", {"weights": [0.0, 1.0]}).query(ask(text, k=5))
    assert by_sparse.ids == prose_store.query(ask(text, "sparse", k=5)).ids
    scores = rankers("RRFRanker", {"k": 1}).query(ask(text)).similarities
    assert max(scores) > 2 / 61
    with pytest.raises(ValueError, match="must be 'RRFRanker' or 'WeightedRanker', got 'no'"):
        rankers("no", {}).query(ask(text))


@pytest.mark.parametrize("mode", MODES)
def test_filters_bind_every_side(store, mode):
    store.add(animals())
    assert set(store.query(ask("cats, dogs and spiders", mode, filters=equals("legs", 4))).ids) == {"cat", "dog"}
    assert store.query(ask("sparrows sing", mode, filters=equals("colour", "brown"))).ids == ["sparrow"]
    assert store.query(ask("dogs bark", mode, doc_ids=["dog-book"])).ids == ["dog"]
    assert store.query(ask("dogs bark", mode, node_ids=["dog"])).ids == ["dog"]
    assert set(store.query(ask("cats, dogs", mode), string_expr="legs == 4").ids) == {"cat", "dog"}
    found = asyncio.run(store.aquery(ask("cats, dogs and spiders", mode, filters=equals("legs", 4))))
    assert set(found.ids) == {"cat", "dog"}


def test_found_nodes_are_the_nodes_that_were_added(store):
    store.add(animals())
    for mode in MODES:
        sparrow = next(n for n in store.query(ask("sparrows sing at dawn", mode)).nodes if n.node_id == "sparrow")
        assert (sparrow.text, sparrow.metadata) == ANIMALS["sparrow"]
        assert sparrow.ref_doc_id == "sparrow-book"


def test_a_query_without_its_text_is_refused(store):
    query = ask("x")
    query.query_str = None
    with pytest.raises(ValueError, match="query_str must be given for mode 'hybrid'"):
        store.query(query)


# Adding, replacing, deleting


def test_the_sparse_side_sees_the_text_of_the_dense_side(uri):
    store = HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=SpladeSparseEmbedding(encoder=WordCounts()))
    store.add(
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
    assert store.query(ask("Lovelace", "sparse")).ids == ["ada"]
    assert store.query(ask("Lovelace")).ids[0] == "ada"
    assert store.query(ask("x.pdf", "sparse")).ids == []
    assert store.get_nodes(["ada"])[0].text == "Notes on the engine"


def test_adding_the_same_ids_again_replaces(store):
    for _ in range(2):
        assert store.add(animals()) == ["cat", "dog", "sparrow", "spider"]
        assert count(store) == 4
    store.add([node("cat", "Whales dive deep.", {"fins": 2})])
    assert count(store) == 4
    for mode in MODES:
        assert store.query(ask("Whales dive deep.", mode, k=1, filters=equals("fins", 2))).ids == ["cat"]
    [whale] = store.query(ask("diving whales", "sparse", k=1)).nodes
    assert (whale.text, whale.metadata) == ("Whales dive deep.", {"fins": 2})
    # milvus-lite's upsert would keep the old metadata for filters.
    assert "cat" not in store.query(ask("cats purr", filters=equals("legs", 4))).ids


def test_a_server_is_sent_upserts(store, monkeypatch):
    store.add(animals())
    # With this setting the store upserts, as it does on a server. milvus-lite accepts upserts as well.
    monkeypatch.setattr("splade_integrations.llama_index.store.insert_replaces", lambda uri: False)
    store.add([node("cat", "Whales dive deep."), node("ant", "Ants march.")])
    assert count(store) == 5
    assert store.query(ask("diving whales", "sparse", k=1)).ids == ["cat"]
    # A fault of milvus-lite's upsert shows that it was an upsert: filters still see the old metadata.
    assert "cat" in store.query(ask("whales", filters=equals("legs", 4))).ids


def test_nodes_are_encoded_in_chunks_and_flushed(uri, events):
    encoder = WordCounts()
    store = HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=SpladeSparseEmbedding(encoder=encoder))
    nodes = [node(str(i), f"word{i}") for i in range(900)]
    assert store.add(nodes) == [str(i) for i in range(900)]
    assert count(store) == 900
    assert encoder.batches == [512, 388]
    assert len(events) == 4
    for i in (0, 511, 512, 899):
        assert store.query(ask(f"word{i}", "sparse")).ids == [str(i)]
    assert list(Path(uri).rglob("*.parquet")), "milvus-lite has written no segment: the rows are not flushed"


def test_nothing_to_add_is_no_error(store):
    assert store.add([]) == asyncio.run(store.async_add([])) == []
    for mode in MODES:
        assert store.query(ask("x", mode)).ids == []


def test_nodes_are_checked_before_anything_is_written(store):
    good = [node(str(i), "x") for i in range(600)]  # more than one chunk
    for message, bad in [
        (r"nodes\[600\] must have an embedding, got None", TextNode(text="x")),
        (r"nodes\[600\] must be at most 65535 bytes of UTF-8, .* got 70000", TextNode(text="x" * 70_000)),
        (r"nodes\[600\] must be valid Unicode", TextNode(text="lone \ud800")),
    ]:
        if "embedding" not in message:
            bad.embedding = [1.0] * DIM
        for add in (store.add, lambda nodes: asyncio.run(store.async_add(nodes))):
            with pytest.raises(ValueError, match=message):
                add([*good, bad])
    assert count(store) == 0


def test_deleting_and_getting(store):
    store.add(animals())
    assert {n.node_id: (n.text, n.metadata) for n in store.get_nodes(list(ANIMALS))} == ANIMALS
    assert [n.node_id for n in store.get_nodes(filters=equals("legs", 8))] == ["spider"]
    store.delete("cat-book")
    store.delete_nodes(["dog"])
    assert set(store.query(ask("cats and dogs")).ids) == {"sparrow", "spider"}
    store.delete_nodes(filters=equals("legs", 8))
    assert store.query(ask("cats and dogs")).ids == ["sparrow"]


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


# Through the framework


def index_of(store, dense):
    context = StorageContext.from_defaults(vector_store=store)
    documents = [Document(id_=f"{name}-book", text=text, metadata=meta) for name, (text, meta) in ANIMALS.items()]
    return VectorStoreIndex.from_documents(documents, storage_context=context, embed_model=dense)


def test_vector_store_index_retriever_and_query_engine(store, dense):
    index = index_of(store, dense)
    for mode in MODES:
        retriever = index.as_retriever(vector_store_query_mode=mode, similarity_top_k=4, filters=equals("legs", 4))
        found = retriever.retrieve("a dog that barks")
        assert {hit.node.ref_doc_id for hit in found} == {"cat-book", "dog-book"}
        assert asyncio.run(retriever.aretrieve("a dog that barks")) == found
    [best] = index.as_retriever(vector_store_query_mode="sparse", similarity_top_k=1).retrieve("a dog that barks")
    assert best.text == "Dogs bark at strangers."
    engine = index.as_query_engine(llm=MockLLM(), vector_store_query_mode="hybrid", similarity_top_k=2)
    assert len(engine.query("a dog that barks").source_nodes) == 2
    index.insert(Document(id_="whale-book", text="Whales dive deep."))
    index.delete_ref_doc("dog-book")
    assert count(store) == 4
    [best] = index.as_retriever(vector_store_query_mode="sparse", similarity_top_k=1).retrieve("diving whales")
    assert best.node.ref_doc_id == "whale-book"


def test_ingestion_pipeline_leaves_no_duplicates(store, dense):
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), dense],
        vector_store=store,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS,
    )

    def documents(last):
        texts = ["Cats purr. " * 40, last]
        return [Document(id_=str(i), text=text) for i, text in enumerate(texts)]

    assert len(pipeline.run(documents=documents("Dogs bark."))) > 2
    rows = count(store)
    assert pipeline.run(documents=documents("Dogs bark.")) == []
    assert asyncio.run(pipeline.arun(documents=documents("Dogs bark."))) == []
    assert len(asyncio.run(pipeline.arun(documents=documents("Wolves howl.")))) == 1
    assert count(store) == rows
    found = store.query(ask("howling wolves", "sparse", k=rows)).nodes
    assert found[0].text == "Wolves howl."
    assert "Dogs bark." not in [n.text for n in found]


# Opening


@contextmanager
def reopened(uri, sparse, store, **options):
    store.client.close()
    server_manager_instance.release_server(uri)  # the end of the process does this
    yield HybridMilvusVectorStore(uri, sparse_embedding_function=sparse, **options)


def test_reopened_collections_still_hold_their_nodes(sparse, dense, uri, store):
    store.add(animals())
    with reopened(uri, sparse, store) as again:
        assert again.query(ask("barking dogs", "sparse", k=1)).ids == ["dog"]
        assert set(again.query(ask("dogs")).ids) == set(ANIMALS)
        again.add(animals())
        assert count(again) == 4
        index = VectorStoreIndex.from_vector_store(again, embed_model=dense)
        hits = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=4).retrieve("dogs")
        assert {hit.node_id for hit in hits} == set(ANIMALS)
    with reopened(uri, sparse, again, dim=DIM, overwrite=True) as emptied:
        assert count(emptied) == 0


def test_opening_without_a_function_says_what_to_give(store, uri, encoder):
    for function, found in [(None, "NoneType"), (encoder, "SpladeEncoder"), (BM25BuiltInFunction(), "BM25BuiltIn")]:
        with pytest.raises(TypeError, match=f"must be a SpladeSparseEmbedding, .* got {found}"):
            HybridMilvusVectorStore(uri, sparse_embedding_function=function)
    with pytest.raises(ValueError, match="enable_sparse must be True, got False"):
        HybridMilvusVectorStore(
            uri, sparse_embedding_function=SpladeSparseEmbedding(encoder=encoder), enable_sparse=False
        )


def test_every_keyword_of_the_framework_passes_through(sparse, uri):
    options = {
        "token": "",
        "collection_name": "ours",
        "doc_id_field": "document_id",  # or "ref_doc_id"; the framework fills no field with another name
        "text_key": "text",
        "embedding_field": "d",
        "sparse_embedding_field": "s",
        "similarity_metric": "ip",
        "index_config": {"index_type": "HNSW", "M": 8},
        "batch_size": 2,
        "upsert_mode": False,
        "hybrid_ranker_params": {"k": 10},
        "consistency_level": "Strong",
        "timeout": 10,
    }
    store = HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse, **options)
    store.add(animals())
    description = store.client.describe_collection("ours")
    assert [field["name"] for field in description["fields"]] == ["id", "document_id", "text", "d", "s"]
    index = store.client.describe_index("ours", "d")
    assert (index["index_type"], index["metric_type"]) == ("HNSW", "IP")
    assert max(store.query(ask("Dogs bark at strangers.")).similarities) > 1 / 11
    for field, value in {"upsert_mode": False, "batch_size": 2, "similarity_metric": "IP"}.items():
        assert getattr(store, field) == value


def test_defaults_are_an_exact_dense_index_and_every_sparse_term(store):
    dense, sparse = (store.client.describe_index(store.collection_name, f) for f in ("embedding", "sparse_embedding"))
    assert (dense["index_type"], dense["metric_type"]) == ("FLAT", "COSINE")
    assert (sparse["index_type"], sparse["metric_type"]) == ("SPARSE_INVERTED_INDEX", "IP")
    assert store.index_config == {"index_type": "FLAT", "metric_type": "COSINE"}


def test_a_server_is_asked_for_its_own_dense_index_and_a_fast_sparse_one(store):
    server = "http://localhost:19530"
    configs = {"index_config": _flat(dense_index(server)), "sparse_index_config": _flat(sparse_index(server))}
    of_server = store.model_copy(update=configs)
    dense, sparse = (
        add(store.client.prepare_index_params())[0].to_dict()
        for add in (of_server._add_dense_index_params, of_server._add_sparse_index_params)
    )
    assert (dense["index_type"], dense["metric_type"]) == ("AUTOINDEX", "COSINE")
    assert (sparse["index_type"], sparse["metric_type"]) == ("SPARSE_INVERTED_INDEX", "IP")
    assert sparse["inverted_index_algo"] == "DAAT_MAXSCORE"


def test_opens_what_the_framework_made(sparse, uri):
    theirs = MilvusVectorStore(
        uri, dim=DIM, enable_sparse=True, sparse_embedding_function=sparse, use_async_client=False
    )  # of metric IP
    theirs.add(animals())
    ours = HybridMilvusVectorStore(uri, sparse_embedding_function=sparse)
    assert ours.query(ask("dogs bark", "default")) == theirs.query(ask("dogs bark", "default"))
    assert ours.query(ask("dogs bark", "sparse")).ids[0] == "dog"
    found = ours.query(ask("dogs bark"))
    assert set(found.ids) == set(ANIMALS)
    assert asyncio.run(ours.aquery(ask("dogs bark"))) == found


def test_a_collection_with_other_fields_is_refused(sparse, uri):
    def refused(match, **options):
        with pytest.raises(ValueError, match=match):
            HybridMilvusVectorStore(uri, sparse_embedding_function=sparse, **options)

    MilvusVectorStore(uri, collection_name="dense", dim=DIM, use_async_client=False)
    refused(
        r"'dense' must have text \(VARCHAR\), sparse_embedding \(SPARSE_.*got id \(VARCHAR\)", collection_name="dense"
    )
    MilvusVectorStore(uri, collection_name="bm25", dim=DIM, enable_sparse=True, use_async_client=False)
    refused(r"got .*sparse_embedding \(SPARSE_FLOAT_VECTOR, filled by Milvus itself\)", collection_name="bm25")
    MilvusClient(uri).create_collection("other", dimension=DIM)
    refused(r"'other' must have .* got id \(INT64\), vector \(FLOAT_VECTOR\)", collection_name="other")
    HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse)
    refused("must have dense vectors of 32 dimensions, got 16", dim=32)
    refused(r"must have .*vec \(FLOAT_VECTOR\), got", embedding_field="vec")
    overwritten = HybridMilvusVectorStore(
        uri, collection_name="other", dim=DIM, overwrite=True, sparse_embedding_function=sparse
    )
    assert overwritten.add(animals()) == list(ANIMALS)


def test_a_database_that_does_not_open_says_why(sparse, tmp_path):
    (tmp_path / "file.db").write_text("milvus-lite 2 wrote one file")
    for name, message in [
        ("missing/test.db", "got a folder that does not exist"),
        ("test.sqlite", "got another name"),
        ("file.db", "got a file that is not milvus-lite 3's"),
    ]:
        with pytest.raises(OSError, match=message):
            HybridMilvusVectorStore(tmp_path / name, dim=DIM, sparse_embedding_function=sparse)
    locked = tmp_path / "locked.db"
    locked.mkdir()
    with (locked / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OSError, match=r"locked\.db' must be .* most likely because another process has it open"):
            HybridMilvusVectorStore(locked, dim=DIM, sparse_embedding_function=sparse)
    assert HybridMilvusVectorStore(locked, dim=DIM, sparse_embedding_function=sparse).add(animals())


# Async


def test_async_equals_sync_in_two_event_loops(store):
    async def use_it(text):
        assert await store.async_add([*animals(), node("late", text, ref_doc_id="late-book")]) == [*ANIMALS, "late"]
        found = {mode: await store.aquery(ask(text, mode, k=5)) for mode in MODES}
        assert await asyncio.gather(*(store.aquery(ask(text, k=5)) for _ in range(20))) == [found["hybrid"]] * 20
        [late] = await store.aget_nodes(["late"])
        assert late.text == text
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
    """Make threads take turns every microsecond, so that code that lacks a lock fails."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_many_may_add_at_once(uri, impatient_threads):
    sparse = SpladeSparseEmbedding(encoder=WordCounts())
    store = HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse)
    parts = [[node(f"{part}-{i}", f"word{part}") for i in range(20)] for part in range(64)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(store.add, parts)) == [[one.node_id for one in part] for part in parts]
    assert count(store) == 1280
    for part in range(64):
        assert len(store.query(ask(f"word{part}", "sparse", k=100)).ids) == 20


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


def test_the_async_client_can_be_switched_off(sparse, uri):
    store = HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse, use_async_client=False)
    store.add(animals())
    with pytest.raises(AssertionError, match="use_async_client = True"):
        asyncio.run(store.aquery(ask("x")))


def test_without_llama_index_the_import_names_the_pip_line():
    script = (
        "import sys; sys.modules['llama_index.vector_stores.milvus'] = None; import splade_integrations.llama_index"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "OptionalDependencyError: splade_integrations.llama_index needs llama_index.vector_stores" in result.stderr
    assert "pip install 'splade-integrations[llama-index]'" in result.stderr
