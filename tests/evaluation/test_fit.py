"""Tests of fitting a fusion: what is chosen, on which queries, and what is reported."""

import dataclasses

import numpy as np
import pytest

from splade_integrations.evaluation.dataset import Dataset
from splade_integrations.evaluation.fit import LEAST_QUERIES, fit, fusions_to_try
from splade_integrations.evaluation.measures import per_query
from splade_integrations.evaluation.ranking import Ranking
from splade_integrations.fusion import Fusion

DOCUMENTS = 200
SIDES = ("dense", "sparse", "bm25")


def made_up(queries=120, seed=0, **quality):
    """Return a dataset with one relevant document per query, and rankings that find it with a given probability."""
    random = np.random.default_rng(seed)
    relevant = random.integers(0, DOCUMENTS, queries)
    ids = [f"q{seed}-{number}" for number in range(queries)]
    dataset = Dataset(
        name="made up",
        document_ids=[str(row) for row in range(DOCUMENTS)],
        documents=["text"] * DOCUMENTS,
        query_ids=ids,
        queries=["question"] * queries,
        qrels={query: {str(row): 1} for query, row in zip(ids, relevant, strict=True)},
    )
    found = {}
    for side, probability in quality.items():
        found[side] = []
        for row in relevant:
            rows = [int(other) for other in random.permutation(DOCUMENTS)[:30] if other != row]
            if random.random() < probability:
                rows.insert(int(random.integers(0, 3)), int(row))
            found[side].append(Ranking(rows, sorted(random.random(len(rows)).tolist(), reverse=True)))
    return dataset, found


def mean(dataset, rankings):
    return per_query(dataset, rankings, ["nDCG@10"])["nDCG@10"].mean()


def test_one_side_is_enough_where_the_others_find_nothing():
    dataset, found = made_up(dense=0.8, sparse=0.02, bm25=0.02)
    chosen = fit(dataset, found, {}, measure="nDCG@10", depth=30)
    assert chosen.fusion == Fusion(sides=("dense",), depth=30)
    assert chosen.value >= mean(dataset, found["dense"]) - 0.005
    assert chosen.value > chosen.others["dense + sparse + bm25, by rank"] + 0.1


def test_sides_that_complete_each_other_are_fused():
    dataset, found = made_up(dense=0.6, sparse=0.6, bm25=0.6)
    chosen = fit(dataset, found, {}, measure="nDCG@10", depth=30)
    assert chosen.fusion.sides == SIDES
    assert chosen.value > max(chosen.others[side] for side in SIDES) + 0.05
    assert chosen.value >= chosen.others["dense + sparse + bm25, by rank"]
    assert chosen.others["dense"] == pytest.approx(mean(dataset, found["dense"]))
    assert chosen.interval[0] < chosen.value < chosen.interval[1]


def test_nothing_is_chosen_on_the_queries_that_are_reported():
    test, found = made_up(dense=0.1, sparse=0.9)
    train, other = made_up(seed=1, dense=0.9, sparse=0.1)  # the opposite of the test split
    chosen = fit(dataclasses.replace(test, train=train), found, other, measure="nDCG@10", depth=30)
    assert chosen.fusion.sides[0] == "dense"
    assert chosen.fusion.weights is None or chosen.fusion.weights[0] > 0.5
    assert chosen.value < chosen.others["sparse"]
    assert chosen.chosen_on == "120 train queries"


def test_luck_is_no_gain():
    """All sides are equally bad. If the best figure were reported, it would be too high by luck."""
    gains = []
    for seed in range(8):
        dataset, found = made_up(queries=60, seed=seed, dense=0.1, sparse=0.1, bm25=0.1)
        chosen = fit(dataset, found, {}, measure="nDCG@10", depth=30)
        gains.append(chosen.value - np.mean([chosen.others[side] for side in SIDES]))
    assert np.mean(gains) < 0.06


def test_too_few_queries_are_refused():
    dataset, found = made_up(queries=LEAST_QUERIES - 1, dense=0.5, sparse=0.5)
    with pytest.raises(ValueError, match=f"at least {LEAST_QUERIES} judged queries, got {LEAST_QUERIES - 1}"):
        fit(dataset, found, {}, measure="nDCG@10", depth=30)


def test_every_subset_is_tried_by_rank_and_by_scores():
    tried = fusions_to_try(SIDES)
    assert {(fusion.sides, fusion.method) for fusion in tried if len(fusion.sides) > 1} == {
        (sides, method)
        for sides in [("dense", "sparse"), ("dense", "bm25"), ("sparse", "bm25"), SIDES]
        for method in ("rrf", "scores")
    }
    assert len(set(tried)) == len(tried)
    assert all(fusion.weights is None or sum(fusion.weights) == pytest.approx(1) for fusion in tried)
