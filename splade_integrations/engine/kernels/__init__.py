"""Triton kernels for CUDA devices. Each module imports Triton at its top: import it only where its kernel is to run."""

import importlib.util

import torch

__all__ = ["kernels_run"]

# The first generation with asynchronous copies and bfloat16 products, on which the kernels' pipelines rest.
_LEAST_CAPABILITY = (8, 0)


def kernels_run(device: torch.device) -> bool:
    """Whether Triton is installed and compiles for this device: NVIDIA's of the Ampere generation or later.

    Triton comes with torch's CUDA builds for Linux. It needs a C compiler, too: trying tells.
    """
    return (
        device.type == "cuda"
        and torch.version.hip is None  # AMD's GPUs, which torch calls cuda, have not been tried
        and importlib.util.find_spec("triton") is not None
        and torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY
    )
