"""Tests of queries: every mode against exact rankings, filters, empty questions, and what is refused."""

import asyncio

import numpy as np
import pytest
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import NodeWithScore
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from pymilvus import Function, FunctionType

from splade_integrations.llama_index import HybridMilvusVectorStore
from tests.llama_index.support import MODES, all_of, animals, any_of, ask, node, none_of, where
from tests.support.adapters import DIM

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")

QUERIES = ["run the event loop until complete", "a socket that is closed", "transport protocol"]


def both(store, query, **kwargs):
    """Return the result of a query, and assert that the sync and the async method return the same."""
    found = store.query(query, **kwargs)
    assert asyncio.run(store.aquery(query, **kwargs)) == found
    return found


@pytest.fixture(scope="module")
def prose_store(sparse, prose, tmp_path_factory):
    uri = tmp_path_factory.mktemp("prose") / "prose.db"
    store = HybridMilvusVectorStore(uri, dim=DIM, sparse_embedding_function=sparse)
    store.add([node(str(i), text) for i, text in enumerate(prose)])
    return store


@pytest.fixture(scope="module")
def exact(dense, encoder, prose):
    """Return the (dense, sparse) scores of a query against all prose. Only numpy and scipy compute them."""
    vectors, weights = np.array(dense.get_text_embedding_batch(prose)), encoder.encode_documents(prose)

    def scores(query):
        dense_scores = vectors @ dense.get_query_embedding(query)
        return dense_scores, (weights @ encoder.encode_queries([query]).T).toarray()[:, 0]

    return scores


@pytest.mark.parametrize("mode", ["hybrid", "semantic_hybrid"])
@pytest.mark.parametrize("k", [4, 10])
@pytest.mark.parametrize("text", QUERIES)
def test_hybrid_is_reciprocal_rank_fusion_of_both_exact_rankings(prose_store, exact, text, k, mode):
    fused = dict.fromkeys(range(150), 0.0)
    for side in exact(text):
        for rank, position in enumerate(np.argsort(-side, kind="stable")[:100], start=1):
            if side[position] != 0:
                fused[position] += 1 / (60 + rank)
    found = both(prose_store, ask(text, mode, k=k))
    # Ties may be in any order. So the test compares the best k scores, and each node's score with its exact score.
    np.testing.assert_allclose(found.similarities, sorted(fused.values(), reverse=True)[:k], atol=1e-7)
    np.testing.assert_allclose(found.similarities, [fused[int(id_)] for id_ in found.ids], atol=1e-7)


@pytest.mark.parametrize(("mode", "side"), [("default", 0), ("sparse", 1), ("text_search", 1)])
def test_one_side_alone_is_its_exact_ranking(prose_store, exact, prose, mode, side):
    for text in QUERIES:
        scores = exact(text)[side]
        found = both(prose_store, ask(text, mode, k=7))
        best = np.argsort(-scores, kind="stable")[:7]
        assert [int(id_) for id_ in found.ids] == best.tolist()
        assert [found_node.text for found_node in found.nodes] == [prose[position] for position in best]
        np.testing.assert_allclose(found.similarities, scores[best], rtol=1e-4)


def test_the_default_mode_is_dense_and_says_so_at_the_class(prose_store):
    text = QUERIES[0]
    assert prose_store.query(ask(text, "default")).ids == prose_store.query(ask(text, "default", query_str=None)).ids
    assert "`default` searches **only the dense side**" in HybridMilvusVectorStore.__doc__


def test_a_query_may_choose_its_candidates_and_results(prose_store):
    text = QUERIES[0]
    assert len(prose_store.query(ask(text, k=10)).ids) == 10
    assert len(prose_store.query(ask(text, k=10, sparse_top_k=3)).ids) <= 6
    assert prose_store.query(ask(text, k=2, hybrid_top_k=7)).ids == prose_store.query(ask(text, k=7)).ids


def test_mmr_trades_relevance_for_novelty(prose_store, exact, dense, prose):
    text = QUERIES[0]
    relevant = both(prose_store, ask(text, "mmr", k=5, mmr_threshold=1.0), mmr_prefetch_k=150)
    scores = exact(text)[0]
    fused = prose_store.query(ask(text, k=150)).ids
    best = sorted((int(id_) for id_ in fused), key=lambda position: -scores[position])[:5]
    assert [int(id_) for id_ in relevant.ids] == best
    np.testing.assert_allclose(relevant.similarities, scores[best], atol=1e-5)

    def likeness(found):
        vectors = np.array([dense.get_text_embedding(prose[int(id_)]) for id_ in found.ids])
        return (vectors @ vectors.T).sum()

    novel = both(prose_store, ask(text, "mmr", k=5), mmr_threshold=0.1, mmr_prefetch_factor=20)
    assert likeness(novel) < likeness(relevant)
    assert all(found.embedding is None for found in novel.nodes)


def test_the_ranker_is_an_option(sparse, dense, prose, prose_store):
    def opened(**options):
        return HybridMilvusVectorStore(prose_store.uri, sparse_embedding_function=sparse, **options)

    text = QUERIES[0]
    weighted = opened(hybrid_ranker="WeightedRanker", hybrid_ranker_params={"weights": [0.0, 1.0]})
    assert weighted.query(ask(text, k=5)).ids == prose_store.query(ask(text, "sparse", k=5)).ids
    for alpha, mode in [(0.0, "sparse"), (1.0, "default")]:
        assert weighted.query(ask(text, k=5, alpha=alpha)).ids == prose_store.query(ask(text, mode, k=5)).ids
    assert max(opened(hybrid_ranker_params={"k": 1}).query(ask(text)).similarities) > 2 / 61
    with pytest.raises(ValueError, match=r"alpha must be None with hybrid_ranker='RRFRanker'.* got 0\.5"):
        prose_store.query(ask(text, alpha=0.5))
    for options, message in [
        ({"hybrid_ranker": "no"}, "must be 'RRFRanker' or 'WeightedRanker', got 'no'"),
        ({"hybrid_ranker_params": {"weights": [1, 1]}}, "must hold only 'k' .* got 'weights'"),
        (
            {"hybrid_ranker": "WeightedRanker", "hybrid_ranker_params": {"weights": [1]}},
            r"one number from 0 to 1 for each side \(dense, sparse\), got",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            opened(**options)


def test_a_usual_cutoff_drops_what_is_fused_as_the_class_says(prose_store):
    found = prose_store.query(ask(QUERIES[0]))
    scored = zip(found.nodes, found.similarities, strict=True)
    hits = [NodeWithScore(node=one, score=score) for one, score in scored]
    assert SimilarityPostprocessor(similarity_cutoff=0.5).postprocess_nodes(hits) == []
    assert "similarity_cutoff=0.5" in HybridMilvusVectorStore.__doc__


# Filters


@pytest.mark.parametrize("mode", MODES)
def test_filters_bind_every_side(store, mode):
    store.add(animals())
    legs = all_of(where("legs", 4))
    assert set(both(store, ask("cats, dogs and spiders", mode, filters=legs)).ids) == {"cat", "dog"}
    assert both(store, ask("sparrows sing", mode, filters=all_of(where("colour", "brown")))).ids == ["sparrow"]
    assert both(store, ask("dogs bark", mode, doc_ids=["dog-book"])).ids == ["dog"]
    assert both(store, ask("dogs bark", mode, node_ids=["dog"])).ids == ["dog"]
    assert both(store, ask("dogs bark", mode, node_ids=["dog", "spider"], filters=legs)).ids == ["dog"]
    assert both(store, ask("dogs bark", mode, doc_ids=["dog-book", "cat-book"], node_ids=["cat"])).ids == ["cat"]
    for nothing in ({"doc_ids": []}, {"node_ids": ["no"]}, {"doc_ids": ["no"]}, {"filters": all_of(where("legs", 5))}):
        assert both(store, ask("dogs bark", mode, **nothing)).ids == []
    assert both(store, ask("dogs bark", mode, node_ids=[])).ids, "a retriever passes [] if it allows any node"


def test_the_conditions_nest(store):
    store.add(animals())

    def found(filters):
        return set(both(store, ask("cats, dogs, sparrows and spiders", filters=filters)).ids)

    assert found(none_of(where("legs", 4))) == {"sparrow", "spider"}
    assert found(none_of(where("legs", 4), where("legs", 8))) == {"sparrow"}
    assert found(any_of(where("legs", 8), all_of(where("legs", 4), where("home", operator="is_empty")))) == {
        "spider",
        "dog",
    }
    assert found(all_of(none_of(where("legs", 2)), any_of(where("legs", 4), where("legs", 2)))) == {"cat", "dog"}
    assert found(all_of()) == {"cat", "dog", "sparrow", "spider"}


def test_an_expression_of_milvus(store):
    store.add(animals())
    query = ask("cats, dogs")
    for expr in ("legs == 4", 'metadata["legs"] == 4'):
        assert set(both(store, query, string_expr=expr).ids) == {"cat", "dog"}
    with pytest.raises(ValueError, match="string_expr must be given without filters"):
        store.query(ask("x", filters=all_of(where("legs", 4))), string_expr='metadata["legs"] == 4')


def test_a_filter_without_its_value_is_refused(store):
    """Such a filter was once ignored, so the nodes of all tenants were found."""
    store.add([node("a", "alpha", {"tenant": "a"}), node("b", "alpha", {"tenant": "b"}), node("c", "alpha")])
    for operator in ("==", "!=", ">", "in", "contains", "text_match"):
        with pytest.raises(ValueError, match=f"the filter on key 'tenant' must have a value for operator '{operator}'"):
            store.query(ask("alpha", filters=all_of(where("tenant", None, operator))))
    assert both(store, ask("alpha", filters=all_of(where("tenant", operator="is_empty")))).ids == ["c"]


@pytest.mark.parametrize("condition", [any_of, none_of])
def test_an_empty_group_is_refused(store, condition):
    with pytest.raises(ValueError, match="filters must hold at least one filter for condition"):
        store.query(ask("x", filters=condition()))
    with pytest.raises(ValueError, match=r"filters\.filters\[1\] must hold at least one filter"):
        store.query(ask("x", filters=all_of(where("legs", 4), condition())))


def test_not_is_the_complement(store):
    store.add(animals())
    assert set(both(store, ask("dogs", filters=none_of(where("colour", "brown")))).ids) == {"cat", "dog", "spider"}
    assert both(store, ask("dogs", filters=none_of(none_of(where("colour", "brown"))))).ids == ["sparrow"]


def test_is_empty(store):
    values = {
        "absent": {},
        "null": {"x": None},
        "blank": {"x": ""},
        "list": {"x": []},
        "zero": {"x": 0},
        "a": {"x": "a"},
    }
    store.add([node(name, "alpha", metadata) for name, metadata in values.items()])
    found = both(store, ask("alpha", k=9, filters=all_of(where("x", operator="is_empty"))))
    assert set(found.ids) == {"absent", "null", "blank", "list"}
    found = both(store, ask("alpha", k=9, filters=none_of(where("x", operator="is_empty"))))
    assert set(found.ids) == {"zero", "a"}


@pytest.mark.parametrize("key", ["doc_id", "document_id", "ref_doc_id", "id", "text", "embedding", "metadata"])
def test_a_key_that_is_named_like_a_field_is_a_key_like_any_other(store, key):
    made = [node("a", "alpha", {key: "mine"}, ref_doc_id="book"), node("b", "alpha", {key: "other"}, ref_doc_id="mine")]
    store.add(made)
    found = both(store, ask("alpha", filters=all_of(where(key, "mine"))))
    assert found.ids == ["a"]
    assert found.nodes[0].metadata == {key: "mine"}
    assert found.nodes[0].ref_doc_id == "book"


def test_a_list_under_a_key_breaks_no_filter_on_it(store):
    """milvus-lite once failed for every `in` on the key, with "unhashable type: 'list'"."""
    store.add([node("a", "alpha", {"tag": "a"}), node("both", "alpha", {"tag": ["a", "b"]}), node("c", "alpha")])

    def found(value, operator):
        return set(both(store, ask("alpha", filters=all_of(where("tag", value, operator)))).ids)

    assert found(["a", "x"], "in") == {"a"}
    assert found(["a", "x"], "nin") == {"both", "c"}
    assert found("a", "contains") == found(["a", "x"], "any") == found(["a", "b"], "all") == {"both"}


FILES = ["C:\\scans\\a.txt", "docs\\new.txt", "it's", 'say "hi"', "100%_sure", "naïve café.md"]


@pytest.mark.parametrize("name", FILES)
def test_a_filter_on_a_path_or_a_name_with_quotes(store, name):
    store.add([node(str(i), "alpha", {"file_path": other}) for i, other in enumerate([*FILES, "docs/new.txt"])])
    assert both(store, ask("alpha", k=9, filters=all_of(where("file_path", name)))).ids == [str(FILES.index(name))]
    found = both(store, ask("alpha", k=9, filters=all_of(where("file_path", [name, "no"], "in")))).ids
    assert found == [str(FILES.index(name))]
    others = both(store, ask("alpha", k=9, filters=all_of(where("file_path", name, "!=")))).ids
    assert len(others) == 6
    assert str(FILES.index(name)) not in others


# Questions


def test_a_blank_question_is_answered_by_the_sides_that_can(store):
    store.add(animals())
    for text in ("", "  "):
        by_dense = both(store, ask(text, "default")).ids
        assert set(by_dense) == {"cat", "dog", "sparrow", "spider"}
        assert both(store, ask(text)).ids == by_dense
        assert both(store, ask(text, "sparse")).ids == []
        # For an empty question, a retriever makes a query without an embedding.
        for mode in [*MODES, "mmr"]:
            assert both(store, ask(text, mode, query_embedding=None)).ids == []


def test_a_blank_text_is_stored_and_never_found_by_its_words(store):
    store.add([*animals(), node("empty", ""), node("spaces", "   ")])
    assert len(store.get_nodes(["empty", "spaces"])) == 2
    for text in ("What can you do", "is a means of", "dogs"):
        assert not {"empty", "spaces"} & set(both(store, ask(text, "sparse", k=9)).ids)


def test_a_query_without_what_its_mode_needs_is_refused(store):
    for mode in ("sparse", "text_search", "hybrid", "semantic_hybrid"):
        with pytest.raises(ValueError, match=f"query_str must be given for mode '{mode}', got None"):
            store.query(ask("x", mode, query_str=None))
    for mode in ("default", "hybrid", "mmr"):
        with pytest.raises(ValueError, match=f"query_embedding must be given for mode '{mode}', got None"):
            store.query(ask("x", mode, query_embedding=None))


@pytest.mark.parametrize("mode", ["svm", "linear_regression", "logistic_regression"])
def test_a_mode_that_there_is_not_is_refused_by_name(store, mode):
    with pytest.raises(ValueError, match=f"mode must be one of 'default', .*'mmr', got '{mode}'"):
        store.query(ask("x", mode))
    with pytest.raises(ValueError, match="mode must be one of"):
        asyncio.run(store.aquery(ask("x", mode)))
    assert VectorStoreQueryMode(mode)


def test_what_a_query_cannot_use_is_refused(store):
    for message, fields in [
        ("output_fields must be None", {"output_fields": ["legs"]}),
        ("embedding_field of a query must be None, got 'other'", {"embedding_field": "other"}),
        ("sparse_top_k must be None in mode 'default'", {"sparse_top_k": 5, "mode": "default"}),
        ("hybrid_top_k must be None in mode 'sparse'", {"hybrid_top_k": 5, "mode": "sparse"}),
        ("alpha must be None in mode 'sparse'", {"alpha": 0.5, "mode": "sparse"}),
        ("mmr_threshold must be given only in mode 'mmr'", {"mmr_threshold": 0.5}),
        ("mmr_threshold must be a number from 0 to 1, got 2", {"mmr_threshold": 2, "mode": "mmr"}),
        ("k must be an int from 1", {"k": 0}),
    ]:
        with pytest.raises(ValueError, match=message):
            store.query(ask("x", **fields))
    store.add(animals())
    for keyword in ("milvus_partition_name", "filter", "milvus_scalar_filters"):
        with pytest.raises(
            TypeError, match=f"known keywords, got '{keyword}'. Use one of these: fusion, group_by, milvus_part"
        ):
            store.query(ask("x"), **{keyword: "x"})
    with pytest.raises(ValueError, match="mmr_prefetch_k and mmr_prefetch_factor must not be given together, got both"):
        store.query(ask("x", "mmr"), mmr_prefetch_k=5, mmr_prefetch_factor=2)
    with pytest.raises(ValueError, match="'nowhere'"):
        store.query(ask("x"), milvus_partition_names=["nowhere"])


def test_the_best_node_of_each_document(store):
    chunks = [
        node(f"{book}{i}", f"dogs bark {i}", {"shelf": i % 2}, ref_doc_id=book) for book in "abc" for i in range(9)
    ]
    store.add([*chunks, node("lone", "dogs bark alone"), node("other", "dogs bark too")])
    for mode in [*MODES, "mmr"]:
        found = both(store, ask("dogs bark", mode, k=5), group_by="doc_id")
        assert sorted(one.ref_doc_id or one.node_id for one in found.nodes) == ["a", "b", "c", "lone", "other"]
    found = both(store, ask("dogs bark", k=3), group_by="doc_id")
    assert len({one.ref_doc_id or one.node_id for one in found.nodes}) == 3
    found = both(store, ask("dogs bark", k=2, filters=all_of(where("shelf", [0, 1], "in"))), group_by="shelf")
    assert [one.metadata["shelf"] for one in found.nodes] in ([0, 1], [1, 0])


def test_bm25_is_a_third_side(word_counts, place):
    store = HybridMilvusVectorStore(**place, dim=DIM, sparse_embedding_function=word_counts, bm25=True)
    store.add([node("a", "alpha beta"), node("b", "beta gamma"), node("c", "gamma delta")])
    assert both(store, ask("alpha", "text_search", query_embedding=None)).ids == ["a"]
    # BM25 lowercases words. The sparse embedding of this test does not.
    assert both(store, ask("ALPHA", "text_search")).ids == ["a"]
    assert both(store, ask("ALPHA", "sparse")).ids == []
    scores = [both(store, ask("alpha", mode)).similarities[0] for mode in ("hybrid", "semantic_hybrid")]
    assert scores[0] > scores[1]
    assert set(both(store, ask("alpha", "mmr")).ids) == {"a", "b", "c"}
    assert both(store, ask("alpha", filters=all_of(where("x", 1)))).ids == []
    weighted = HybridMilvusVectorStore(
        **place,
        sparse_embedding_function=word_counts,
        bm25=True,
        hybrid_ranker="WeightedRanker",
        hybrid_ranker_params={"weights": [0, 0, 1]},
    )
    assert both(weighted, ask("gamma delta", k=1)).ids == ["c"]
    assert both(weighted, ask("gamma delta", "semantic_hybrid", alpha=0.5, k=1)).ids
    with pytest.raises(ValueError, match=r"for each side \(dense, sparse, bm25\), got \[0\.5, 0\.5\]"):
        weighted.query(ask("x", alpha=0.5))


def test_one_side_stores(sparse, dense, tmp_path):
    lone = HybridMilvusVectorStore(tmp_path / "sparse.db", enable_dense=False, sparse_embedding_function=sparse)
    made = animals()
    for one in made:
        one.embedding = None
    assert not lone.is_embedding_query
    lone.add(made)
    assert both(lone, ask("a dog that barks", "default", k=1, query_embedding=None)).ids == ["dog"]
    with pytest.raises(ValueError, match=r"mode 'hybrid' must be used with a store that has a dense side, got"):
        lone.query(ask("x"))
    other = HybridMilvusVectorStore(tmp_path / "dense.db", dim=DIM, enable_sparse=False)
    other.add(animals())
    assert both(other, ask("Dogs bark at strangers.", "default", k=1, query_str=None)).ids
    with pytest.raises(ValueError, match="must be used with a store that has a sparse side"):
        other.query(ask("x", "sparse"))
    words = HybridMilvusVectorStore(tmp_path / "words.db", enable_dense=False, enable_sparse=False, bm25=True)
    words.add(made)
    assert both(words, ask("bark", "default", query_embedding=None)).ids == ["dog"]


def test_many_queries_are_answered_as_one_by_one(prose_store, prose):
    queries = [ask(text[:30], mode, k=3) for text in prose[:4] for mode in ("hybrid", "sparse", "default")]
    queries.append(ask("", "hybrid", k=3))
    alone = [prose_store.query(query) for query in queries]
    for found in (prose_store.query_many(queries), asyncio.run(prose_store.aquery_many(queries))):
        assert [one.ids for one in found] == [one.ids for one in alone]
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_allclose(one.similarities, other.similarities, atol=1e-6)
    assert prose_store.query_many([]) == []


def test_a_query_may_choose_its_fusion(word_counts, place):
    store = HybridMilvusVectorStore(**place, dim=DIM, sparse_embedding_function=word_counts, bm25=True)
    store.add([node(str(number), text) for number, text in enumerate(["alpha beta", "beta gamma", "gamma delta"])])
    only_words = {"sides": ["bm25", "sparse"], "method": "scores", "weights": [1, 0]}
    found = both(store, ask("gammas", "hybrid", k=3), fusion=only_words)
    assert found.similarities[0] == 1.0
    assert set(found.ids) == {"1", "2"}  # BM25 stems words, and no side finds "0"
    weighted = Function("weighted", FunctionType.RERANK, [], params={"reranker": "weighted", "weights": [0, 1, 0]})
    ranked = both(store, ask("alpha", "hybrid", k=3), reranker=weighted)
    assert ranked.ids[0] == "0"
    for mode, wrong in [
        ("sparse", {"fusion": only_words}),
        ("default", {"reranker": weighted}),
        ("hybrid", {"fusion": only_words, "reranker": weighted}),
    ]:
        with pytest.raises(ValueError, match="one of fusion and reranker may be given, and only in mode 'hybrid'"):
            store.query(ask("alpha", mode), **wrong)
    with pytest.raises(ValueError, match="may have depth, k, method, weights"):
        store.query(ask("alpha", "hybrid"), fusion={"sides": ["bm25"], "wieghts": [1]})


def test_mmr_says_what_its_fusion_needs(prose_store):
    only_words = {"sides": ["sparse"]}
    with pytest.raises(ValueError, match="query_embedding must be given for mode 'mmr'"):
        prose_store.query(ask("water", "mmr", query_embedding=None), fusion=only_words)
    with pytest.raises(ValueError, match="query_str must be given for mode 'mmr'"):
        prose_store.query(ask("water", "mmr", query_str=None), fusion=only_words)
    with pytest.raises(ValueError, match=r"this store's sides \(dense, sparse\), got 'colbert'"):
        prose_store.query(ask("water"), fusion={"sides": ["dense", "colbert"]})
    with pytest.raises(ValueError, match="alpha must be None with"):
        prose_store.query(ask("water", alpha=0.5), fusion={"sides": ["dense", "sparse"]})
