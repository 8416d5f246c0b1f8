"""The encoder on a real GPU. Without a GPU these tests are skipped. The tests of the kernels are in other files."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from splade_integrations import SpladeEncoder
from splade_integrations.engine.heads import TritonHead, choose
from splade_integrations.engine.kernels import kernels_run
from tests.support.loading import loaded

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU and -m gpu")]

# The allowed difference of a weight. The tiny model rounds in its two layers and in its token vectors.
LARGEST_DIFFERENCE = {"float32": 1e-4, "float16": 0.03, "bfloat16": 0.25}


@pytest.mark.parametrize("dtype", LARGEST_DIFFERENCE)
def test_gives_what_the_cpu_gives(dtype, model_folder, encoder, texts):
    found = SpladeEncoder(model_folder, device="cuda", dtype=dtype, max_length=256).encode_documents(texts)
    expected = encoder.encode_documents(texts)
    assert abs(found - expected).max() < LARGEST_DIFFERENCE[dtype]
    assert found.has_sorted_indices
    assert (found.data > 0).all()


def test_auto_is_float16_with_the_kernel(model_folder):
    on_gpu = SpladeEncoder(model_folder, device="cuda")
    assert on_gpu.encode_queries(["alan turing"]).nnz
    assert on_gpu.dtype == torch.float16
    head = choose(loaded(model_folder, "cuda").decoder, "max", "relu")
    assert isinstance(head, TritonHead) == kernels_run(torch.device("cuda"))


def test_a_batch_that_does_not_fit_is_halved(model_folder, texts, caplog):
    """Memory really runs out, because the test lets the process use less memory than the first batch needs."""
    on_gpu = SpladeEncoder(model_folder, device="cuda", max_length=256)
    expected = on_gpu.encode_documents(texts)
    large = SpladeEncoder(model_folder, device="cuda", max_length=256, max_batch_tokens=10**6)
    large.encode_documents(["loads the model"])
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + 48 * 2**20
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    try:
        with caplog.at_level(logging.WARNING):
            found = large.encode_documents(texts)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "Out of memory on cuda" in caplog.text
    assert abs(found - expected).max() < LARGEST_DIFFERENCE["float16"]


def test_threads_share_it(model_folder, texts):
    on_gpu = SpladeEncoder(model_folder, device="cuda", max_length=256)
    parts = [texts[start : start + 40] for start in range(0, 200, 40)]
    expected = [on_gpu.encode_documents(part) for part in parts]
    with ThreadPoolExecutor(5) as pool:
        for found, alone in zip(pool.map(on_gpu.encode_documents, parts), expected, strict=True):
            assert abs(found - alone).max() < LARGEST_DIFFERENCE["float16"]
