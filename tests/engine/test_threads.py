"""Batches run in threads of their own: all results arrive, torch's settings stay, and rows do not change."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from splade_integrations import SpladeEncoder
from splade_integrations.engine import batching
from splade_integrations.engine.batch_budget import BatchBudget
from splade_integrations.engine.model import SpladeModel
from splade_integrations.engine.products import product_threads, usable_threads
from splade_integrations.engine.threads import (
    can_run_apart,
    computes_together,
    run_apart,
    run_in_own_thread,
    run_together,
)

pytestmark = pytest.mark.skipif(not can_run_apart(), reason="this torch is built without OpenMP")


def threads_in_a_new_thread():
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(torch.get_num_threads).result()


def test_every_result_arrives():
    for _ in range(50):
        numbers = list(range(40))
        step = lambda numbers=numbers: numbers.pop() + 1 if numbers else None  # noqa: E731
        assert sorted(run_apart(step, 4)) == list(range(1, 41))


def test_calls_run_at_the_same_time_and_each_alone():
    both, work = threading.Barrier(2), [1, 2]

    def step():
        if not work:
            return None
        work.pop()
        both.wait(timeout=60)
        return torch.get_num_threads()

    assert list(run_apart(step, 2)) == [1, 1]


def test_an_error_arrives_and_ends_the_work():
    numbers = count()

    def step():
        if next(numbers) == 5:
            raise ValueError("the fifth")
        return 1

    with pytest.raises(ValueError, match="the fifth"):
        list(run_apart(step, 2))


def test_a_consumer_that_stops_early():
    numbers, under_way = count(1), threading.Semaphore(2)  # `count` never ends

    def step():
        with under_way:
            return next(numbers)

    results = run_apart(step, 2)
    next(results)
    results.close()
    list(run_apart(lambda: None, 2))  # this runs after all calls that had started
    last = next(numbers)
    assert next(numbers) == last + 1


def test_product_threads_affect_only_the_calling_thread():
    found = torch.get_num_threads()
    with product_threads(found + 3):
        assert torch.get_num_threads() == found + 3
        assert threads_in_a_new_thread() == found
    assert torch.get_num_threads() == found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_torchs_settings_stay(model_folder, texts, dtype):
    found, inside = torch.get_num_threads(), []

    def look(_):
        inside.append((torch.get_num_threads(), threads_in_a_new_thread()))

    def stop(_):
        raise RuntimeError("stopped")

    with ThreadPoolExecutor(1) as existing:
        existing.submit(torch.get_num_threads).result()
        encoder = SpladeEncoder(model_folder, max_length=64, num_threads=3, batch_size=8, dtype=dtype)
        encoder.encode_documents(texts[:60], show_progress=look)
        encoder.encode_queries(texts[4:5])
        with pytest.raises(RuntimeError, match="stopped"):
            encoder.encode_documents(texts[:60], show_progress=stop)
        assert set(inside) == {(found, found)}
        assert existing.submit(torch.get_num_threads).result() == found
    assert torch.get_num_threads() == threads_in_a_new_thread() == found


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("limits", [{}, {"batch_size": 3}, {"max_batch_tokens": 600}])
def test_rows_do_not_depend_on_the_number_of_threads(encoder, texts, num_threads, limits, monkeypatch):
    apart = []
    monkeypatch.setattr(batching, "run_apart", lambda *args: apart.append(args) or run_apart(*args))
    several = SpladeEncoder(encoder.model_name, max_length=256, num_threads=num_threads, **limits)
    some, done = texts[:40] + texts[-10:], []
    rows = several.encode_documents(some, show_progress=done.append)
    assert bool(apart) == (num_threads > 1)
    np.testing.assert_allclose(rows.toarray(), encoder.encode_documents(some).toarray(), atol=1e-5)
    assert sum(done) == len(some)


def test_memory_runs_out_in_threads(encoder, texts, monkeypatch, caplog):
    """Batches are halved until they fit, and no text is lost."""
    small = SpladeEncoder(encoder.model_name, max_length=256, num_threads=2)
    model = small._roles["document"].rows
    hidden = type(model.model).hidden

    def limited(self, input_ids, mask):
        if input_ids.numel() > 512:
            raise torch.OutOfMemoryError("out of memory")
        return hidden(self, input_ids, mask)

    monkeypatch.setattr(type(model.model), "hidden", limited)
    found = small.encode_documents(texts[:60])
    assert "Out of memory" in caplog.text
    monkeypatch.undo()
    np.testing.assert_allclose(found.toarray(), encoder.encode_documents(texts[:60]).toarray(), atol=1e-5)


def test_threads_are_equally_busy():
    lengths = [512] * 10 + [100] * 33 + [7] * 200 + [0]
    batches = BatchBudget(4096, 500).fair_batches(lengths, 4)
    assert sorted(position for batch in batches for position in batch) == list(range(243))
    loads = [0] * 4
    for batch in batches:
        loads[loads.index(min(loads))] += len(batch) * lengths[batch[0]]
    assert max(loads) <= 1.05 * sum(loads) / 4


@pytest.mark.parametrize("lengths", [[], [0], [100], [256] * 3, [9] * 20])
def test_texts_that_are_too_few_are_not_divided(lengths):
    assert BatchBudget(6144, 500).fair_batches(lengths, 2) == []


def test_number_of_threads(model_folder):
    with pytest.raises(ValueError, match="num_threads must be an int of at least 1"):
        SpladeEncoder(model_folder, num_threads=0)
    assert SpladeEncoder(model_folder, num_threads=5).num_threads == 5
    assert SpladeEncoder(model_folder).num_threads == usable_threads()


HELPERS = """
import os, sys, threading, torch
from splade_integrations import SpladeEncoder
from splade_integrations.engine import batching
batching.free_cores = lambda wanted: wanted  # whatever else runs on this machine
torch.set_num_threads(2)
encoder = SpladeEncoder(sys.argv[1], device="cpu", num_threads=2)
text = " ".join(["walrus"] * 200)
tasks = lambda: len(os.listdir("/proc/self/task"))
ask = lambda: [encoder.encode_queries([text]) for _ in range(8)]  # the number of threads is chosen anew for each call
first = threading.Thread(target=ask)
first.start()
first.join()
encoder.encode_documents([text] * 64)  # starts all threads that compute separately
before, callers = tasks(), 3
all_asked = threading.Barrier(callers + 1)
threads = [threading.Thread(target=lambda: (ask(), all_asked.wait(), all_asked.wait())) for _ in range(callers)]
for thread in threads: thread.start()
all_asked.wait()
print(tasks() - before <= callers)
all_asked.wait()
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in Linux's /proc")
def test_lone_texts_of_all_threads_share_their_helper_threads(model_folder):
    done = subprocess.run(
        [sys.executable, "-c", HELPERS, model_folder], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "True\n"


@pytest.mark.parametrize("free", [1, 2])
def test_a_lone_text_uses_only_free_cores(model_folder, free, monkeypatch):
    encoder = SpladeEncoder(model_folder, device="cpu", num_threads=2)
    used, compute = [], SpladeModel.term_weights
    monkeypatch.setattr(batching, "free_cores", lambda wanted: min(wanted, free))
    monkeypatch.setattr(
        SpladeModel, "term_weights", lambda *args: used.append(torch.get_num_threads()) or compute(*args)
    )
    for _ in range(8):
        encoder.encode_queries(["walrus"])
    assert set(used) == set(range(1, free + 1))  # with two free cores, both numbers are timed


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_not_more_texts_than_cores_are_computed_at_the_same_time(model_folder, monkeypatch, backend):
    """If all callers computed at the same time, they would be slower than one of them."""
    if backend == "openvino":
        pytest.importorskip("openvino")
    encoder = SpladeEncoder(model_folder, device="cpu", num_threads=2, backend=backend)
    computing, most, compute = [], [], SpladeModel.term_weights

    def term_weights(*args):
        computing.append(None)
        most.append(len(computing))
        time.sleep(0.01)  # so that the others would start meanwhile
        try:
            return compute(*args)
        finally:
            computing.pop()

    monkeypatch.setattr(batching, "free_cores", lambda _: 1)
    monkeypatch.setattr(SpladeModel, "term_weights", term_weights)
    with ThreadPoolExecutor(24) as callers:
        rows = list(callers.map(lambda number: encoder.encode_queries([f"walrus {number}"]), range(48)))
    assert len(most) == len(rows) == 48
    # OpenVINO computes each batch with all threads, so batches take turns.
    assert max(most) <= (1 if backend == "openvino" else _threads_that_compute_apart()) < 24


def _threads_that_compute_apart():
    """Return the number of threads that compute separately. Another test may have asked for more than two."""
    return sum(thread.name.startswith("splade-encode") for thread in threading.enumerate())


def test_a_lone_text_waits_for_another_one_that_uses_all_cores(model_folder, monkeypatch):
    """Otherwise both would compute at the same time, and the threads of one of them would wait for a core."""
    encoder = SpladeEncoder(model_folder, device="cpu", num_threads=2)
    counted: list[int] = []
    monkeypatch.setattr(batching, "free_cores", lambda wanted: counted.append(wanted) or 1)

    def ask_in_another_thread():
        with ThreadPoolExecutor(1) as other:
            other.submit(encoder.encode_queries, ["walrus"]).result()

    assert not computes_together()
    ask_in_another_thread()
    assert counted == [2]
    run_together(ask_in_another_thread)
    assert counted == [2]
    assert not computes_together()


def test_loading_leaves_no_thread_behind(model_folder):
    before = {thread.name for thread in threading.enumerate()}
    assert SpladeEncoder(model_folder, device="cpu").dim
    assert {thread.name for thread in threading.enumerate()} == before


def test_an_error_of_a_lone_batch_or_of_loading_arrives():
    def fail():
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        run_in_own_thread(fail, 1)
    with ThreadPoolExecutor(1) as thread, pytest.raises(KeyError, match="here"):
        thread.submit(run_together, fail).result()
