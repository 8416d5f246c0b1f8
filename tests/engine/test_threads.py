"""Batches in threads of their own: every result arrives, torch's settings stay, and a lone batch learns from times."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import pytest
import torch

from splade_integrations import SpladeEncoder
from splade_integrations.engine import threads as threads_module
from splade_integrations.engine.cores import usable_cores
from splade_integrations.engine.process import can_limit_threads, torch_threads
from splade_integrations.engine.threads import ThreadChoice, apart, spread

pytestmark = pytest.mark.skipif(not can_limit_threads(), reason="this torch is built without OpenMP")


def threads_seen_by_a_new_thread():
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(torch.get_num_threads).result()


def test_spread_yields_every_result():
    for _ in range(50):
        numbers = list(range(40))
        assert sorted(spread(lambda numbers=numbers: numbers.pop() + 1 if numbers else None, 4)) == list(range(1, 41))


def test_spread_computes_at_the_same_time():
    both = threading.Barrier(2)
    work = [1, 2]

    def step():
        if not work:
            return None
        item = work.pop()
        both.wait(timeout=60)
        return item

    assert sorted(spread(step, 2)) == [1, 2]


def test_spread_raises_and_starts_nothing_more():
    numbers = count()

    def step():
        if next(numbers) == 5:
            raise ValueError("the fifth")
        return 1

    with pytest.raises(ValueError, match="the fifth"):
        list(spread(step, 2))


def test_a_consumer_that_stops_early():
    numbers = count(1)  # without end
    results = spread(lambda: next(numbers), 2)
    next(results)
    results.close()
    for _ in range(4):  # behind what is under way
        threads_module._pools.workers.submit(int).result()
    assert next(numbers) + 1 == next(numbers)


def test_torch_threads_is_seen_by_this_thread_alone():
    found = torch.get_num_threads()
    with torch_threads(found + 3):
        assert torch.get_num_threads() == found + 3
        assert threads_seen_by_a_new_thread() == found
    assert torch.get_num_threads() == found


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}])
def test_torchs_settings_are_left_as_they_were(model_folder, texts, options):
    found = torch.get_num_threads()
    inside = []

    def look(_):
        inside.append((torch.get_num_threads(), threads_seen_by_a_new_thread()))

    with ThreadPoolExecutor(1) as existing:
        existing.submit(torch.get_num_threads).result()
        encoder = SpladeEncoder(model_folder, max_length=64, num_threads=3, batch_size=8, **options)
        encoder.encode_documents(texts[:60], show_progress=look)
        assert set(inside) == {(found, found)}

        def stop(_):
            raise RuntimeError("stopped")

        with pytest.raises(RuntimeError, match="stopped"):
            encoder.encode_documents(texts[:60], show_progress=stop)
        assert existing.submit(torch.get_num_threads).result() == found
    assert torch.get_num_threads() == threads_seen_by_a_new_thread() == found


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("limits", [{}, {"batch_size": 3}, {"max_batch_tokens": 600}])
def test_rows_do_not_depend_on_the_number_of_threads(encoder, texts, num_threads, limits):
    several = SpladeEncoder(encoder.model_name, max_length=256, num_threads=num_threads, **limits)
    some = texts[:40] + texts[-10:]
    done = []
    rows = several.encode_documents(some, show_progress=done.append)
    np.testing.assert_allclose(rows.toarray(), encoder.encode_documents(some).toarray(), atol=1e-5)
    assert sum(done) == len(some)


def test_a_lone_long_text_in_both_ways(encoder, texts):
    model = encoder._roles["document"].rows
    ids = encoder._roles["document"].tokenize([texts[4]], 1).ids
    expected = model._rows(ids, 1).toarray()
    np.testing.assert_allclose(apart(lambda: model._rows(ids, 2)).toarray(), expected, atol=1e-5)


class Machine:
    """A clock that a call moves on by what it takes with one thread or with several."""

    def __init__(self, one, several):
        self.one, self.several, self.now, self.taken = one, several, 0.0, []

    def run(self, choice, times):
        self.taken.clear()
        for _ in range(times):
            choice.run(100, lambda: self.take("one"), lambda: self.take("several"))
        return self.taken

    def take(self, way):
        self.now += getattr(self, way)
        self.taken.append(way)


def test_a_choice_follows_what_is_faster():
    machine = Machine(one=3.0, several=2.0)
    choice = ThreadChoice(clock=lambda: machine.now, cold=0)
    assert set(machine.run(choice, 6)) == {"one", "several"}
    assert machine.run(choice, 40) == ["several"] * 40
    machine.several = 20.0  # a neighbour comes
    assert machine.run(choice, 100).count("several") <= 3
    assert machine.run(choice, 1000).count("several") <= 10
    machine.several = 2.0  # it leaves
    machine.run(choice, 1000)
    assert machine.run(choice, 100).count("several") >= 98


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/not/seen\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/box\n",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_quotas_of_containers(tmp_path, monkeypatch, files, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert usable_cores(tmp_path) == (expected or 64)


def test_threads_are_at_least_one(model_folder):
    with pytest.raises(ValueError, match="num_threads must be an int of at least 1"):
        SpladeEncoder(model_folder, num_threads=0)
    assert SpladeEncoder(model_folder, num_threads=5).num_threads == 5
    assert SpladeEncoder(model_folder).num_threads == min(torch.get_num_threads(), usable_cores())
