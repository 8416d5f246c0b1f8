"""Threads that other programs run leave fewer cores. Helper threads of OpenMP that only spin do not."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from splade_integrations.engine.free_cores import free_cores


@pytest.fixture
def proc(tmp_path):
    """A folder like /proc, on a machine where `running` threads run. Some of them are threads of this process."""

    def write(running, own_states=("R", "S", "S")):
        (tmp_path / "loadavg").write_text(f"0.50 0.40 0.30 {running}/321 4711\n")
        for number, state in enumerate(own_states):
            name = threading.main_thread().native_id if number == 0 else 10_000_000 + number
            folder = tmp_path / "self/task" / str(name)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "stat").write_text(f"{name} (py) R (x) {state} 1 2 3\n")
        return str(tmp_path)

    return write


@pytest.mark.parametrize(
    ("cores", "running", "wanted", "expected"),
    [(2, 1, 2, 2), (2, 2, 2, 1), (2, 9, 2, 1), (4, 1, 4, 4), (4, 2, 4, 3), (4, 3, 4, 2), (4, 4, 4, 1), (8, 5, 4, 4),
     (16, 2, 16, 15), (16, 9, 8, 8), (16, 15, 6, 2), (2, 5, 1, 1), (2, 0, 2, 2)],
)  # fmt: skip
def test_busy_threads_leave_fewer_cores(proc, cores, running, wanted, expected):
    assert free_cores(wanted, proc(running), cores) == expected


def test_helper_threads_that_spin_do_not_count(proc):
    assert free_cores(2, proc(2, ["R", "R", "S"]), 2) == 2
    assert free_cores(2, proc(3, ["R", "R", "S"]), 2) == 1
    assert free_cores(4, proc(4, ["R", "R", "R"]), 4) == 3
    assert free_cores(2, proc(3, ["R", "R", "R"]), 2) == 1  # the next product needs only one helper


def test_threads_of_python_count(proc):
    folder = proc(2, ["R"])
    inside, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (inside.set(), leave.wait()))
    thread.start()
    inside.wait()
    task = Path(folder, "self/task", str(thread.native_id))
    task.mkdir()
    (task / "stat").write_text("1 (py) R 1")
    try:
        assert free_cores(2, folder, 2) == 1
    finally:
        leave.set()
        thread.join()


def test_a_forked_child_knows_its_own_thread(proc, monkeypatch):
    monkeypatch.setattr(threading.main_thread(), "_native_id", 5)  # as the child of os.fork() sees it
    assert free_cores(2, proc(2, ["R"]), 2) == 1


@pytest.mark.parametrize(("looks", "expected"), [([2, 1], 2), ([2, 2], 1), ([1], 2)])
def test_a_thread_that_runs_only_for_a_moment_does_not_count(monkeypatch, proc, looks, expected):
    folder, looks = proc(9), iter(looks)
    monkeypatch.setattr("splade_integrations.engine.free_cores._running", lambda _: next(looks))
    assert free_cores(2, folder, 2) == expected


def test_a_helper_that_falls_asleep_between_two_counts(monkeypatch, proc):
    """One process is busy. At the first look, the helper thread still spins."""
    folder, running, spinning = proc(9), iter([3, 2]), iter([1, 0])
    monkeypatch.setattr("splade_integrations.engine.free_cores._running", lambda _: next(running))
    monkeypatch.setattr("splade_integrations.engine.free_cores._spinning", lambda *_: next(spinning))
    assert free_cores(2, folder, 2) == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux has affinities")
def test_a_process_that_may_use_only_some_cores(proc, monkeypatch):
    """The running threads may be on the other cores."""
    monkeypatch.setattr(os, "sysconf", lambda _: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert free_cores(4, proc(3)) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert free_cores(2, proc(9)) == 2


def test_a_thread_that_ends_meanwhile(proc):
    folder = proc(2, ["R", "R"])
    Path(folder, "self/task/10000001/stat").unlink()
    assert free_cores(2, folder, 2) == 1


@pytest.mark.parametrize("content", [None, "", "0.5 0.4 0.3", "0.5 0.4 0.3 x/y 1"])
def test_without_this_file_all_threads_are_used(tmp_path, content):
    if content is not None:
        (tmp_path / "loadavg").write_text(content)
    assert free_cores(4, str(tmp_path), 4) == 4


@pytest.mark.skipif(not Path("/proc/loadavg").exists(), reason="only Linux counts running threads")
def test_a_busy_process_is_seen():
    """This reads the true /proc, as if the machine had two cores."""
    if Path("/proc/loadavg").read_text().split()[3].startswith("0/"):
        pytest.skip("this system does not count running threads")
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as busy:
        busy.stdout.readline()  # it has started
        deadline = time.monotonic() + 30  # a quota may stop it for a while
        while free_cores(2, cores=2) != 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        found = free_cores(2, cores=2)
        busy.kill()
    assert found == 1
