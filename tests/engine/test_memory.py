"""Memory that is free but lies between what is in use, in glibc's own heap."""

import ctypes
import platform

import pytest

from splade_integrations import SpladeEncoder
from splade_integrations.engine import process

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
MIB = 2**20


def test_what_lies_between_is_given_back_once_there_is_much(monkeypatch):
    process.keep_freed_memory()  # else what is large would come from the system, and go there
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    trimmer = process.HeapTrimmer()
    large, small = [], []
    for _ in range(300):
        large.append(libc.malloc(MIB))
        ctypes.memset(large[-1], 1, MIB)
        small.append(libc.malloc(100_000))  # smaller ones would find older gaps
    for block in large:
        libc.free(block)
    grown = process.resident_bytes()
    monkeypatch.setattr(process, "MOST_GROWTH", 10**12)
    trimmer.after_batch()
    assert process.resident_bytes() > grown - 20 * MIB
    monkeypatch.undo()
    trimmer.after_batch()
    assert process.resident_bytes() < grown - 200 * MIB
    for block in small:
        libc.free(block)


def test_an_encoder_looks_after_each_batch(model_folder, monkeypatch):
    looked = []
    monkeypatch.setattr(process.HeapTrimmer, "after_batch", lambda self: looked.append(self))
    SpladeEncoder(model_folder, batch_size=2).encode_documents(["a", "b", "c"])
    assert len(looked) == 2
