"""Exact products of 8-bit integers on a CPU, and the scales that numbers are quantised with.

Processors with AVX-512's VNNI or AMX instructions sum such products in 32 bits. AVX2 first sums each two in 16 bits,
which overflow unless one factor keeps to 7 bits. With 7 bits the product is exact there as well, and twice as fast as
float32. Knows torch only.
"""

from functools import cache

import torch
from torch import Tensor

__all__ = [
    "LEAST_SCALE",
    "QMAX_7BIT",
    "QMAX_8BIT",
    "int8_products_pay",
    "int8_weight_qmax",
    "multiply_int8",
    "pack_int8",
    "quantize",
    "to_unsigned",
]

# Largest magnitudes. Of 8 bits, symmetric, so that -128 is not used. And of weights on AVX2, where two products must
# stay below 2^15: they are at most 2 · 255 · 64 with tokens as the left factor, and 2 · 128 · 127 with weights there.
QMAX_8BIT = 127
QMAX_7BIT = 64
# Scales stay above this, so that dividing by them neither overflows nor loses digits.
LEAST_SCALE = 2.0**-100
# Widths of the products that are tested.
_WIDTHS = (128, 768, 1024, 4096)


def int8_products_pay(device: torch.device) -> bool:
    """Return whether int8 products are exact and about twice as fast as float32 ones, or faster, on this device."""
    return device.type == "cpu" and int8_weight_qmax() is not None


@cache
def int8_weight_qmax() -> int | None:
    """Return the largest magnitude that weights may have in an int8 product here; the other factor may have 127.

    It is 127 with AVX-512's VNNI or AMX instructions, 64 with AVX2 or AVX-512 alone, and None without. The product
    that the two-pass head uses is tested for exact sums: `torch._int_mm`, which is fast with VNNI or AMX only, or
    `multiply_int8`.
    """
    if not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return None
    if torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported():
        rows = (_filled(QMAX_8BIT, width, torch.int8) for width in _WIDTHS)
        exact = all((torch._int_mm(row, row.T) == QMAX_8BIT**2 * row.shape[1]).all() for row in rows)
        return QMAX_8BIT if exact else None
    wide = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return QMAX_7BIT if wide and is_exact(QMAX_7BIT) else None


def quantize(vectors: Tensor, largest: Tensor, qmax: int = QMAX_8BIT) -> tuple[Tensor, Tensor]:
    """Round to multiples of a scale: vectors ≈ scale · integers.

    Args:
        vectors: (…, H) float32.
        largest: Largest magnitude that shares a scale. Broadcasts to `vectors`.
        qmax: The integer that `largest` becomes.
    Returns:
        Integers from -qmax to qmax, (…, H) int8, and scales of `largest`'s shape.
    """
    scale = (largest / qmax).clamp_min(LEAST_SCALE)
    # At most `qmax`, because float32 division is monotone.
    return torch.round(vectors / scale).to(torch.int8), scale


def to_unsigned(integers: Tensor) -> Tensor:
    """Turn int8 weights from -64 to 64 into a left factor of `multiply_int8`: uint8, in which 64 stands for 0."""
    return (integers + QMAX_7BIT).view(torch.uint8)  # 128 does not fit into int8, but wraps around to the same byte


def pack_int8(integers: Tensor) -> Tensor:
    """Lay out the right factor of `multiply_int8`, (N, K) int8, as oneDNN's kernels read it.

    The layout is opaque and cannot be moved to other devices, so whatever holds it must not register it as a buffer.
    """
    packed: Tensor = torch.ops.onednn.qlinear_prepack(integers, None)
    return packed


def multiply_int8(left: Tensor, zero_point: int, packed: Tensor, scales: Tensor) -> Tensor:
    """Return scales[n] · sum over k of (left[m, k] - zero_point) · right[n, k], summed as 32-bit integers.

    It is exact if one factor holds weights of up to `int8_weight_qmax`: the right one, or the left one made by
    `to_unsigned`.

    Args:
        left: (M, K) uint8.
        zero_point: What stands for 0 in it.
        packed: The right factor as `pack_int8` gives it.
        scales: (N,) float32.
    Returns:
        (M, N) float32.
    """
    zeros = torch.zeros(len(scales), dtype=torch.int64, device=scales.device)
    product: Tensor = torch.ops.onednn.qlinear_pointwise(
        left, 1.0, zero_point, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return product


def is_exact(qmax: int) -> bool:
    """Return whether sums are exact: at their largest, when large terms cancel down to 1, and for arbitrary numbers."""
    scales = torch.ones(64, dtype=torch.float32, device="cpu")
    for width in _WIDTHS:
        for left, right in ((255, qmax), (0, qmax), (255, -qmax), (2 * qmax, 127), (2 * qmax, -127)):
            factors = _filled(left, width, torch.uint8), _filled(right, width, torch.int8)
            product = multiply_int8(factors[0], qmax, pack_int8(factors[1]), scales)
            if not (product == (left - qmax) * right * width).all():
                return False
        # At width 4 096 the sum is above 2^24 and odd before `qmax` is subtracted: float32 would round it.
        weights, tokens = _filled(qmax, width, torch.uint8), _filled(127, width, torch.int8)
        weights[:, 0], tokens[:, 0] = qmax + 1, 1
        if not (multiply_int8(weights, qmax, pack_int8(tokens), scales) == 1).all():
            return False
    return all(_is_exact_for(rows, zero_point, qmax) for rows in (1, 37) for zero_point in (0, qmax, 128))


def _is_exact_for(rows: int, zero_point: int, qmax: int) -> bool:
    """Return the same for numbers without a pattern, and sizes that no block divides."""
    generator = torch.Generator("cpu").manual_seed(rows)
    tokens = torch.randint(0, 256, (rows, 771), generator=generator, device="cpu")
    weights = torch.randint(-qmax, qmax + 1, (70, 771), generator=generator, device="cpu")
    scales = 2.0 ** -torch.arange(70, dtype=torch.float32, device="cpu")
    product = multiply_int8(tokens.to(torch.uint8), zero_point, pack_int8(weights.to(torch.int8)), scales)
    return torch.equal(product, ((tokens - zero_point) @ weights.T).float() * scales)


def _filled(number: int, width: int, dtype: torch.dtype) -> Tensor:
    return torch.full((64, width), number, dtype=dtype, device="cpu")
