"""Triton kernels for CUDA devices. Each module imports Triton at its top, so import it only to run its kernel."""

import importlib.util

import torch

__all__ = ["kernels_run"]

# Compute capability of the first GPUs with asynchronous copies and bfloat16 products, which the kernels need.
_LEAST_CAPABILITY = (8, 0)


def kernels_run(device: torch.device) -> bool:
    """Return whether Triton is installed and the device is a GPU of NVIDIA's Ampere generation or later.

    Triton comes with torch's CUDA builds for Linux. Triton also needs a C compiler, which this function does not check.
    """
    return (
        device.type == "cuda"
        and torch.version.hip is None  # torch also calls AMD's GPUs "cuda", but the kernels are not tested on them
        and importlib.util.find_spec("triton") is not None
        and torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY
    )
