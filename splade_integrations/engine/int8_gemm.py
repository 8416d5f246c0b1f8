"""Products of 8-bit integers on a CPU: which are exact and fast here, and the grid that numbers are rounded to.

Processors with AVX-512's VNNI or AMX instructions add such products up in 32 bits. AVX2 adds each two in 16 bits first,
which overflow, unless one factor keeps to 7 bits: then it is exact there too, and twice as fast as float32. Knows torch
only.
"""

from functools import cache

import torch
from torch import Tensor

__all__ = [
    "EIGHT_BITS",
    "LEAST_STEP",
    "SEVEN_BITS",
    "int8_products_pay",
    "int8_weight_levels",
    "multiply_int8",
    "pack_int8",
    "to_int8_grid",
    "to_unsigned",
]

# Largest magnitudes: of 8 bits, symmetric, so that -128 has no part in it; and of weights on AVX2, where two products
# must stay below 2^15. They are at most 2 · 255 · 64 with tokens on the left, and 2 · 128 · 127 with weights there.
EIGHT_BITS = 127
SEVEN_BITS = 64
# Steps of the grid stay above this, so that dividing by them neither overflows nor loses digits.
LEAST_STEP = 2.0**-100
# Of the products that are tested.
_WIDTHS = (128, 768, 1024, 4096)


def int8_products_pay(device: torch.device) -> bool:
    """Whether int8 products are exact and about twice as fast as float32 ones, or faster, on this device."""
    return device.type == "cpu" and int8_weight_levels() is not None


@cache
def int8_weight_levels() -> int | None:
    """The largest magnitude that weights may have in an int8 product on this processor; what they meet may have 127.

    127 with AVX-512's VNNI or AMX instructions, 64 with AVX2 or AVX-512 alone, None without. That sums are exact is
    tested for the product that the two-pass head takes: `torch._int_mm`, which is fast with the former only, or
    `multiply_int8`.
    """
    if not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return None
    if torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported():
        rows = (_filled(EIGHT_BITS, width, torch.int8) for width in _WIDTHS)
        return EIGHT_BITS if all((torch._int_mm(row, row.T) == 127**2 * row.shape[1]).all() for row in rows) else None
    wide = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return SEVEN_BITS if wide and _is_exact(SEVEN_BITS) else None


def to_int8_grid(vectors: Tensor, largest: Tensor, levels: int = EIGHT_BITS) -> tuple[Tensor, Tensor]:
    """Round to multiples of a step.

    Args:
        vectors: (…, H) float32.
        largest: Largest magnitude that shares a step. Broadcasts to `vectors`.
        levels: The integer that it becomes.
    Returns:
        Integers from -levels to levels, (…, H) int8, and steps of `largest`'s shape: vectors ≈ step · integers.
    """
    step = (largest / levels).clamp_min(LEAST_STEP)
    # At most `levels`, as float32 division is monotone.
    return torch.round(vectors / step).to(torch.int8), step


def to_unsigned(integers: Tensor) -> Tensor:
    """Weights from -64 to 64, int8, as a left factor of `multiply_int8`, uint8, in which 64 stands for 0."""
    return (integers + SEVEN_BITS).view(torch.uint8)  # 128, which int8 has not, wraps around to the same byte


def pack_int8(integers: Tensor) -> Tensor:
    """The right factor of `multiply_int8`, (N, K) int8, laid out as oneDNN's kernels read it.

    That layout is opaque and has no way to other devices, so that what holds it must not be a buffer.
    """
    packed: Tensor = torch.ops.onednn.qlinear_prepack(integers, None)
    return packed


def multiply_int8(left: Tensor, zero: int, packed: Tensor, steps: Tensor) -> Tensor:
    """steps[n] · sum over k of (left[m, k] - zero) · right[n, k], whose sums are of integers in 32 bits.

    Exact where one factor are weights of up to `int8_weight_levels`, be it the right one or `to_unsigned` on the left.

    Args:
        left: (M, K) uint8.
        zero: What stands for 0 in it.
        packed: The right factor as `pack_int8` gives it.
        steps: (N,) float32.
    Returns:
        (M, N) float32.
    """
    zeros = torch.zeros(len(steps), dtype=torch.int64, device=steps.device)
    product: Tensor = torch.ops.onednn.qlinear_pointwise(
        left, 1.0, zero, packed, steps, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return product


def _is_exact(levels: int) -> bool:
    """Whether sums are: as large as they can be, where large ones cancel but for 1, and of numbers of any kind."""
    steps = torch.ones(64, dtype=torch.float32, device="cpu")
    for width in _WIDTHS:
        for left, right in ((255, levels), (0, levels), (255, -levels), (2 * levels, 127), (2 * levels, -127)):
            factors = _filled(left, width, torch.uint8), _filled(right, width, torch.int8)
            product = multiply_int8(factors[0], levels, pack_int8(factors[1]), steps)
            if not (product == (left - levels) * right * width).all():
                return False
        # Of 4 096 the sum is above 2^24 and odd before `levels` is taken away: float32 would round it.
        weights, tokens = _filled(levels, width, torch.uint8), _filled(127, width, torch.int8)
        weights[:, 0], tokens[:, 0] = levels + 1, 1
        if not (multiply_int8(weights, levels, pack_int8(tokens), steps) == 1).all():
            return False
    return all(_is_exact_for(rows, zero, levels) for rows in (1, 37) for zero in (0, levels, 128))


def _is_exact_for(rows: int, zero: int, levels: int) -> bool:
    """The same for numbers without a pattern, and sizes that fit no block."""
    chance = torch.Generator("cpu").manual_seed(rows)
    tokens = torch.randint(0, 256, (rows, 771), generator=chance, device="cpu")
    weights = torch.randint(-levels, levels + 1, (70, 771), generator=chance, device="cpu")
    steps = 2.0 ** -torch.arange(70, dtype=torch.float32, device="cpu")
    product = multiply_int8(tokens.to(torch.uint8), zero, pack_int8(weights.to(torch.int8)), steps)
    return torch.equal(product, ((tokens - zero) @ weights.T).float() * steps)


def _filled(number: int, width: int, dtype: torch.dtype) -> Tensor:
    return torch.full((64, width), number, dtype=dtype, device="cpu")
