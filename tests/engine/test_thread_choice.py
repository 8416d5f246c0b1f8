"""The faster number of threads is used, and the slower one is tried now and then."""

from itertools import pairwise

import pytest

from splade_integrations.engine import thread_choice
from splade_integrations.engine.thread_choice import ThreadChoice


class Machine:
    """A clock. Each batch advances it by the seconds that a batch takes with the chosen number of threads."""

    def __init__(self, seconds):
        self.seconds, self.now = seconds, 0.0

    def perf_counter(self):
        return self.now

    def run(self, choice, batches, tokens=20, free=2):
        """Run batches, and return the numbers of threads that were chosen."""
        chosen = []
        for _ in range(batches):
            with choice.threads(2, free, tokens) as number:
                self.now += self.seconds[number]
            chosen.append(number)
        return chosen


@pytest.fixture
def machine(monkeypatch):
    machine = Machine({1: 1.6, 2: 1.0})
    monkeypatch.setattr(thread_choice, "time", machine)
    return machine


def test_the_slower_number_is_tried_less_and_less_often(machine):
    chosen = machine.run(ThreadChoice(), 2000)
    assert sorted(chosen[:6]) == [1, 1, 1, 2, 2, 2]
    tries = [place for place, number in enumerate(chosen) if number == 1][3:]
    assert [after - before for before, after in pairwise(tries)][:5] == [17, 33, 65, 129, 257]
    assert chosen.count(1) < 20


def test_a_busy_neighbour_is_noticed_at_once_and_its_end_soon(machine):
    choice = ThreadChoice()
    machine.run(choice, 100)
    machine.seconds = {1: 1.7, 2: 6.0}
    assert machine.run(choice, 1000)[4:].count(2) < 20
    machine.seconds = {1: 1.6, 2: 1.0}
    chosen = machine.run(choice, 600)
    assert set(chosen[300:]) <= {1, 2}
    assert chosen[400:].count(1) < 20


def test_sizes_are_judged_apart(machine):
    choice = ThreadChoice()
    machine.run(choice, 50, tokens=500)
    machine.seconds = {1: 0.1, 2: 0.2}
    assert machine.run(choice, 50, tokens=10)[6:].count(2) < 6
    machine.seconds = {1: 1.6, 2: 1.0}
    assert machine.run(choice, 5, tokens=500).count(1) <= 1


def test_a_failed_batch_is_not_counted(machine):
    choice = ThreadChoice()
    with pytest.raises(ValueError, match="no"), choice.threads(2, 2, 20):
        raise ValueError("no")
    assert machine.run(choice, 1) == [2]


def test_only_free_cores_are_used(machine):
    machine.seconds = dict.fromkeys(range(1, 9), 1.0)
    choice, chosen = ThreadChoice(), set()
    for _ in range(6):
        with choice.threads(8, 5, 20) as number:
            chosen.add(number)
    assert chosen == {1, 5}


def test_without_a_free_core_one_thread_is_used_from_the_first_batch_on(machine):
    machine.seconds = {1: 1.7, 2: 50.0}
    choice = ThreadChoice()
    chosen = machine.run(choice, 2000, free=1)
    assert set(chosen[:200]) == {1}
    assert 1 <= chosen.count(2) < 6
    machine.seconds = {1: 1.6, 2: 1.0}
    assert machine.run(choice, 20).count(2) > 15  # the times beside the busy process do not count now


def test_several_threads_are_used_if_the_number_of_free_cores_is_wrong(machine):
    chosen = machine.run(ThreadChoice(), 1000, free=1)
    assert chosen[300:].count(1) < 40
