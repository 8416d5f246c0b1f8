"""Tests of searches over three sides, and of their fusion, in real collections."""

import asyncio
import importlib.metadata
import uuid
from dataclasses import replace

import numpy as np
import pytest
from pymilvus import MilvusClient, RRFRanker

from splade_integrations.fusion import Fusion
from splade_integrations.milvus.bm25 import split_words
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.rows import Row
from splade_integrations.milvus.schema import Schema
from tests.support.places import PLACES, server_or_skip

LITE2 = importlib.metadata.version("milvus-lite").startswith("2.")
SIDES = ("dense", "sparse", "bm25")
WORDS = ["running", "runs", "cats", "cat", "houses", "house", "the", "and", "painted", "painting", "über", "naïve"]
COUNT = 60
FUSIONS = [
    Fusion(sides=SIDES),
    Fusion(sides=SIDES, k=3),
    Fusion(sides=SIDES, weights=(0.2, 0.5, 1.0)),
    Fusion(sides=SIDES, method="scores"),
    Fusion(sides=SIDES, method="scores", weights=(0.6, 0.0, 0.4)),
    Fusion(sides=("sparse", "bm25"), method="scores", weights=(0.3, 0.7)),
    Fusion(sides=("bm25", "dense")),
]


@pytest.fixture(scope="module", params=PLACES)
def connection(request, tmp_path_factory):
    if request.param == "milvus-lite":
        return Connection(str(tmp_path_factory.mktemp("fused") / "fused.db"))
    where = server_or_skip()
    return Connection(where["uri"], {"token": where["token"]})


def made_up_rows():
    random = np.random.default_rng(3)
    rows = []
    for number in range(COUNT):
        terms = {int(term): float(random.integers(1, 4)) for term in random.choice(8, 3, replace=False)}
        text = " ".join(random.choice(WORDS, 6)) if number % 10 else " .. "
        metadata = {"even": number % 2 == 0, "source": f"s{number % 7}"}
        rows.append(Row(id=f"{number:03}", text=text, dense=random.random(4).tolist(), sparse=terms, metadata=metadata))
    return rows


def opened(connection, name, **how):
    schema = Schema(**{"bm25_field": "bm25", **how.pop("schema", {})})
    return Collection(name, schema, connection, create_options={"consistency_level": "Strong"}, **how)


@pytest.fixture(scope="module")
def collection(connection):
    made = opened(connection, f"fused_{uuid.uuid4().hex}")
    made.write(made_up_rows())
    yield made
    made.drop()


QUERIES = {"dense": [0.9, 0.1, 0.4, 0.2], "sparse": {1: 1.0, 5: 2.0}, "bm25": "painted the houses"}


def pairs(hits):
    return [(hit.id, round(hit.score, 6)) for hit in hits]


def fused(collection, fusion, depth, **how):
    """Search each side alone, and fuse the hits."""
    sides = []
    for side in fusion.sides:
        hits = collection.search({side: QUERIES[side]}, k=depth, **how)
        sides.append(([hit.id for hit in hits], [hit.score for hit in hits]))
    return [(key, round(score, 6)) for key, score in zip(*fusion.fuse(sides), strict=True)]


def search(collection, fusion, **how):
    queries = {side: QUERIES[side] for side in fusion.sides}
    hits = collection.search(queries, ranker=fusion, **how)
    assert pairs(asyncio.run(collection.asearch(queries, ranker=fusion, **how))) == pairs(hits)
    return hits


@pytest.mark.parametrize("fusion", FUSIONS, ids=str)
@pytest.mark.parametrize("depth", [7, 40])
def test_a_fused_search_is_the_fusion_of_its_sides(collection, fusion, depth):
    expected = fused(collection, fusion, depth)
    found = search(collection, fusion, k=10, depth=depth)
    if LITE2 and fusion.plain:  # the hybrid search of milvus-lite 2 does not sort equal scores by key
        assert {score for _, score in pairs(found)} == {score for _, score in expected[:10]}
        return
    assert pairs(found) == expected[:10]
    stored = {row.id: row for row in made_up_rows()}
    assert all((hit.text, hit.metadata) == (stored[hit.id].text, stored[hit.id].metadata) for hit in found)
    assert pairs(search(collection, fusion, k=10, depth=depth, ids_only=True)) == expected[:10]
    assert pairs(search(collection, fusion, k=5, depth=depth, options={"offset": 3})) == expected[3:8]
    # If more results are asked for than there are candidates, exactly the candidates are returned.
    assert pairs(search(collection, fusion, k=100, depth=depth)) == expected
    where = {"even": True}
    assert (
        pairs(search(collection, fusion, k=10, depth=depth, filter=where))
        == fused(collection, fusion, depth, filter=where)[:10]
    )


@pytest.mark.parametrize("depth", [5, 100])
@pytest.mark.parametrize("fusion", [*FUSIONS[1:4]], ids=str)
def test_groups_keep_their_best_hit(collection, fusion, depth):
    """Grouping must not change the order, which depends on the depth."""
    ranked = search(collection, fusion, k=COUNT, depth=depth)
    best = {}
    for hit in ranked:
        best.setdefault(hit.metadata["source"], hit.id)
    found = search(collection, fusion, k=3, depth=depth, group_by="source")
    assert [hit.id for hit in found] == list(best.values())[:3]
    stated = replace(fusion, depth=depth)
    assert [hit.id for hit in search(collection, stated, k=3, group_by="source")] == list(best.values())[:3]


def test_the_engines_own_fusion_is_ours(collection):
    own = collection.search(QUERIES, k=20, depth=30, ranker=RRFRanker(60))
    ours = fused(collection, Fusion(sides=SIDES), 30)[:20]
    assert [score for _, score in pairs(own)] == pytest.approx([score for _, score in ours], abs=1e-6)
    if not LITE2:
        assert [hit.id for hit in own] == [key for key, _ in ours]


def test_dense_vectors_come_back(collection):
    [hit] = search(collection, FUSIONS[2], k=1, with_dense=True)
    assert hit.dense == pytest.approx(made_up_rows()[int(hit.id)].dense, abs=1e-6)


def test_a_side_without_words_leaves_the_others(collection):
    fusion = Fusion(sides=SIDES, method="scores", weights=(0.5, 0.3, 0.2))
    for blank in ("", "the and", "?!"):
        queries = {**QUERIES, "bm25": blank, "sparse": {}}
        found = collection.search(queries, k=5, ranker=fusion)
        assert [hit.id for hit in found] == [hit.id for hit in collection.search({"dense": QUERIES["dense"]}, k=5)]
    assert collection.search({"bm25": "the and"}, k=5) == []


def test_bm25_stems_words_and_drops_stop_words(collection):
    stems = {row.id: set(split_words(row.text)) for row in made_up_rows()}
    assert {hit.id for hit in collection.search({"bm25": "a house"}, k=COUNT)} == {
        key for key, words in stems.items() if "hous" in words
    }
    scores = [hit.score for hit in collection.search({"bm25": "a house"}, k=COUNT)]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0


@pytest.mark.skipif(LITE2, reason="milvus-lite 2 does not say which fields its functions fill")
def test_a_writer_without_bm25_fills_its_words(collection, connection):
    plain = opened(connection, collection.name, schema={"bm25_field": None})
    plain.write([Row(id="new", text="Zebras were painted.", dense=[0.0] * 3 + [1.0], sparse={7: 1.0})])
    try:
        assert [hit.id for hit in collection.search({"bm25": "zebra"})] == ["new"]
        [read] = plain.get(["new"])
        assert (read.text, read.metadata) == ("Zebras were painted.", {})
    finally:
        collection.delete(ids=["new"])


def test_a_fusion_must_be_of_the_sides_that_are_searched(collection):
    with pytest.raises(ValueError, match=r"exactly the sides that are searched \(dense\), got a fusion of dense, s"):
        collection.search({"dense": QUERIES["dense"]}, ranker=Fusion(sides=("dense", "sparse")))


@pytest.mark.skipif(LITE2, reason="milvus-lite 2 cannot change a collection's properties")
def test_a_stored_fusion_is_followed_until_it_is_removed(collection, connection):
    fusion = Fusion(sides=("dense", "bm25"), method="scores", weights=(0.7, 0.3), depth=50)
    assert collection.fusion == Fusion(sides=SIDES)
    collection.record_fusion(fusion)
    try:
        assert collection.fusion == fusion == opened(connection, collection.name).fusion
        own = Fusion(sides=SIDES, k=5)
        assert opened(connection, collection.name, fusion=own).fusion == own
        lacking = opened(connection, collection.name, schema={"bm25_field": None})
        with pytest.raises(ValueError, match=r"sides that were opened \(dense, sparse\), got a fusion of dense, bm25"):
            assert lacking.fusion
    finally:
        collection.record_fusion(None)
    assert opened(connection, collection.name).fusion == Fusion(sides=SIDES)


@pytest.mark.skipif(not LITE2, reason="only milvus-lite 2 cannot change a collection's properties")
def test_milvus_lite_2_cannot_store_a_fusion(collection):
    with pytest.raises(ValueError, match="must be on milvus-lite 3 or a server"):
        collection.record_fusion(Fusion(sides=SIDES))


def test_a_collection_keeps_its_language(connection):
    name = f"german_{uuid.uuid4().hex}"
    german = opened(connection, name, schema={"bm25_analyzer": "german"})
    try:
        german.write([Row(id="a", text="Die Katzen laufen", dense=[1.0, 0.0], sparse={1: 1.0})])
        assert [hit.id for hit in german.search({"bm25": "Katze"})] == ["a"]
        assert [hit.id for hit in opened(connection, name).search({"bm25": "Katze"})] == ["a"]
        if LITE2:  # milvus-lite 2 does not return the functions of a collection
            return
        with pytest.raises(ValueError, match=r"bm25 must be the analyzer of collection .* \('german'\), got 'english'"):
            opened(connection, name, schema={"bm25_analyzer": "english"})
    finally:
        MilvusClient.drop_collection(connection.client, name)


@pytest.mark.parametrize("fusion", [*FUSIONS, Fusion(sides=("bm25",))], ids=str)
def test_many_queries_are_answered_as_one_by_one(collection, fusion):
    random = np.random.default_rng(5)
    queries = []
    for number in range(20):
        whole = {
            "dense": random.random(4).tolist(),
            "sparse": {} if number % 7 == 3 else {int(random.integers(0, 8)): 1.0},
            "bm25": "the" if number % 5 == 2 else str(random.choice(WORDS)),
        }
        queries.append({side: whole[side] for side in fusion.sides})
    how = {"ranker": fusion, "k": 8, "depth": 20, "filter": {"even": True}}
    expected = [collection.search(one, **how) for one in queries]
    for found in (collection.search_many(queries, **how), asyncio.run(collection.asearch_many(queries, **how))):
        for many, alone in zip(found, expected, strict=True):  # the engine's sums differ in the last digit
            assert [hit.score for hit in many] == pytest.approx([hit.score for hit in alone], abs=1e-5)
            if not (LITE2 and fusion.plain):  # the hybrid search of milvus-lite 2 does not sort equal scores by key
                assert [hit.id for hit in many] == [hit.id for hit in alone]
    grouped = {**how, "group_by": "source"}
    assert [pairs(hits) for hits in collection.search_many(queries[:4], **grouped)] == [
        pairs(collection.search(one, **grouped)) for one in queries[:4]
    ]
    assert collection.search_many([]) == []


def test_offsets_and_decimals_must_make_sense(collection):
    for options in ({"offset": -1}, {"offset": None}, {"round_decimal": 20}, {"round_decimal": None}):
        with pytest.raises(ValueError, match="offset must be an int of at least 0, and round_decimal an int from -1"):
            collection.search(QUERIES, options=options)


@pytest.mark.skipif(LITE2, reason="milvus-lite 2 splits words itself")
@pytest.mark.parametrize(
    ("text", "question", "language"),
    [
        ("मेरी पुस्तक नई है", "मेरी", "hindi"),
        ("une tasse de cafe\u0301", "café", "french"),
        ("İstanbul güzel", "istanbul", "turkish"),
        ("كَتَبَ الكِتَاب", "كتب", "arabic"),
        ("schöne Häuser", "Ha\u0308user", "german"),
    ],
)
def test_words_of_other_languages_are_found(text, question, language):
    assert set(split_words(question, language)) & set(split_words(text, language))


def test_a_language_that_the_engine_cannot_stem_is_refused_before_anything_is_made(connection):
    if connection.engine.name == "LITE3":
        pytest.skip("milvus-lite 3 stems nothing, so this package does")
    collection = opened(connection, f"hindi_{uuid.uuid4().hex}", schema={"bm25_analyzer": "hindi"})
    with pytest.raises(ValueError, match="bm25 must be one of the languages that Milvus stems"):
        collection.write(made_up_rows())
    assert not collection.exists()


@pytest.mark.skipif(not LITE2, reason="a server's analyzers, in milvus-lite 2")
@pytest.mark.parametrize(
    "language", ["danish", "dutch", "finnish", "french", "greek", "romanian", "tamil", "turkish", "swedish"]
)
def test_milvus_has_an_analyzer_for_each_language(connection, language):
    collection = opened(connection, f"{language}_{uuid.uuid4().hex}", schema={"bm25_analyzer": language})
    collection.write([Row(id="a", text="zebra 123", dense=[1.0, 0.0], sparse={1: 1.0})])
    assert [hit.id for hit in collection.search({"bm25": "123"})] == ["a"]
