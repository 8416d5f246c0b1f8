"""A child that is forked after its parent has encoded can encode as well, whatever the parent's threads are doing."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# The parent is a fresh process with two threads, because pytest's process may be limited to one thread.
PARENT = """
import logging, multiprocessing, os, signal, sys, threading
import torch
from splade_integrations import SpladeEncoder
logging.disable(logging.WARNING)
FOLDER = sys.argv[1]
KINDS = [("torch", "float32"), ("torch", "bfloat16"), ("torch", "int8"), ("openvino", "float32"), ("openvino", "int8")]
TEXTS = [f"Alan Turing was born in London {i}. " * (1 + i % 7) for i in range(24)]
LONG = ["a lone and long text " * 80]

def encode(encoder):
    return encoder.encode_documents(TEXTS), encoder.encode_queries(LONG)

def difference(found, expected):
    return max(abs(one - other).max() for one, other in zip(found, expected, strict=True))

def in_child(work):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(60)  # ends a child that hangs
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
encoders = []
for backend, dtype in KINDS:
    try:
        encoders.append(SpladeEncoder(FOLDER, max_length=64, dtype=dtype, backend=backend))
    except (ValueError, ImportError) as err:
        print("without", dtype, backend, err)
expected = [encode(encoder) for encoder in encoders]

def child():
    for encoder, rows in zip(encoders, expected, strict=True):
        assert difference(encode(encoder), rows) < 0.05
    assert torch.get_num_threads() == 2

def grandparent():
    child()
    in_child(load)

def load():
    assert difference(encode(SpladeEncoder(FOLDER, max_length=64)), expected[0]) < 1e-5

in_child(grandparent)
stopped = threading.Event()

def encode_on(encoder):
    while not stopped.is_set():
        encode(encoder)

threads = [threading.Thread(target=encode_on, args=[encoder]) for encoder in (encoders[0], encoders[-1])]
for thread in threads:
    thread.start()
try:
    in_child(child)
    forking = threading.Thread(target=in_child, args=[child])
    forking.start()
    forking.join()
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0
finally:
    stopped.set()
for thread in threads:
    thread.join()
child()
"""


def test_each_type_idle_and_while_other_threads_encode(tmp_path, model_folder):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, str(script), model_folder], check=True, timeout=240, env=environment)


BLOCKS = """
import os, threading, time
from splade_integrations.forks import ForkSafeLock, this_thread

entered, left = threading.Event(), []
lock = ForkSafeLock()

def work():
    with this_thread.no_fork, this_thread.no_fork:
        entered.set()
        time.sleep(0.3)
        left.append("inner")
    with lock:
        time.sleep(0.3)
    with this_thread.no_fork:  # the forks have given the lock back
        left.append("again")

def fork_and_enter():
    pid = os.fork()
    if pid == 0:
        assert left == ["inner"] and this_thread.has_forked
        with this_thread.no_fork, lock:  # the thread that held the lock does not exist here
            thread = threading.Thread(target=lambda: this_thread.no_fork.acquire())
            thread.start()
            thread.join(10)
        os._exit(thread.is_alive())
    assert os.waitpid(pid, 0)[1] == 0 and not this_thread.has_forked

thread = threading.Thread(target=work, daemon=True)
thread.start()
entered.wait()
with this_thread.no_fork:  # a thread may fork in a block of its own
    fork_and_enter()
time.sleep(0.1)
fork_and_enter()
thread.join(10)
assert left == ["inner", "again"]
"""


def test_a_fork_waits_for_the_blocks_of_other_threads():
    subprocess.run([sys.executable, "-c", BLOCKS], check=True, timeout=60)


LOADING = """
import os, sys, threading, time
from splade_integrations import SpladeEncoder
from splade_integrations.engine import bert, load

reads, prepares = bert.open_weights, load.prepare
reading = threading.Event()

def slow_reading(*arguments):
    reading.set()
    time.sleep(1)
    return reads(*arguments)

def slow_preparing(*arguments):
    time.sleep(1)
    return prepares(*arguments)

bert.open_weights, load.prepare = slow_reading, slow_preparing
loaded = []
thread = threading.Thread(target=lambda: loaded.append(SpladeEncoder(sys.argv[1], device="cpu").dim))
thread.start()
assert reading.wait(60)
for _ in range(3):  # while weights are read, while the model is prepared, and after that
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        found = SpladeEncoder(sys.argv[1], device="cpu").encode_documents(["a cat"])
        os._exit(0 if found.nnz else 1)
    assert time.monotonic() - start < 15, "the fork waited too long"
    assert os.waitpid(child, 0)[1] == 0
thread.join(60)
assert loaded
"""


def test_a_fork_while_another_thread_loads(model_folder):
    subprocess.run([sys.executable, "-c", LOADING, model_folder], check=True, timeout=120)
