"""A child forked after its parent has encoded encodes as well, whatever the parent's other threads are doing."""

import importlib.util
import os
import subprocess
import sys

import pytest

from splade_integrations.engine.compute import resolve_compute

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# The parent's process is a fresh one, with torch's default threads.
PARENT = """
import faulthandler, logging, multiprocessing, os, sys, threading
from splade_integrations import SpladeEncoder
logging.disable(logging.WARNING)
folder, dtype, backend, way, busy = sys.argv[1:]
TEXTS = [f"Alan Turing was born in London {i}. " * (1 + i % 7) for i in range(64)]

def child():
    faulthandler.dump_traceback_later(60, exit=True)  # instead of a hang
    if "ENCODER" not in globals():  # a spawned child has nothing of its parent
        load()
    rows = ENCODER.encode_documents(TEXTS)
    assert abs(rows - EXPECTED).max() < 0.3, abs(rows - EXPECTED).max()
    ENCODER.encode_queries(["a lone and long text " * 80])
    faulthandler.cancel_dump_traceback_later()

def load():
    global ENCODER, EXPECTED
    ENCODER = SpladeEncoder(folder, dtype=dtype, backend=backend, num_threads=2)
    EXPECTED = ENCODER.encode_documents(TEXTS)
    ENCODER.encode_queries(["a lone and long text " * 80])

if __name__ == "__main__":
    load()
    stopped = threading.Event()
    def encode_on():
        while not stopped.is_set():
            ENCODER.encode_documents(TEXTS)
    threads = [threading.Thread(target=encode_on) for _ in range(2 if busy == "busy" else 0)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(3):
        if way == "os":
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    child()
                    status = 0
                finally:
                    os._exit(status)
            codes.append(os.waitpid(pid, 0)[1])
        else:
            process = multiprocessing.get_context(way).Process(target=child)
            process.start()
            process.join()
            codes.append(process.exitcode)
    stopped.set()
    for thread in threads:
        thread.join()
    ENCODER.encode_documents(TEXTS)
    assert codes == [0] * 3, codes
"""


@pytest.fixture
def run(tmp_path):
    """Run the parent, a file, which spawned children import."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)

    def call(*arguments):
        subprocess.run([sys.executable, str(script), *arguments], check=True, timeout=300, env=environment)

    return call


@pytest.mark.parametrize("busy", ["idle", "busy"])
@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_forked_child_encodes(run, model_folder, dtype, backend, busy):
    if backend == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    try:
        resolve_compute("cpu", dtype, backend)
    except ValueError as err:
        pytest.skip(str(err))
    run(model_folder, dtype, backend, "os", busy)


@pytest.mark.parametrize("way", ["fork", "forkserver", "spawn"])
def test_multiprocessings_ways(run, model_folder, way):
    run(model_folder, "float32", "torch", way, "busy")
