"""Free memory that lies between used blocks of glibc's heap is returned to the system."""

import platform
import subprocess
import sys

import pytest

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
