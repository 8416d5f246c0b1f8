"""Batches contain each text once, stay within the token budget, and have little padding."""

import random
from itertools import chain

import pytest

from splade_integrations.engine.batch_budget import BatchBudget

LENGTHS = [random.Random(1).randint(3, 60) for _ in range(500)]


def batches(lengths, tokens=1024, texts=100, **options):
    return BatchBudget(tokens, texts, **options).batches(lengths)


@pytest.mark.parametrize(
    "options", [{}, {"equal_lengths": True}, {"tokens": 1}, {"texts": 1}, {"tokens": 10**9}, {"skips_padding": True}]
)
def test_each_text_once_and_the_longest_first(options):
    found = batches(LENGTHS, **options)
    assert sorted(position for batch in found for position in batch) == list(range(len(LENGTHS)))
    in_order = [LENGTHS[position] for batch in found for position in batch]
    assert in_order == sorted(LENGTHS, reverse=True)


@pytest.mark.parametrize("skips_padding", [False, True])
def test_within_the_budget(skips_padding):
    for batch in batches(LENGTHS, tokens=300, texts=7, skips_padding=skips_padding):
        assert len(batch) <= 7
        assert len(batch) == 1 or len(batch) * LENGTHS[batch[0]] <= 300
    assert batches([50, 700, 20], tokens=300) == [[1], [0], [2]]  # a text longer than the budget gets its own batch


@pytest.mark.parametrize("number", [30, 100, 500])
def test_little_padding_whatever_the_number_of_texts(number):
    lengths = LENGTHS[:number]
    padded = sum(len(batch) * lengths[batch[0]] for batch in batches(lengths))
    assert padded <= 1.15 * sum(lengths)


def test_a_handful_of_short_texts_stays_together():
    assert batches([9, 3, 5]) == [[0, 2, 1]]


def test_no_padding_where_it_is_asked_for():
    assert all(len({LENGTHS[position] for position in batch}) == 1 for batch in batches(LENGTHS, equal_lengths=True))


@pytest.mark.parametrize("number", [32, 48, 64, 100])
def test_short_texts_are_halved_between_two_threads_if_the_layers_skip_padding(number):
    rng = random.Random(2)
    lengths = [rng.randint(6, 14) for _ in range(number)]
    found = BatchBudget(6144, 500, skips_padding=True).fair_batches(lengths, 2)
    tokens = [sum(lengths[position] for position in batch) for batch in found]
    assert len(tokens) == 2
    assert max(tokens) <= 1.05 * sum(tokens) / 2


@pytest.mark.parametrize("skips_padding", [False, True])
@pytest.mark.parametrize("tokens", [1, 20, 32, 64])
def test_texts_are_divided_into_tiny_batches_as_well(tokens, skips_padding):
    found = BatchBudget(tokens, 500, skips_padding=skips_padding).fair_batches([20] * 200, 2)
    assert len(found) == (200 if tokens < 40 else 67)


def test_texts_are_divided_if_they_are_a_few_times_the_token_limit():
    for number in (20, 30, 40, 60):
        assert BatchBudget(64, 500).fair_batches([10] * number, 2)


@pytest.mark.parametrize("skips_padding", [False, True])
@pytest.mark.parametrize("threads", [2, 3, 4, 16])
@pytest.mark.parametrize("tokens", [200, 1024, 6144])
def test_divided_texts_come_once_and_within_the_budget(tokens, threads, skips_padding):
    rng = random.Random(3)
    for number in (20, 100, 700):
        lengths = [rng.choice([0, rng.randint(3, 14), rng.randint(15, 250)]) for _ in range(number)]
        found = BatchBudget(tokens, 50, skips_padding=skips_padding).fair_batches(lengths, threads)
        if found:
            assert sorted(chain(*found)) == [position for position, length in enumerate(lengths) if length]
            assert all(len(batch) <= 50 for batch in found)
            assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= tokens for batch in found)
    assert found
