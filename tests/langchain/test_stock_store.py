"""langchain-milvus's store can use our embedding, and our store can open collections of langchain-milvus."""

import asyncio
import pickle
import re
import subprocess
import sys

import pytest
from langchain_core.documents import Document

from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
from tests.support.adapters import HashEmbeddings

ANIMALS = [
    Document(
        "Cats purr when they are content.", id="cat", metadata={"legs": 4, "home": True, "note": {"a": [1, None]}}
    ),
    Document("Dogs bark at strangers.", id="dog", metadata={"legs": 4, "home": False, "note": {}}),
    Document("Sparrows sing at dawn.", id="sparrow", metadata={"legs": 2, "home": False, "note": {"b": 1.5}}),
]
# These parameters work on milvus-lite 3 and on servers. With langchain-milvus's defaults, a search would drop terms.
FIELDS = {
    "vector_field": ["dense", "sparse"],
    "index_params": [
        {"index_type": "FLAT", "metric_type": "COSINE", "params": {}},
        {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP", "params": {}},
    ],
    "search_params": [{"metric_type": "COSINE", "params": {}}, {"metric_type": "IP", "params": {}}],
}
LAYOUTS = {
    "dynamic": {"enable_dynamic_field": True},
    "a field a key": {},
    "one JSON field": {"metadata_field": "metadata"},
}


@pytest.fixture
def sparse(encoder):
    return SpladeSparseEmbedding(encoder=encoder)


@pytest.fixture
def stock(sparse, place):
    """Return a function that makes a filled store of langchain-milvus."""
    module = pytest.importorskip("langchain_milvus", reason="langchain-milvus is not installed in this environment")

    def make(**options):
        connection = {"uri": place["uri"], "token": place.get("token", "")}
        store = module.Milvus(
            [HashEmbeddings(), sparse], place["collection_name"], connection_args=connection, **FIELDS, **options
        )
        store.add_documents(ANIMALS, ids=[document.id for document in ANIMALS])
        store.client.flush(place["collection_name"])
        return store

    return make


def test_the_embedding_serves_the_stock_store(stock):
    ranked = {"k": 1, "ranker_type": "weighted", "ranker_params": {"weights": [0.0, 1.0]}}
    store = stock(enable_dynamic_field=True)
    assert [found.page_content for found in store.similarity_search("a barking dog", **ranked)] == [
        ANIMALS[1].page_content
    ]

    async def ask():
        return await store.asimilarity_search("a barking dog", **ranked)

    assert [found.page_content for found in asyncio.run(ask())] == [ANIMALS[1].page_content]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_its_collections_open_in_ours_with_every_value(stock, sparse, place, layout):
    stock(**LAYOUTS[layout])
    ours = hybrid_milvus(HashEmbeddings(), sparse, **place)
    assert ours.get_by_ids(["cat", "dog", "sparrow"]) == ANIMALS
    assert sorted(ours.iterate(), key=lambda document: document.id) == ANIMALS
    for mode in ("hybrid", "dense", "sparse"):
        found = ours.similarity_search("a barking dog", mode=mode, filter={"legs": 4, "home": False})
        assert found == [ANIMALS[1]]
    changed = Document("Cats sleep.", id="cat", metadata={"legs": 3, "home": True, "note": {"c": 1}})
    ours.add_documents([changed])
    assert ours.get_by_ids(["cat"]) == [changed]
    assert ours.similarity_search("x", k=9, filter={"legs": {"$lt": 4}, "home": True}) == [changed]
    ours.delete(filter={"home": False})
    assert list(ours.iterate()) == [changed]


def test_a_key_that_it_has_no_field_for_is_kept_or_refused(stock, sparse, place):
    stock()
    ours = hybrid_milvus(HashEmbeddings(), sparse, **place)
    metadata = {"legs": 4, "home": True, "note": {}}
    for wrong, message in [
        (metadata | {"colour": "red"}, r"metadatas\[1\] must use the keys .* \(legs, home, note\), got 'colour'"),
        ({"legs": 4, "home": True}, r"metadatas\[1\] must have a value under 'note'"),
        (
            metadata | {"legs": "four"},
            r"metadatas\[1\]\['legs'\] must fit the collection's field of type INT64, got str",
        ),
        (metadata | {"home": 1}, r"metadatas\[1\]\['home'\] must fit the collection's field of type BOOL, got int 1"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            ours.add_texts(["x", "y"], [metadata, wrong])
    assert len(list(ours.iterate())) == 3


def test_dynamic_keys_may_not_be_named_like_fields(stock, sparse, place):
    stock(enable_dynamic_field=True)
    ours = hybrid_milvus(HashEmbeddings(), sparse, **place)
    ours.add_texts(["x"], [{"new": [1, "a"]}], ids=["x"])
    assert ours.get_by_ids(["x"])[0].metadata == {"new": [1, "a"]}
    for key in ("pk", "text", "dense", "sparse", "$meta"):
        message = re.escape(f"metadatas[0] must have no key that is a field name or starts with $, got {key!r}")
        with pytest.raises(ValueError, match=message):
            ours.add_texts(["x"], [{key: 1}])
    ours.add_documents([Document("Whales dive.", id="cat", metadata={"fins": 2})])
    assert ours.get_by_ids(["cat"])[0].metadata == {"fins": 2}  # none of the old keys is left
    assert ours.similarity_search("whales", filter={"home": True}) == []
    assert ours.similarity_search("whales", expr="home == true") == []


WITHOUT = "import sys; sys.modules['langchain_milvus'] = None\n"


def run(script, *arguments):
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_the_package_the_store_works_and_pickles_load(model_folder, tmp_path):
    pickled = tmp_path / "embedding.pickle"
    embedding = SpladeSparseEmbedding(model_name=model_folder)
    pickled.write_bytes(pickle.dumps(embedding))
    script = (
        WITHOUT
        + """
import pickle
from langchain_core.embeddings import DeterministicFakeEmbedding
from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus

sparse = pickle.loads(open(sys.argv[1], "rb").read())
assert isinstance(sparse, SpladeSparseEmbedding)
store = hybrid_milvus(DeterministicFakeEmbedding(size=8), sparse, uri=sys.argv[2])
store.add_texts(["Cats purr.", "Dogs bark."], ids=["cat", "dog"])
print([document.id for document in store.similarity_search("a barking dog", k=1, mode="sparse")])
assert "torch" in sys.modules
print(any(name.startswith("langchain_milvus.") for name in sys.modules))
"""
    )
    assert run(script, str(pickled), str(tmp_path / "without.db")).split() == ["['dog']", "False"]
    # Next, the pickle is made without langchain-milvus and loaded with it.
    script = (
        WITHOUT
        + """
import pickle
from splade_integrations.langchain import SpladeSparseEmbedding
open(sys.argv[2], "wb").write(pickle.dumps(SpladeSparseEmbedding(model_name=sys.argv[1])))
"""
    )
    run(script, str(model_folder), str(pickled))
    assert pickle.loads(pickled.read_bytes()).embed_query("a cat") == embedding.embed_query("a cat")


def test_the_stock_store_takes_it_for_sparse():
    module = pytest.importorskip(
        "langchain_milvus.utils.sparse", reason="langchain-milvus is not installed in this environment"
    )
    assert issubclass(SpladeSparseEmbedding, module.BaseSparseEmbedding)
