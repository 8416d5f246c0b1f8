"""Free memory that lies between memory in use, in glibc's heap, is given back to the system."""

import contextlib
import ctypes
import platform

import pytest

from splade_integrations import SpladeEncoder
from splade_integrations.engine import process

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
MIB = 2**20


@pytest.fixture(autouse=True)
def nothing_free_at_first():
    """Give back what earlier tests have freed: otherwise the process would not grow."""
    ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def free_memory_between():
    """Make 300 MiB of free memory that lies between memory in use, and yield the process's resident bytes."""
    process.keep_freed_memory()  # without this, large blocks would come from the system and return to it
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    large, small = [], []
    for _ in range(300):
        large.append(libc.malloc(MIB))
        ctypes.memset(large[-1], 1, MIB)
        small.append(libc.malloc(100_000))  # smaller blocks would fill older gaps
    for block in large:
        libc.free(block)
    yield process.resident_bytes()
    for block in small:
        libc.free(block)


def test_what_lies_between_is_given_back_once_there_is_much(monkeypatch):
    trimmer = process.HeapTrimmer()
    with free_memory_between() as grown:
        monkeypatch.setattr(process, "MOST_GROWTH", 10**12)
        trimmer.after_batch()
        assert process.resident_bytes() > grown - 20 * MIB
        monkeypatch.undo()
        trimmer.after_batch()
        assert process.resident_bytes() < grown - 200 * MIB


def test_encoding_gives_it_back(model_folder):
    encoder = SpladeEncoder(model_folder, device="cpu")
    encoder.encode_documents(["loads the model"])
    with free_memory_between() as grown:
        encoder.encode_documents(["a"])
        assert process.resident_bytes() < grown - 200 * MIB
