"""Memory that an encoder no longer needs is returned to the system."""

import platform
import subprocess
import sys

import pytest
import torch

from splade_integrations.engine import memory
from splade_integrations.engine.optimize import packing_pays
from tests.support.random_checkpoints import save_masked_lm

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")

# This runs in a new process, because memory that other tests leave in the heap changes where malloc puts the blocks.
FREE_MEMORY_BETWEEN = """
import ctypes
import sys
from splade_integrations import SpladeEncoder
from splade_integrations.engine import memory

MIB = 2**20

def free_memory_between():
    # Make 300 MiB of free memory between blocks in use, and return the process's resident bytes.
    memory.keep_freed_memory()  # without this, large blocks would come from the system and return to it
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    large = []
    for _ in range(300):
        large.append(libc.malloc(MIB))
        ctypes.memset(large[-1], 1, MIB)
        libc.malloc(100_000)  # smaller blocks would fill older gaps
    for block in large:
        libc.free(block)
    return memory.resident_bytes()
"""


def run(code, *arguments):
    command = [sys.executable, "-c", FREE_MEMORY_BETWEEN + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_lies_between_is_given_back_once_there_is_much():
    run("""
trimmer = memory.HeapTrimmer()
grown = free_memory_between()
most, memory.MOST_GROWTH = memory.MOST_GROWTH, 10**12
trimmer.after_batch()
assert memory.resident_bytes() > grown - 20 * MIB
memory.MOST_GROWTH = most
trimmer.after_batch()
assert memory.resident_bytes() < grown - 200 * MIB
""")


def test_a_process_among_many_keeps_less():
    run("""
most = memory.MOST_GROWTH
memory.keep_less_memory()
assert memory.MOST_GROWTH < most
""")


def test_encoding_gives_it_back(model_folder):
    run(
        """
encoder = SpladeEncoder(sys.argv[1], device="cpu")
encoder.encode_documents(["loads the model"])
grown = free_memory_between()
encoder.encode_documents(["a"])
assert memory.resident_bytes() < grown - 200 * MIB
""",
        model_folder,
    )


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_the_weights_file_does_not_stay_in_memory(tmp_path, dtype, backend):
    """Packed weights are copies, so the file would take up memory without need."""
    if backend == "openvino":
        pytest.importorskip("openvino")
    elif dtype == "float32" and not packing_pays(torch.device("cpu"), torch.float32):
        pytest.skip("this processor has no packed weights, so the file's weights are used")
    save_masked_lm(tmp_path, "bert", hidden_size=64, intermediate_size=512)
    code = """
from pathlib import Path
encoder = SpladeEncoder(sys.argv[1], device="cpu", dtype=sys.argv[2], backend=sys.argv[3])
assert encoder.encode_documents(["loads the model"]).nnz
assert ".safetensors" not in Path("/proc/self/maps").read_text()
"""
    run(code, str(tmp_path), dtype, backend)


def test_loading_leaves_no_free_memory_behind():
    run("""
grown = free_memory_between()
memory.HeapTrimmer()
assert memory.resident_bytes() < grown - 200 * MIB
""")


def test_parameters_that_share_memory_still_do():
    from torch import nn

    first, second = nn.Linear(3, 5), nn.Linear(3, 5)
    second.weight = first.weight  # one parameter in two modules
    third = nn.Linear(3, 5)
    third.weight.data = first.weight.data  # two parameters in the same memory
    before = first.weight.data_ptr(), first.weight.detach().clone()
    assert memory.parameter_bytes(first, second, third) == 4 * (15 + 3 * 5)
    memory.own_parameters(first, second, third)
    assert len({module.weight.data_ptr() for module in (first, second, third)} - {before[0]}) == 1
    assert second.weight is first.weight
    assert first.weight.equal(before[1])


def test_parameters_that_were_loaded_in_inference_mode():
    with torch.inference_mode():
        linear = torch.nn.Linear(3, 5)
    memory.own_parameters(linear)
    assert linear(torch.ones(2, 3)).shape == (2, 5)
    assert linear.weight.t().shape == (3, 5)
