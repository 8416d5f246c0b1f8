"""Tests of opening a store: options, collections that other packages made, encoders, and what is refused."""

import asyncio
import copy
import fcntl
from contextlib import contextmanager

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.vector_stores.utils import node_to_metadata_dict
from milvus_lite.server_manager import server_manager_instance
from pymilvus import DataType, MilvusClient

from splade_integrations.llama_index import HybridMilvusVectorStore, SpladeSparseEmbedding
from tests.llama_index.support import ANIMALS, all_of, animals, any_of, ask, node, none_of, where
from tests.support.adapters import DIM, HashEmbeddings, count

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


@contextmanager
def reopened(uri, sparse, store, **options):
    store.client.close()
    server_manager_instance.release_server(uri)  # this also happens when the process ends
    yield HybridMilvusVectorStore(uri, sparse_embedding_function=sparse, **options)


def test_reopened_collections_still_hold_their_nodes(sparse, dense, uri):
    store = HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse)
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


def test_dim_may_be_left_to_the_first_nodes(sparse, place):
    store = HybridMilvusVectorStore(**place, sparse_embedding_function=sparse)
    assert store.query(ask("x")).ids == store.get_nodes(["a"]) == []
    store.delete("x")
    store.delete_nodes(["x"])
    store.clear()
    assert store.add(animals()) == list(ANIMALS)
    assert store.query(ask("barking dogs", "sparse", k=1)).ids == ["dog"]


def test_a_deep_copy_is_the_same_store(store):
    store.add(animals())
    for copied in (copy.deepcopy(store), copy.copy(store), store.model_copy()):
        assert copied.query(ask("dogs")) == store.query(ask("dogs"))
        assert asyncio.run(copied.aquery(ask("dogs"))) == store.query(ask("dogs"))


def test_a_client_of_the_users_own(sparse, uri):
    client = MilvusClient(uri)
    store = HybridMilvusVectorStore(client=client, dim=DIM, sparse_embedding_function=sparse)
    store.add(animals())
    assert store.client is client
    assert asyncio.run(store.aquery(ask("dogs"))) == store.query(ask("dogs"))
    assert client.has_collection("llamacollection")


def test_no_secret_is_dumped(sparse, uri):
    store = HybridMilvusVectorStore(uri, "user:xyzzy", dim=DIM, sparse_embedding_function=sparse, password="plugh")
    for text in (repr(store), str(store.to_dict()), store.to_json()):
        assert "xyzzy" not in text
        assert "plugh" not in text


# Options


def test_an_option_that_there_is_not_is_refused(sparse, uri):
    def refused(message, **options):
        with pytest.raises(TypeError, match=message):
            HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse, **options)

    refused("got 'colection_name'. Did you mean 'collection_name'?", colection_name="x")
    refused("got 'xyzzy'. Use one of these: aclient, alias, allow_other_encoder, batch_size", xyzzy=1)
    refused(r"output_fields must not be given, got \['x'\]. Leave it out: a node is always", output_fields=["x"])


def test_a_store_without_a_function_says_what_to_give(uri, encoder):
    for function, found in [(None, "NoneType"), (encoder, "SpladeEncoder")]:
        with pytest.raises(TypeError, match=f"must be a SpladeSparseEmbedding, .* got {found}"):
            HybridMilvusVectorStore(uri, sparse_embedding_function=function)
    sparse = SpladeSparseEmbedding(encoder=encoder)
    with pytest.raises(ValueError, match="enable_dense, enable_sparse or bm25 must be True"):
        HybridMilvusVectorStore(uri, sparse_embedding_function=sparse, enable_sparse=False, enable_dense=False)
    with pytest.raises(TypeError, match="must be None with enable_sparse=False, got SpladeSparseEmbedding"):
        HybridMilvusVectorStore(uri, sparse_embedding_function=sparse, enable_sparse=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upsert_mode": False}, "upsert_mode must be True, got False. Leave it out: adding always replaces"),
        ({"similarity_metric": "hamming"}, "must be 'COSINE', 'IP' or 'L2', got 'hamming'"),
        ({"index_config": {"metric_type": "IP"}}, "the metric_type of index_config must be 'COSINE'.* got 'IP'"),
        ({"sparse_index_config": {"metric_type": "BM25"}}, "the metric_type of sparse_index_config must be 'IP'"),
        ({"search_config": {"metric_type": "L2"}}, "the metric_type of search_config must be 'COSINE'"),
        ({"index_config": {"field_name": "x"}}, "index_config must not name a field"),
        (
            {"scalar_field_names": ["x"]},
            "scalar_field_types must have one type for each of 1 scalar_field_names, got 0",
        ),
        ({"metadata_fields": {"text": str}}, "must not use the names of the collection's other fields, got 'text'"),
    ],
)
def test_values_that_would_be_ignored_are_refused(sparse, uri, options, message):
    with pytest.raises(ValueError, match=message):
        HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse, **options)


def test_options_reach_the_collection(sparse, uri):
    options = {
        "token": "",
        "collection_name": "ours",
        "doc_id_field": "source",
        "text_key": "body",
        "embedding_field": "d",
        "sparse_embedding_field": "s",
        "primary_field": "key",
        "metadata_field": "meta",
        "metadata_fields": {"legs": int},
        "scalar_field_names": ["colour"],
        "scalar_field_types": [DataType.VARCHAR],
        "similarity_metric": "ip",
        "index_config": {"index_type": "HNSW", "M": 8},
        "search_config": {"ef": 64},
        "batch_size": 2,
        "hybrid_ranker_params": {"k": 10},
        "consistency_level": "Strong",
        "timeout": 10,
    }
    store = HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse, **options)
    store.add(animals())
    description = store.client.describe_collection("ours")
    fields = {field["name"]: field["type"] for field in description["fields"]}
    assert fields.keys() >= {"key", "source", "body", "d", "s", "meta", "legs", "colour"}
    assert (fields["legs"], fields["colour"]) == (DataType.INT64, DataType.VARCHAR)
    index = store.client.describe_index("ours", "d")
    assert (index["index_type"], index["metric_type"]) == ("HNSW", "IP")
    assert max(store.query(ask("Dogs bark at strangers.")).similarities) > 1 / 11
    assert set(store.query(ask("dogs", filters=all_of(where("legs", 4)))).ids) == {"cat", "dog"}
    assert store.query(ask("dogs", filters=all_of(where("colour", "brown"))), milvus_search_config={"ef": 50}).ids == [
        "sparrow"
    ]
    assert store.get_nodes(["sparrow"])[0].metadata == ANIMALS["sparrow"][1]
    assert store.query(ask("dogs", k=1), group_by="source").ids
    store.delete("dog-book")
    assert count(store) == 3


def test_defaults_are_an_exact_dense_index_and_every_sparse_term(sparse, uri):
    store = HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse)
    dense, sparse = (store.client.describe_index(store.collection_name, f) for f in ("embedding", "sparse_embedding"))
    assert (dense["index_type"], dense["metric_type"]) == ("FLAT", "COSINE")
    assert (sparse["index_type"], sparse["metric_type"]) == ("SPARSE_INVERTED_INDEX", "IP")


def test_distances_come_smallest_first(sparse, uri):
    store = HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse, similarity_metric="euclidean")
    store.add(animals())
    found = store.query(ask("Dogs bark at strangers.\n", "default"))
    assert found.similarities == sorted(found.similarities)


def test_tenants_by_partition_key(sparse, place):
    store = HybridMilvusVectorStore(
        **place, dim=DIM, sparse_embedding_function=sparse, partition_key_field="tenant", num_partitions=4
    )
    store.add([node(f"{tenant}{i}", "dogs bark", {"tenant": tenant}) for tenant in "abc" for i in range(5)])
    for tenant in "abc":
        found = store.query(ask("dogs bark", k=50, filters=all_of(where("tenant", tenant))))
        assert set(found.ids) == {f"{tenant}{i}" for i in range(5)}
    with pytest.raises(ValueError, match="'tenant'"):
        store.add([node("x", "dogs bark")])
    store.delete_nodes(filters=all_of(where("tenant", "a")))
    assert count(store) == 10


def test_partitions(sparse, place):
    store = HybridMilvusVectorStore(**place, dim=DIM, sparse_embedding_function=sparse)
    store.client.create_partition(store.collection_name, "mine")
    store.add(animals()[:2], milvus_partition_name="mine")
    store.add(animals()[2:])
    assert set(store.query(ask("dogs"), milvus_partition_names=["mine"]).ids) == {"cat", "dog"}
    assert {one.node_id for one in store.get_nodes(filters=all_of(), milvus_partition_names=["mine"])} == {"cat", "dog"}
    store.delete_nodes(["spider", "cat"], milvus_partition_name="mine")
    store.delete("sparrow-book", milvus_partition_name="mine")
    assert {one.node_id for one in store.get_nodes(filters=all_of())} == {"dog", "sparrow", "spider"}
    for misspelt in (
        lambda: store.query(ask("dogs"), milvus_partition_names=["mien"]),
        lambda: asyncio.run(store.aquery(ask("dogs"), milvus_partition_names=["mien"])),
        lambda: store.get_nodes(["cat"], milvus_partition_names=["mien"]),
        lambda: store.delete_nodes(["cat"], milvus_partition_name="mien"),
        lambda: store.delete("dog-book", milvus_partition_name="mien"),
    ):
        with pytest.raises(ValueError, match="'mien'"):
            misspelt()


# Collections that other packages made


def assert_is_animals(store):
    """Assert that a store finds all values of `animals()` in a collection that another store has made."""
    found = store.query(ask("dogs bark"))
    assert set(found.ids) == set(ANIMALS)
    assert asyncio.run(store.aquery(ask("dogs bark"))) == found
    assert {one.node_id: (one.text, one.metadata, one.ref_doc_id) for one in found.nodes} == {
        name: (text, metadata, f"{name}-book") for name, (text, metadata) in ANIMALS.items()
    }
    assert store.query(ask("dogs bark", "sparse")).ids[0] == "dog"
    assert set(store.query(ask("dogs", filters=all_of(where("legs", 4)))).ids) == {"cat", "dog"}
    assert set(store.query(ask("dogs", filters=none_of(where("legs", 4)))).ids) == {"sparrow", "spider"}
    assert store.query(ask("dogs", doc_ids=["spider-book"])).ids == ["spider"]


def made_in_the_stock_layout(place, sparse, metric):
    """Make a collection in the layout of LlamaIndex's `MilvusVectorStore` and of the previous version of our store."""
    client, name = MilvusClient(uri=place["uri"]), place.get("collection_name", "llamacollection")
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=65_535)
    for field in ("doc_id", "text"):
        schema.add_field(field, DataType.VARCHAR, max_length=65_535)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("sparse_embedding", DataType.SPARSE_FLOAT_VECTOR)
    client.create_collection(name, schema=schema)
    indexes = client.prepare_index_params()
    indexes.add_index("embedding", index_type="FLAT", metric_type=metric)
    indexes.add_index("sparse_embedding", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_index(name, indexes, sync=False)
    rows = []
    for one in animals():
        row = node_to_metadata_dict(one, remove_text=True)
        row |= {"id": one.node_id, "text": one.text, "embedding": one.embedding}
        rows.append(row | {"sparse_embedding": sparse.encode_documents([one.text])[0]})
    client.insert(name, rows)


@pytest.mark.parametrize("metric", ["IP", "COSINE"])
def test_opens_the_stock_layout(sparse, place, metric):
    made_in_the_stock_layout(place, sparse, metric)
    store = HybridMilvusVectorStore(**place, sparse_embedding_function=sparse)
    assert store.similarity_metric == metric
    assert_is_animals(store)
    with pytest.raises(ValueError, match=f"similarity_metric must be '{metric}', the metric of collection .* got 'l2'"):
        HybridMilvusVectorStore(**place, sparse_embedding_function=sparse, similarity_metric="l2")
    assert store.add(animals()) == list(ANIMALS)
    assert count(store) == 4
    assert_is_animals(store)
    store.add(
        [node("ant", "Ants march.", {"legs": 6, "doc_id": "mine"}, ref_doc_id="ant\\book"), node("lone", "Alone.")]
    )
    assert store.get_nodes(["ant"])[0].metadata == {"legs": 6, "doc_id": "mine"}
    assert store.get_nodes(["lone"])[0].ref_doc_id is None
    for key in ("doc_id", "document_id", "ref_doc_id"):
        for refused in (
            lambda key=key: store.query(ask("ants", filters=all_of(where(key, "mine")))),
            lambda key=key: store.get_nodes(filters=none_of(where(key, "mine"))),
            lambda key=key: store.delete_nodes(filters=any_of(where("legs", 6), where(key, "mine"))),
        ):
            with pytest.raises(ValueError, match=f"must not ask for key '{key}' in this collection.* use doc_ids"):
                refused()
    store.delete("None")
    store.delete("ant\\book")
    store.delete_nodes(filters=all_of(where("legs", 8)))
    assert {one.node_id for one in store.get_nodes(filters=all_of())} == {"cat", "dog", "sparrow", "lone"}
    with pytest.raises(ValueError, match="'text'"):
        store.add([node("a", "alpha", {"text": "mine"})])


def stock_store():
    return pytest.importorskip("llama_index.vector_stores.milvus").MilvusVectorStore


def test_shares_a_collection_with_the_stock_store(sparse, uri):
    theirs = stock_store()(
        uri, dim=DIM, enable_sparse=True, sparse_embedding_function=sparse, use_async_client=False
    )  # with metric IP
    theirs.add(animals())
    ours = HybridMilvusVectorStore(uri, sparse_embedding_function=sparse)
    assert_is_animals(ours)
    assert ours.query(ask("dogs bark", "default")) == theirs.query(ask("dogs bark", "default"))
    ours.add([node("ant", "Ants march.", {"legs": 6, "doc_id": "mine"}, ref_doc_id="ant-book")])
    [ant] = theirs.get_nodes(["ant"])
    assert (ant.text, ant.metadata, ant.ref_doc_id) == ("Ants march.", {"legs": 6, "doc_id": "mine"}, "ant-book")
    theirs.delete("ant-book")
    assert count(ours) == 4


@pytest.mark.parametrize("dynamic", [True, False])
def test_opens_what_langchain_milvus_made(sparse, place, dynamic):
    client, name = MilvusClient(uri=place["uri"]), place.get("collection_name", "llamacollection")
    schema = client.create_schema(auto_id=False, enable_dynamic_field=dynamic)
    schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=65_535)
    schema.add_field("text", DataType.VARCHAR, max_length=65_535)
    if not dynamic:
        schema.add_field("legs", DataType.INT64)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    client.create_collection(name, schema=schema)
    indexes = client.prepare_index_params()
    indexes.add_index("dense", index_type="FLAT", metric_type="COSINE")
    indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_index(name, indexes, sync=False)
    rows = [{"pk": one.node_id, "text": one.text, "legs": one.metadata["legs"], "dense": one.embedding,
             "sparse": sparse.encode_documents([one.text])[0]} for one in animals()]  # fmt: skip
    client.insert(name, rows)
    store = HybridMilvusVectorStore(**place, sparse_embedding_function=sparse)
    found = store.query(ask("a dog that barks"))
    assert {one.node_id: (one.text, one.metadata) for one in found.nodes} == {
        name: (text, {"legs": metadata["legs"]}) for name, (text, metadata) in ANIMALS.items()
    }
    assert asyncio.run(store.aquery(ask("a dog that barks"))) == found
    assert store.query(ask("a dog that barks", "sparse", k=1)).ids == ["dog"]
    assert set(store.query(ask("dogs", filters=all_of(where("legs", 4)))).ids) == {"cat", "dog"}
    assert [one.node_id for one in store.get_nodes(["dog", "cat"])] == ["dog", "cat"]
    for refused in (
        lambda: store.add(animals()),
        lambda: store.delete("dog-book"),
        lambda: store.query(ask("dogs", doc_ids=["x"])),
    ):
        with pytest.raises(
            ValueError, match=r"must have a field for the source document's id.* Name it with doc_id_field"
        ):
            refused()
    store.delete_nodes(["cat"])
    store.delete_nodes(filters=all_of(where("legs", 8)))
    assert {one.node_id for one in store.get_nodes(filters=all_of())} == {"dog", "sparrow"}


def test_opens_what_langchain_made(sparse, encoder, uri):
    from splade_integrations.langchain import SpladeSparseEmbedding as LangChainEmbedding
    from splade_integrations.langchain import hybrid_milvus

    theirs = hybrid_milvus(
        HashEmbeddings(), LangChainEmbedding(encoder=encoder), uri=uri, collection_name="llamacollection"
    )
    metadata = [dict(metadata) for _, metadata in ANIMALS.values()]
    theirs.add_texts([text for text, _ in ANIMALS.values()], metadatas=metadata, ids=list(ANIMALS))
    ours = HybridMilvusVectorStore(uri, sparse_embedding_function=sparse)
    for mode in ("default", "sparse", "hybrid"):
        found = ours.query(ask("a dog that barks", mode))
        assert {one.node_id: (one.text, one.metadata) for one in found.nodes} == {
            id_: ANIMALS[id_] for id_ in found.ids
        }
    assert ours.query(ask("a dog that barks", "sparse")).ids[0] == "dog"
    assert [one.node_id for one in ours.get_nodes(["dog", "cat"])] == ["dog", "cat"]
    assert set(ours.query(ask("dogs", filters=all_of(where("legs", 4)))).ids) == {"cat", "dog"}
    ours.delete_nodes(["cat"])
    assert count(ours) == 3


def test_langchain_opens_what_ours_made(sparse, encoder, uri):
    from splade_integrations.langchain import SpladeSparseEmbedding as LangChainEmbedding
    from splade_integrations.langchain import hybrid_milvus

    ours = HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse)
    ours.add(animals())
    theirs = hybrid_milvus(
        HashEmbeddings(),
        LangChainEmbedding(encoder=encoder),
        uri=uri,
        collection_name="llamacollection",
        vector_field=["embedding", "sparse_embedding"],
    )
    found = theirs.similarity_search("a dog that barks", k=4)
    for one in found:
        text, metadata = ANIMALS[one.id]
        assert (one.page_content, one.metadata | metadata) == (text, one.metadata)
    theirs.add_texts(["Ants march."], [{"legs": 6}], ids=["ant"])
    [ant] = ours.get_nodes(["ant"])
    assert (ant.text, ant.metadata, ant.ref_doc_id) == ("Ants march.", {"legs": 6}, None)


def test_a_collection_with_other_fields_is_refused(sparse, uri):
    def refused(match, **options):
        with pytest.raises(ValueError, match=match):
            HybridMilvusVectorStore(uri, sparse_embedding_function=sparse, **options)

    HybridMilvusVectorStore(uri, collection_name="dense", dim=DIM, enable_sparse=False)
    refused("'dense' must have the field 'sparse_embedding'.*with sparse_embedding_field", collection_name="dense")
    MilvusClient(uri).create_collection("other", dimension=DIM)
    refused("'other' must have the field .*with (text_key|sparse_embedding_field)", collection_name="other")
    HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse)
    refused("must have dense vectors of 32 dimensions, got 16", dim=32)
    refused("must have the field 'vec'.*with embedding_field", embedding_field="vec")
    overwritten = HybridMilvusVectorStore(
        uri, collection_name="other", dim=DIM, overwrite=True, sparse_embedding_function=sparse
    )
    assert overwritten.add(animals()) == list(ANIMALS)


def test_a_sparse_field_that_milvus_fills_is_refused(sparse, uri):
    stock_store()(uri, collection_name="bm25", dim=DIM, enable_sparse=True, use_async_client=False)
    with pytest.raises(ValueError, match="'bm25' must have a sparse field for SPLADE, got 'sparse_embedding', which"):
        HybridMilvusVectorStore(uri, collection_name="bm25", sparse_embedding_function=sparse)


def test_a_database_that_does_not_open_says_why(sparse, tmp_path):
    (tmp_path / "file.db").write_text("milvus-lite 2 wrote one file")
    for name, message in [
        ("missing/test.db", "got a folder that does not exist"),
        ("test.sqlite", "got a path with another ending"),
        ("file.db", "got a file, but milvus-lite 3 keeps"),
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
