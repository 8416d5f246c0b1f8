"""Gives memory back that an encoder does not need, and tells whether memory has run out.

This module uses torch, but no models.
"""

import ctypes
import mmap
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = [
    "HeapTrimmer",
    "is_out_of_memory",
    "keep_freed_memory",
    "keep_less_memory",
    "own_parameters",
    "parameter_bytes",
    "resident_bytes",
]

# If the process grows by more bytes than this, free memory is given back to the system. One batch takes much less
# memory than this, and the next batch uses the same memory again.
MOST_GROWTH = 192 * 2**20
_LESS_GROWTH = 64 * 2**20
_STATM = Path("/proc/self/statm")
# Parts of torch's messages for running out of memory on a CPU and on MPS, for which torch has no special error type.
_OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory",
                  "std::bad_alloc", "MPS backend out of memory")  # fmt: skip


def keep_freed_memory() -> None:
    """Make glibc keep up to 64 MiB of freed memory for the next activations instead of returning it to the system.

    The activations of each layer take some megabytes. If they are written to fresh memory, the system first clears this
    memory page by page. Clearing takes a quarter of the encoding time of BERT-base in int8. The amount of free memory
    that glibc keeps is up to twice the size of the largest block that the process has ever freed. For this rule, only
    blocks of up to 32 MiB count (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD). So this function allocates and
    frees a block of almost 32 MiB, without writing to it. Other allocators, and thresholds that the user has set, are
    not affected.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")


def is_out_of_memory(err: BaseException) -> bool:
    """Return whether an error says that memory has run out.

    On CUDA, torch raises `torch.OutOfMemoryError`. On a CPU, torch raises a RuntimeError, and numpy a MemoryError.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("sizes differ"))
        (True, False)
    """
    if isinstance(err, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(err, RuntimeError) and any(part in str(err) for part in _OUT_OF_MEMORY)


def keep_less_memory() -> None:
    """Let this process grow by 64 MiB instead of 192 MiB before it gives free memory back to the system.

    This is for servers, and for processes that share a machine with other processes that encode, because their memory
    adds up. Encoding takes 3 to 4 % longer.
    """
    global MOST_GROWTH
    MOST_GROWTH = _LESS_GROWTH


def own_parameters(*modules: nn.Module) -> None:
    """Copy all parameters into memory of their own, so that the weights file they were read from can be unmapped.

    The whole file stays in memory as long as one parameter lies in it. If most weights have been packed for the
    processor, only a few parameters, such as the embeddings, still do. At BERT-base's size, the file takes 418 MB, and
    they take 94 MB.

    Args:
        *modules: The modules that hold the parameters. Parameters that share memory still do so afterwards.
    """
    copies: dict[tuple[int, torch.Size, tuple[int, ...]], Tensor] = {}
    for parameter in {id(parameter): parameter for module in modules for parameter in module.parameters()}.values():
        place = parameter.data_ptr(), parameter.shape, parameter.stride()
        with torch.inference_mode(parameter.is_inference()):  # a mixture of both kinds would be of no use
            if place not in copies:
                copies[place] = parameter.data.clone()
            parameter.data = copies[place]


def parameter_bytes(*modules: nn.Module) -> int:
    """Return the number of bytes of the parameters of modules. A parameter of several modules counts once."""
    found = {parameter.data_ptr(): parameter.nbytes for module in modules for parameter in module.parameters()}
    return sum(found.values())


class HeapTrimmer:
    """Gives free memory back to the system, at first and whenever the process has grown by 192 MiB.

    (See `keep_less_memory` for another limit.) At first, because loading a model leaves free memory behind: 430 MB at
    BERT-base's size in int8.

    By default, glibc gives memory back only from the end of its heap. Encoded rows and compiled kernels are small and
    stay in memory, between activations of many sizes. When the activations are freed, they leave gaps that add up to
    hundreds of megabytes. With a C library other than glibc, this class does nothing.
    """

    def __init__(self) -> None:
        if malloc_trim := _malloc_trim():
            malloc_trim(0)
        self._least = resident_bytes()

    def after_batch(self) -> None:
        """Give memory back if the process has grown too much. Giving it back takes ten milliseconds or more."""
        resident = resident_bytes()
        if resident - self._least > MOST_GROWTH and (malloc_trim := _malloc_trim()):
            malloc_trim(0)
            resident = self._least = resident_bytes()
        self._least = min(self._least, resident)


def resident_bytes() -> int:
    """Return the number of bytes of this process's resident memory, or 0 on a system without Linux's /proc."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return malloc_trim(3), or None if the C library is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return None
    function = ctypes.CDLL(None).malloc_trim
    function.argtypes = [ctypes.c_size_t]
    return function
