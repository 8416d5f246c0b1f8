"""Both stores find, and delete, exactly the rows that match a random nested filter.

The law of filters, tests/support/predicate.py, says which rows match. By default, each store searches with a hundred
filters, and deletes with a hundred filters. FILTER_CASES=5000 raises both numbers to 5000.
"""

import os
import uuid

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from pymilvus import MilvusClient
from scipy.sparse import csr_array

from splade_integrations.fusion import Fusion
from splade_integrations.milvus.filters import FilterError
from tests.milvus.test_filters import BATCH, DOCUMENTS, batches, keys, quick
from tests.support.adapters import DIM, HashEmbeddings, unit_vector
from tests.support.places import PLACES, server_or_skip
from tests.support.predicate import satisfies

CASES = int(os.environ.get("FILTER_CASES", "100"))
IDS = [f"row{number}" for number in range(len(DOCUMENTS))]
MOST_REFUSED = 0.05


class OneTerm:
    """An encoder that gives all texts the same row, so that only the filter decides what a search finds."""

    def encode_documents(self, texts):
        count = len(texts)
        return csr_array((np.ones(count, np.float32), ([*range(count)], [3] * count)), shape=(count, 10))

    encode_queries = encode_documents


class LangChainStore:
    asked = batches
    as_law = staticmethod(lambda asked: asked)

    def __init__(self, place):
        from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus

        sparse = SpladeSparseEmbedding(encoder=OneTerm())
        self.store = hybrid_milvus(HashEmbeddings(), sparse, bm25=True, **place)

    def add(self, numbers):
        self.store.add_texts(
            ["alpha"] * len(numbers), [DOCUMENTS[number] for number in numbers], ids=[IDS[number] for number in numbers]
        )

    def ways_to_find(self, asked):
        by_scores = {"fusion": Fusion(sides=("dense", "sparse", "bm25"), method="scores")}
        for how in (*({"mode": mode} for mode in ("dense", "sparse", "bm25", "hybrid")), by_scores):
            yield [one.id for one in self.store.similarity_search("alpha", k=len(IDS), filter=asked, **how)]
        yield [one.id for one in self.store.iterate(asked)]

    def delete(self, asked):
        self.store.delete(filter=asked)

    def ids(self):
        return {one.id for one in self.store.iterate()}


OF_LLAMA_INDEX = {
    "==": "$eq", "!=": "$ne", ">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte", "in": "$in", "nin": "$nin",
    "any": "$any", "all": "$all", "contains": "$contains", "text_match": "$text_match",
    "text_match_insensitive": "$text_match_insensitive", "is_empty": "$is_empty",
}  # fmt: skip
values = st.sampled_from(["", "a", "A", "ab", "a b", "1", "true", 'a"b', "a'b", "a\\b", "a\nb", "é", "[]", "%"])
values |= st.sampled_from([0, 1, 2, -1, 1999, 2**53, 0.0, 1.0, 0.5, 2001.0]) | st.text("ab%_\\ '\"é", max_size=3)
value_lists = st.one_of(
    st.lists(st.sampled_from(["a", "b", "ab", "a'b", "a\\b", "é", "%"]), max_size=3),
    st.lists(st.sampled_from([0, 1, 2, 1999]), max_size=3),
    st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=3),
)


def value_of(operator):
    if operator in ("in", "nin", "any", "all"):
        return value_lists
    if operator == "is_empty":
        return st.none()
    return values.filter(lambda value: isinstance(value, str)) if operator.startswith("text") else values


comparisons = st.sampled_from([*OF_LLAMA_INDEX]).flatmap(lambda name: st.tuples(keys, st.just(name), value_of(name)))
groups = st.recursive(
    comparisons,
    lambda inner: st.tuples(st.sampled_from(["and", "or", "not", None]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=5,
).map(lambda one: one if len(one) == 2 else ("and", [one]))


class LlamaIndexStore:
    asked = st.lists(groups, min_size=BATCH, max_size=BATCH)

    def __init__(self, place):
        from splade_integrations.llama_index import HybridMilvusVectorStore, SpladeSparseEmbedding

        sparse = SpladeSparseEmbedding(encoder=OneTerm())
        self.store = HybridMilvusVectorStore(**place, dim=DIM, sparse_embedding_function=sparse, bm25=True)

    def as_law(self, asked):
        """Return a comparison or a group as conditions in the form that the law accepts."""
        if len(asked) == 3:
            key, operator, value = asked
            return {key: {OF_LLAMA_INDEX[operator]: True if operator == "is_empty" else value}}
        condition, parts = asked[0] or "and", [self.as_law(one) for one in asked[1]]
        return {"$not": {"$or": parts}} if condition == "not" else {f"${condition}": parts}

    def filters(self, asked):
        from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

        if len(asked) == 3:
            key, operator, value = asked
            return MetadataFilter(key=key, operator=operator, value=value)
        return MetadataFilters(condition=asked[0], filters=[self.filters(one) for one in asked[1]])

    def add(self, numbers):
        from llama_index.core.schema import TextNode

        vector = unit_vector("alpha")
        self.store.add([TextNode(id_=IDS[n], text="alpha", metadata=DOCUMENTS[n], embedding=vector) for n in numbers])

    def ways_to_find(self, asked):
        from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

        filters = self.filters(asked)
        for mode in ("default", "sparse", "hybrid", "text_search"):
            query = VectorStoreQuery(
                query_embedding=unit_vector("alpha"),
                query_str="alpha",
                similarity_top_k=len(IDS),
                mode=VectorStoreQueryMode(mode),
                filters=filters,
            )
            yield self.store.query(query).ids
        yield [one.node_id for one in self.store.get_nodes(filters=filters)]

    def delete(self, asked):
        self.store.delete_nodes(filters=self.filters(asked))

    def ids(self):
        return {one.node_id for one in self.store.get_nodes(IDS)}


@pytest.fixture(scope="module", params=PLACES)
def place(request, tmp_path_factory):
    if request.param == "milvus-lite":
        return {"uri": str(tmp_path_factory.mktemp("law") / "law.db")}
    return server_or_skip()


@pytest.fixture(scope="module", params=[LangChainStore, LlamaIndexStore], ids=["LangChain", "LlamaIndex"])
def store(request, place):
    if request.param is LlamaIndexStore:
        pytest.importorskip("llama_index.core")
    name = f"law_{uuid.uuid4().hex}"
    made = request.param({**place, "collection_name": name, "consistency_level": "Strong"})
    made.add(range(len(IDS)))
    assert made.ids() == set(IDS)
    yield made
    client = MilvusClient(**{key: value for key, value in place.items() if value})
    client.drop_collection(name)


def check(store, judge):
    """Judge the results of random filters. A store may refuse a small share of the filters."""
    counts = {"asked": 0, "refused": 0}

    @seed(11)
    @settings(quick, max_examples=CASES // BATCH)
    @given(store.asked)
    def run(batch):
        for asked in batch:
            law = store.as_law(asked)
            counts["asked"] += 1
            try:
                judge(asked, {id_ for id_, held in zip(IDS, DOCUMENTS, strict=True) if satisfies(law, held)})
            except FilterError:
                counts["refused"] += 1

    run()
    print(counts)
    assert counts["refused"] <= MOST_REFUSED * counts["asked"]


def test_a_store_returns_what_the_law_says(store):
    turn = iter(range(10**9))

    def judge(asked, expected):
        ways = list(store.ways_to_find(asked)) if next(turn) % BATCH == 0 else [next(iter(store.ways_to_find(asked)))]
        for found in ways:
            assert len(found) == len(set(found))
            assert set(found) == expected, asked

    check(store, judge)


def test_a_store_deletes_what_the_law_says(store):
    def judge(asked, expected):
        store.delete(asked)
        try:
            assert store.ids() == set(IDS) - expected, asked
        finally:
            gone = set(IDS) - store.ids()
            if gone:
                store.add([number for number, id_ in enumerate(IDS) if id_ in gone])

    check(store, judge)
