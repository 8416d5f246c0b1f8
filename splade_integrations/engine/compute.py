"""Where, by what and in which type the model runs: turns the user's words into torch's, or says what there is."""

from typing import Literal, get_args

import torch

from splade_integrations.engine.int8_gemm import EIGHT_BITS, int8_products_pay, int8_weight_levels

__all__ = ["Backend", "resolve_device", "resolve_dtype"]

Backend = Literal["torch", "openvino"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}


def resolve_device(device: str | torch.device, backend: Backend = "torch") -> torch.device:
    """The torch device of "auto", "cpu", "cuda", "cuda:n" or "mps".

    Raises:
        ValueError: An unknown device or backend, or one that this machine or the backend does not have.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be torch or openvino, got {backend!r}. Use 'torch' if unsure.")
    if backend == "openvino" and device == "auto":
        device = "cpu"
    there = [f"cuda:{n}" for n in range(torch.cuda.device_count())]  # best first
    there += ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    if device == "auto":
        return torch.device(there[0])
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as err:
        raise ValueError(
            f"device must be auto, cpu, cuda, cuda:n or mps, got {device!r}. This machine has {', '.join(there)}."
        ) from err
    name = f"cuda:{resolved.index or 0}" if resolved.type == "cuda" else resolved.type
    if name not in there:
        raise ValueError(
            f"device must be one that this machine has ({', '.join(there)}), got {str(device)!r}. "
            "Use device='auto' for the best one."
        )
    if backend == "openvino" and resolved.type != "cpu":
        raise ValueError(f"device must be cpu for backend='openvino', got {str(device)!r}. Use backend='torch' there.")
    return resolved


def resolve_dtype(dtype: str | torch.dtype, device: torch.device, backend: Backend = "torch") -> torch.dtype:
    """The torch type of "auto", "float32", "bfloat16", "float16" or "int8".

    "auto" is float32 on a CPU and on MPS, whatever the checkpoint says. On CUDA it is float16, whose three more bits
    of mantissa keep the weights closer to float32 than bfloat16. int8 is for processors that multiply it fast, which
    OpenVINO does with AVX-512's VNNI or AMX instructions only.

    Raises:
        ValueError: An unknown type, one that the backend does not have, or int8 where it would not be faster.
    """
    if dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    resolved = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if resolved is None or resolved not in _DTYPES.values():
        raise ValueError(f"dtype must be auto, {', '.join(_DTYPES)}, got {dtype!r}. Use 'auto' if in doubt.")
    if resolved == torch.int8 and not int8_products_pay(device):
        raise ValueError(
            f"dtype int8 must be on a CPU with AVX2 or wider instructions, got {str(device)!r} without. "
            "Use dtype='bfloat16', or 'float16' on CUDA."
        )
    if resolved == torch.int8 and backend == "openvino" and int8_weight_levels() != EIGHT_BITS:
        raise ValueError(
            "dtype int8 must be on a CPU with AVX-512's VNNI or AMX instructions for backend='openvino', got one "
            "without, where it may take as long as float32. Use backend='torch'."
        )
    if resolved == torch.float16 and backend == "openvino":
        raise ValueError("dtype must be float32, bfloat16 or int8 for backend='openvino', got float16. Use 'bfloat16'.")
    return resolved
