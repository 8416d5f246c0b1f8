"""Triton kernels for CUDA devices. Each module imports Triton at its top, so import it only to run its kernel."""

import importlib.util

import torch

__all__ = ["kernels_run"]

# The first generation with asynchronous copies and bfloat16 products, which the kernels' pipelines need.
_LEAST_CAPABILITY = (8, 0)


def kernels_run(device: torch.device) -> bool:
    """Return whether Triton is installed and compiles for this device: NVIDIA's Ampere generation or later.

    Triton comes with torch's CUDA builds for Linux. It also needs a C compiler; only trying shows whether it works.
    """
    return (
        device.type == "cuda"
        and torch.version.hip is None  # AMD's GPUs, which torch also calls cuda, have not been tried
        and importlib.util.find_spec("triton") is not None
        and torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY
    )
