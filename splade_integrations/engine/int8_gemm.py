"""Exact matrix products of 8-bit integers on a CPU, and the quantisation of numbers for them.

A matrix product sums products of two integers. AVX-512's VNNI instructions and AMX add these products in 32 bits. AVX2
first adds two of these products in 16 bits, and such a sum can overflow if both factors have 8 bits. If one factor has
only 7 bits, the matrix product is exact on AVX2 as well, and twice as fast as in float32.
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

# The largest magnitudes of quantised numbers. The 8-bit range is symmetric, so -128 is not used. On AVX2, weights have
# 7 bits, because the sum of two products must stay below 2^15. The left factor of a product is unsigned. If tokens are
# the left factor, the sum is at most 2 · 255 · 64. If weights are the left factor, `to_unsigned` has shifted them to
# the range from 0 to 128. The sum is then at most 2 · 128 · 127.
QMAX_8BIT = 127
QMAX_7BIT = 64
# Scales (see `quantize`) are at least this large, so that dividing by them neither overflows nor loses digits.
LEAST_SCALE = 2.0**-100
# The row lengths K for which products are tested.
_WIDTHS = (128, 768, 1024, 4096)


def int8_products_pay(device: torch.device) -> bool:
    """Return whether int8 products are exact on this device, and at least about twice as fast as float32."""
    return device.type == "cpu" and int8_weight_qmax() is not None


@cache
def int8_weight_qmax() -> int | None:
    """Return the largest magnitude that weights may have in an int8 product on this processor.

    The other factor may have magnitudes of up to 127 as int8, and up to 255 as uint8. The result is 127 on processors
    with AMX or with AVX-512's VNNI instructions. It is 64 on processors that have only AVX2 or AVX-512, and None on
    other processors. `TwoPassHead` multiplies with `torch._int_mm` on processors with VNNI or AMX. On other
    processors `torch._int_mm` is slow, so this head multiplies with `multiply_int8`. This function tests the operation
    that the head uses on this processor. If the operation's sums are not exact, the result is None.
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
    """Round vectors to multiples of a scale: vectors ≈ scale · integers.

    Args:
        vectors: (…, H) float32.
        largest: The largest magnitude of the numbers that share a scale. Its shape broadcasts to that of `vectors`.
        qmax: The integer that `largest` becomes.
    Returns:
        Integers from -qmax to qmax, (…, H) int8, and scales of `largest`'s shape.
    """
    scale = (largest / qmax).clamp_min(LEAST_SCALE)
    # No integer exceeds `qmax`, because `largest` becomes `qmax` and float32 division is monotone.
    return torch.round(vectors / scale).to(torch.int8), scale


def to_unsigned(integers: Tensor) -> Tensor:
    """Turn int8 weights from -64 to 64 into uint8, as a left factor of `multiply_int8`. In the result, 64 means 0."""
    return (integers + QMAX_7BIT).view(torch.uint8)  # 128 is too large for int8, but wraps around to the same byte


def pack_int8(integers: Tensor) -> Tensor:
    """Return the right factor of `multiply_int8`, (N, K) int8, in the layout that oneDNN's kernels read.

    A tensor in this layout cannot be moved to other devices, so a module must not register the result as a buffer.
    """
    packed: Tensor = torch.ops.onednn.qlinear_prepack(integers, None)
    return packed


def multiply_int8(left: Tensor, zero_point: int, packed: Tensor, scales: Tensor) -> Tensor:
    """Return scales[n] · sum over k of (left[m, k] - zero_point) · right[n, k], summed as 32-bit integers.

    The product is exact if one factor holds weights of at most `int8_weight_qmax()` in magnitude. The weights may be
    the right factor, or the left factor after `to_unsigned`.

    Args:
        left: (M, K) uint8.
        zero_point: The number that stands for 0 in the left factor.
        packed: The right factor as `pack_int8` returns it.
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
    """Return whether `multiply_int8` is exact for weights from -`qmax` to `qmax`.

    The function tests products with the largest sums, products whose large summands cancel so that 1 remains, and
    products of random numbers.
    """
    scales = torch.ones(64, dtype=torch.float32, device="cpu")
    for width in _WIDTHS:
        for left, right in ((255, qmax), (0, qmax), (255, -qmax), (2 * qmax, 127), (2 * qmax, -127)):
            factors = _filled(left, width, torch.uint8), _filled(right, width, torch.int8)
            product = multiply_int8(factors[0], qmax, pack_int8(factors[1]), scales)
            if not (product == (left - qmax) * right * width).all():
                return False
        # The kernel may first sum left · right, and then subtract qmax · right. At width 4 096 the first sum is odd and
        # above 2^24, so float32 would round it.
        weights, tokens = _filled(qmax, width, torch.uint8), _filled(127, width, torch.int8)
        weights[:, 0], tokens[:, 0] = qmax + 1, 1
        if not (multiply_int8(weights, qmax, pack_int8(tokens), scales) == 1).all():
            return False
    return all(_is_exact_for(rows, zero_point, qmax) for rows in (1, 37) for zero_point in (0, qmax, 128))


def _is_exact_for(rows: int, zero_point: int, qmax: int) -> bool:
    """Return whether sums are exact for random numbers.

    The sizes are not multiples of a kernel's block size, so that the incomplete last block is tested as well.
    """
    generator = torch.Generator("cpu").manual_seed(rows)
    tokens = torch.randint(0, 256, (rows, 771), generator=generator, device="cpu")
    weights = torch.randint(-qmax, qmax + 1, (70, 771), generator=generator, device="cpu")
    scales = 2.0 ** -torch.arange(70, dtype=torch.float32, device="cpu")
    product = multiply_int8(tokens.to(torch.uint8), zero_point, pack_int8(weights.to(torch.int8)), scales)
    return torch.equal(product, ((tokens - zero_point) @ weights.T).float() * scales)


def _filled(number: int, width: int, dtype: torch.dtype) -> Tensor:
    return torch.full((64, width), number, dtype=dtype, device="cpu")
