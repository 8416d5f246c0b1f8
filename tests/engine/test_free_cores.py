"""Threads that other programs run leave fewer cores. Helper threads of OpenMP that only spin do not."""

import os
import subprocess
import sys
import threading

import pytest

from splade_integrations.engine.free_cores import threads_with_a_core


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
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("cores", "running", "wanted", "expected"),
    [(2, 1, 2, 2), (2, 2, 2, 1), (2, 9, 2, 1), (4, 1, 4, 4), (4, 2, 4, 2), (4, 3, 4, 2), (4, 4, 4, 1), (8, 5, 4, 4),
     (16, 2, 16, 8), (16, 9, 8, 8), (16, 15, 8, 2), (2, 5, 1, 1), (2, 0, 2, 2)],
)  # fmt: skip
def test_busy_threads_leave_fewer_cores(proc, cores, running, wanted, expected):
    assert threads_with_a_core(wanted, proc(running), cores) == expected


def test_helper_threads_that_spin_do_not_count(proc):
    assert threads_with_a_core(2, proc(2, ["R", "R", "S"]), 2) == 2
    assert threads_with_a_core(2, proc(3, ["R", "R", "S"]), 2) == 1
    assert threads_with_a_core(4, proc(4, ["R", "R", "R"]), 4) == 2


def test_threads_of_python_count(proc):
    folder = proc(2, ["R"])
    inside, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (inside.set(), leave.wait()))
    thread.start()
    inside.wait()
    (folder / f"self/task/{thread.native_id}").mkdir()
    (folder / f"self/task/{thread.native_id}/stat").write_text("1 (py) R 1")
    try:
        assert threads_with_a_core(2, folder, 2) == 1
    finally:
        leave.set()
        thread.join()


@pytest.mark.parametrize("content", [None, "", "0.5 0.4 0.3", "0.5 0.4 0.3 x/y 1"])
def test_without_this_file_all_threads_are_used(tmp_path, content):
    if content is not None:
        (tmp_path / "loadavg").write_text(content)
    assert threads_with_a_core(4, tmp_path, 4) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts running threads")
def test_busy_processes_are_seen():
    cores = os.cpu_count()
    if len(os.sched_getaffinity(0)) < cores:
        pytest.skip("this process may use only some cores, so the running threads may be on others")
    busy = [subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
            for _ in range(cores)]  # fmt: skip
    try:
        for process in busy:
            process.stdout.readline()  # it has started
        assert threads_with_a_core(cores) == 1
    finally:
        for process in busy:
            process.kill()
            process.communicate()
