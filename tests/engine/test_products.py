"""Settings of the process do not affect our results, and the settings are restored afterwards."""

import pytest
import torch

from splade_integrations.engine import products
from splade_integrations.engine.products import exact_float32, usable_threads

MATMUL = torch.backends.cuda.matmul
SETTINGS = [
    ("cpu", torch.backends.mkldnn.matmul, "fp32_precision", "bf16", "ieee"),
    ("cpu", torch.backends.mkldnn.conv, "fp32_precision", "bf16", "ieee"),
    ("cuda", MATMUL, "fp32_precision", "tf32", "ieee"),
    ("cuda", MATMUL, "allow_bf16_reduced_precision_reduction", True, False),
    ("cuda", MATMUL, "allow_fp16_reduced_precision_reduction", True, False),
    ("cuda", MATMUL, "allow_fp16_accumulation", True, False),
]


@pytest.mark.parametrize(("device", "owner", "name", "loose", "exact"), SETTINGS)
@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
def test_a_setting_is_exact_within_and_as_it_was_after(device, owner, name, loose, exact):
    found = getattr(owner, name)
    try:
        setattr(owner, name, loose)
        with exact_float32(torch.device(device)):
            assert getattr(owner, name) == exact
            with exact_float32(torch.device(device)):
                pass
            assert getattr(owner, name) == exact
        assert getattr(owner, name) == loose
    finally:
        setattr(owner, name, found)


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
def test_what_is_exact_already_is_left_alone():
    """The setting has a second flag, for split-K. If the code wrote a single bool, torch would switch this flag on."""
    name = "allow_bf16_reduced_precision_reduction"
    if not hasattr(MATMUL, f"{name}_split_k"):
        pytest.skip("this torch has no such setting")
    found = getattr(MATMUL, name), getattr(MATMUL, f"{name}_split_k")
    try:
        setattr(MATMUL, name, (False, False))
        with exact_float32(torch.device("cuda")):
            assert not getattr(MATMUL, f"{name}_split_k")
        assert not getattr(MATMUL, f"{name}_split_k")
    finally:
        setattr(MATMUL, name, found)


def test_a_device_without_such_settings():
    with exact_float32(torch.device("mps")):
        assert torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("cores", "quota", "expected"), [({3}, 8, 1), ({3, 5}, 8, 2), (range(64), 3, 3), (range(64), 64, 7)]
)
def test_threads_follow_the_affinity_the_quota_and_torch(monkeypatch, cores, quota, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(cores), raising=False)
    monkeypatch.setattr(products, "cpu_quota", lambda: quota)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert usable_threads() == expected
    assert usable_threads(5) == 5
