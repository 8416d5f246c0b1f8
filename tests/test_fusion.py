"""Tests of fusion: invariants, an oracle in plain Python, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splade_integrations.fusion import Fusion

SIDES = ("dense", "sparse", "bm25")
# One side's hits: different keys, and scores in descending order.
rankings = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), unique_by=lambda hit: hit[0], max_size=12).map(
    lambda hits: ([key for key, _ in hits], sorted((float(score) for _, score in hits), reverse=True))
)
three = st.tuples(rankings, rankings, rankings)
weights = st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 1.0])] * 3).filter(any)


def oracle(sides, method, weights, k=60):
    """Return {key: score}, computed one hit at a time."""
    found = {}
    for (keys, scores), weight in zip(sides, weights, strict=True):
        for rank, (key, score) in enumerate(zip(keys, scores, strict=True), start=1):
            if method == "rrf":
                part = 1 / (k + rank)
            else:
                part = (score - scores[-1]) / (scores[0] - scores[-1]) if scores[0] != scores[-1] else 1.0
            found[key] = found.get(key, 0.0) + weight * part
    return found


@given(three, weights, st.sampled_from(["rrf", "scores"]))
def test_scores_are_those_of_the_oracle(sides, weights, method):
    keys, scores = Fusion(sides=SIDES, method=method, weights=weights).fuse(sides)
    expected = oracle(sides, method, weights)
    assert sorted(keys) == sorted(expected)
    np.testing.assert_allclose(scores, [expected[key] for key in keys], atol=1e-9)
    assert scores == sorted(scores, reverse=True)
    assert all(keys[n] < keys[n + 1] for n in range(len(keys) - 1) if scores[n] == scores[n + 1])


@given(three, weights, st.sampled_from(["rrf", "scores"]))
def test_the_order_of_sides_and_the_scale_of_scores_do_not_matter(sides, weights, method):
    one = Fusion(sides=SIDES, method=method, weights=weights).fuse(sides)
    other = Fusion(sides=SIDES[::-1], method=method, weights=weights[::-1]).fuse(sides[::-1])
    scaled = [(keys, [-3 * score + 7 for score in scores]) for keys, scores in sides]  # distances: the best is smallest
    assert one == other == Fusion(sides=SIDES, method=method, weights=weights).fuse(scaled)


@given(rankings)
def test_a_side_alone_keeps_its_order(side):
    keys, _ = Fusion(sides=("sparse",)).fuse([side])
    assert keys == side[0]


def test_no_hits_give_an_empty_ranking():
    assert Fusion(sides=SIDES).fuse([([], [])] * 3) == ([], [])
    assert Fusion(sides=("dense", "bm25")).fuse([([], []), (["b", "a"], [2.0, 1.0])])[0] == ["b", "a"]


@pytest.mark.parametrize(
    "fusion",
    [
        Fusion(sides=SIDES),
        Fusion(sides=("bm25",)),
        Fusion(sides=SIDES, method="scores", weights=(0.5, 0.0, 1.5), depth=200),
        Fusion(sides=SIDES[:2], weights=(1, 2), k=10),
    ],
)
def test_a_fusion_survives_json(fusion):
    assert Fusion.from_dict(json.loads(json.dumps(fusion.to_dict()))) == fusion == Fusion.of(fusion.to_dict())


def test_only_equal_weights_by_rank_are_plain():
    assert Fusion(sides=SIDES).plain
    assert Fusion(sides=SIDES, weights=(2, 2, 2), k=10).plain
    assert not Fusion(sides=SIDES, weights=(2, 2, 1)).plain
    assert not Fusion(sides=SIDES, method="scores").plain


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sides": ()}, "sides must be one or more different sides, got ()"),
        ({"sides": ("dense", "dense")}, "Name each side once"),
        ({"method": "rank"}, "method must be 'rrf' or 'scores', got 'rank'"),
        ({"k": 0}, "k must be a number above 0, got 0"),
        ({"k": float("nan")}, "k must be a number above 0"),
        ({"depth": True}, "depth must be an int of at least 1, got True"),
        ({"weights": (1, 2)}, r"one number for each side \(dense, sparse, bm25\), each at least 0"),
        ({"weights": (0, 0, 0)}, "and one or more above 0"),
        ({"weights": (1, -1, 1)}, "at least 0"),
        ({"weights": (1, float("inf"), 1)}, "at least 0"),
    ],
)
def test_what_is_wrong_is_named(wrong, message):
    with pytest.raises(ValueError, match=message.replace("()", r"\(\)")):
        Fusion(**{"sides": SIDES, **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sides": "bm25"}, "sides must be a list with one item for each side, got str 'bm25'"),
        ({"sides": None}, "sides must be a list"),
        ({"weights": {"dense": 1}}, "weights must be a list with one item for each side, got dict"),
        ({"weights": 0.5}, "weights must be a list"),
    ],
)
def test_what_is_no_list_is_refused(wrong, message):
    with pytest.raises(TypeError, match=message):
        Fusion(**{"sides": SIDES, **wrong})


def test_numpys_numbers_are_stored_as_plain_ones():
    fusion = Fusion(sides=SIDES, weights=np.array([1, 2, 3], np.float32))
    assert json.loads(json.dumps(fusion.to_dict()))["weights"] == [1.0, 2.0, 3.0]


def test_an_unknown_key_is_refused():
    with pytest.raises(ValueError, match="a fusion must have the key sides"):
        Fusion.from_dict({"sides": ["dense"], "wieghts": [1]})
    with pytest.raises(TypeError, match="fusion must be a Fusion or a dict, got str"):
        Fusion.of("rrf")
