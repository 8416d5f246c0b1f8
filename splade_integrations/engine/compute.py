"""Turns the user's device, dtype and backend into a `Compute`, which says where and how a model computes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch

from splade_integrations.engine.free_cores import free_cores
from splade_integrations.engine.int8_gemm import QMAX_8BIT, int8_products_pay, int8_weight_qmax
from splade_integrations.engine.products import product_threads, usable_threads
from splade_integrations.engine.threads import run_in_own_thread

__all__ = ["Backend", "Compute", "Device", "Dtype", "Precision", "ResolvedDevice", "ResolvedDtype", "resolve_compute"]

Backend = Literal["torch", "openvino"]
# The types that a user may pass, and the types that they resolve to.
Device = str | torch.device
Dtype = str | torch.dtype
ResolvedDevice = torch.device
ResolvedDtype = torch.dtype
Precision = Literal["float32", "bfloat16", "float16", "int8"]

_T = TypeVar("_T")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}


@dataclass(frozen=True)
class Compute:
    """Where and how a model computes.

    Args:
        device: The device that holds the weights.
        precision: The number type in which the products of the linear layers are computed.
        backend: The library that computes the layers: torch, or OpenVINO on a CPU.
        num_threads: The number of threads that compute on a CPU, or None (see `usable_threads`).
    """

    device: torch.device
    precision: Precision = "float32"
    backend: Backend = "torch"
    num_threads: int | None = None

    @property
    def threads(self) -> int:
        """The number of threads that compute on a CPU."""
        return usable_threads(self.num_threads)

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype of the precision."""
        return _DTYPES[self.precision]

    @property
    def weights_dtype(self) -> torch.dtype:
        """The dtype in which the checkpoint is loaded. It is float32 if layers are quantised or OpenVINO runs them."""
        return torch.float32 if self.precision == "int8" or self.by_openvino else self.dtype

    @property
    def quantizes_linears(self) -> bool:
        """Whether the linear layers are replaced by our own int8 layers."""
        return self.precision == "int8" and not self.by_openvino

    @property
    def by_openvino(self) -> bool:
        """Whether OpenVINO computes the layers."""
        return self.backend == "openvino"

    def run(self, work: Callable[[], _T]) -> _T:
        """Call a function that prepares a model, and return its result.

        On a CPU, the function runs in a thread that ends afterwards (see threads.py). Its matrix products use up to
        `threads` threads, but no more than there are free cores. OpenVINO gets all `threads`, because it keeps this
        number. On a GPU, the function runs in the caller's thread, because each thread has its own current GPU.
        """
        if self.device.type != "cpu":
            return work()
        return run_in_own_thread(work, self.threads if self.by_openvino else free_cores(self.threads))


def resolve_compute(
    device: Device = "auto", dtype: Dtype = "auto", backend: Backend = "torch", num_threads: int | None = None
) -> Compute:
    """Resolve the device, dtype and backend that the user asks for.

    On a CPU and on MPS, the dtype "auto" means float32, whatever the checkpoint states. On CUDA it means float16, which
    has three more bits of mantissa than bfloat16 and so keeps the weights closer to float32. int8 is allowed only on
    processors that multiply 8-bit integers fast. For torch, these processors have AVX2 or wider instructions. For
    OpenVINO, they have AMX or the VNNI instructions of AVX-512.

    Args:
        device: "auto", "cpu", "cuda", "cuda:n" or "mps".
        dtype: "auto", "float32", "bfloat16", "float16" or "int8", or the torch dtype of one of these types.
        backend: "torch" or "openvino".
        num_threads: As in `Compute`.
    Raises:
        ValueError: An argument has an unknown value, or one that this machine or the backend does not support. Or int8
            would not be faster than float32.

    Example:
        >>> resolve_compute("cpu")
        Compute(device=device(type='cpu'), precision='float32', backend='torch', num_threads=None)
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be torch or openvino, got {backend!r}. Use 'torch' if in doubt.")
    resolved = _resolve_device(device, backend)
    with product_threads(1):  # matrix products in several threads would leave helper threads behind (see threads.py)
        precision = _resolve_precision(dtype, resolved, backend)
    return Compute(resolved, precision, backend, num_threads)


def _resolve_device(device: Device, backend: Backend) -> torch.device:
    if backend == "openvino" and device == "auto":
        device = "cpu"
    present = [f"cuda:{n}" for n in range(torch.cuda.device_count())]  # best first
    if torch.backends.mps.is_available():
        present.append("mps")
    present.append("cpu")
    if device == "auto":
        return torch.device(present[0])
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as err:
        raise ValueError(
            f"device must be auto, cpu, cuda, cuda:n or mps, got {device!r}. This machine has {', '.join(present)}."
        ) from err
    name = f"cuda:{resolved.index or 0}" if resolved.type == "cuda" else resolved.type
    if name not in present:
        raise ValueError(
            f"device must be one that this machine has ({', '.join(present)}), got {str(device)!r}. "
            "Use device='auto' for the best one."
        )
    if backend == "openvino" and resolved.type != "cpu":
        raise ValueError(f"device must be cpu for backend='openvino', got {str(device)!r}. Use backend='torch'.")
    return resolved


def _resolve_precision(dtype: Dtype, device: torch.device, backend: Backend) -> Precision:
    if dtype == "auto":
        return "float16" if device.type == "cuda" else "float32"
    precision: Precision | None = next((name for name in get_args(Precision) if dtype in (name, _DTYPES[name])), None)
    if precision is None:
        raise ValueError(f"dtype must be one of auto, {', '.join(_DTYPES)}, got {dtype!r}. Use 'auto' if in doubt.")
    if precision == "int8" and not int8_products_pay(device):
        raise ValueError(
            f"dtype='int8' must run on a CPU that has AVX2 or wider instructions, got device {str(device)!r}, which "
            "has none of these. Use dtype='bfloat16', or 'float16' on CUDA."
        )
    if precision == "int8" and backend == "openvino" and int8_weight_qmax() != QMAX_8BIT:
        raise ValueError(
            "With backend='openvino', dtype='int8' must run on a CPU that has VNNI or AMX instructions, got a CPU "
            "with neither. Use backend='torch'. OpenVINO's int8 could take as long as float32 on this CPU."
        )
    if precision == "bfloat16" and backend == "openvino" and not _openvino_has_bfloat16():
        raise ValueError(
            "With backend='openvino', dtype='bfloat16' must run on a CPU that has bfloat16 instructions, got a CPU "
            "without them. Use dtype='float32'. On this CPU, OpenVINO would silently compute in float32."
        )
    if precision == "float16" and backend == "openvino":
        raise ValueError("dtype must be float32, bfloat16 or int8 for backend='openvino', got float16. Use 'bfloat16'.")
    return precision


def _openvino_has_bfloat16() -> bool:
    """Return whether OpenVINO computes in bfloat16 on this CPU.

    If OpenVINO is not installed, the result is True, and a later error names the extra to install.
    """
    try:
        from openvino import Core
    except ImportError:
        return True
    return "BF16" in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
