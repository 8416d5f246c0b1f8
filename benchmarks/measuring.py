"""Measure in interleaved rounds, report medians with their spread, and measure the machine's peak rate.

Nothing here depends on an encoder. A contestant is a function that does its work and returns how many seconds it took.
A round calls each contestant once, so a slow minute of the machine affects all contestants. A ratio compares two
medians. The ratio is also computed for each single round. The spread of a ratio is the range of these single ratios.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from splade_integrations.engine.int8_gemm import QMAX_7BIT, int8_weight_qmax, multiply_int8, pack_int8

__all__ = [
    "PEAK_SHAPES",
    "Spread",
    "add_common_options",
    "describe_environment",
    "environment",
    "format_table",
    "interleave",
    "matrix_product_rate",
    "ratio",
    "spread",
    "timed",
    "write_json",
]

_PACKAGES = (
    "splade-integrations",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "scipy",
    "sentence-transformers",
    "onnx",
    "onnxruntime",
    "openvino",
    "pymilvus.model",
    "yasem",
    "fastembed",
    "pymilvus",
    "milvus-lite",
    "langchain-milvus",
    "llama-index-vector-stores-milvus",
)
# Rows, inner size and columns of two matrix products: a square product, and BERT-base's largest layer. The higher of
# their two rates is the peak.
PEAK_SHAPES = ((2048, 2048, 2048), (512, 768, 3072))
# Each product is repeated for this long, to measure a rate that the machine can sustain.
_PEAK_SECONDS = 0.4


@dataclass(frozen=True)
class Spread:
    """A median, with the smallest and the largest value."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        digits = 0 if self.median >= 100 else 1 if self.median >= 10 else 2
        return f"{self.median:.{digits}f} ({self.least:.{digits}f}–{self.most:.{digits}f})"


def spread(values: Iterable[float]) -> Spread:
    """Return the median, the smallest and the largest of some values.

    Example:
        >>> str(spread([1.0, 2.0, 9.0]))
        '2.00 (1.00–9.00)'
    """
    values = list(values)
    return Spread(median(values), min(values), max(values))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Return the ratio of the medians, with the smallest and the largest of the rounds' own ratios.

    Args:
        numerators: One figure per round.
        denominators: One figure per round, in the same order.

    Example:
        >>> ratio([8.0, 6.0, 12.0], [2.0, 2.0, 2.0])
        Spread(median=4.0, least=3.0, most=6.0)
    """
    rounds = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return Spread(median(numerators) / median(denominators), min(rounds), max(rounds))


def interleave(
    contestants: Mapping[str, Callable[[], float]],
    rounds: int,
    *,
    before_round: Callable[[str], object] | None = None,
) -> dict[str, list[float]]:
    """Call the contestants in turn, A B C, A B C, …, and return the seconds of each contestant in each round.

    Args:
        contestants: Functions that return how many seconds they took. `timed` makes such functions.
        rounds: The number of rounds.
        before_round: Called before each round with a text such as "round 1 of 5". This call is not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        if before_round is not None:
            before_round(f"round {number + 1} of {rounds}")
        gc.collect()
        for name, call in contestants.items():
            seconds[name].append(call())
    return seconds


def timed(call: Callable[[], object], calls: int = 1) -> Callable[[], float]:
    """Return a function that calls `call` `calls` times in a row, and returns the median seconds of a call.

    Example:
        >>> timed(lambda: "slow", calls=3)() < 1
        True
    """
    return lambda: median(_seconds(call) for _ in range(calls))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def matrix_product_rate(dtype: torch.dtype) -> float:
    """Return the FLOP/s of the faster product in `PEAK_SHAPES`, from median times. Int8 operations count as FLOPs."""
    return max(_product_rate(shape, dtype) for shape in PEAK_SHAPES)


def _product_rate(shape: tuple[int, int, int], dtype: torch.dtype) -> float:
    rows, inner, columns = shape
    left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(columns, inner, dtype=dtype)
    product: Callable[[], Tensor] = partial(torch.mm, left, right.T)
    if dtype == torch.int8:
        product = partial(torch._int_mm, left, right.T)
        if int8_weight_qmax() == QMAX_7BIT:  # without VNNI and AMX, `_int_mm` is slow
            product = partial(
                multiply_int8, left.to(torch.uint8), 0, pack_int8(right), torch.ones(columns, dtype=torch.float32)
            )
    times: list[float] = []
    with torch.inference_mode():
        product()
        while sum(times) < _PEAK_SECONDS or len(times) < 3:
            times.append(_seconds(product))
    return 2 * rows * inner * columns / median(times)


def environment() -> dict[str, Any]:
    """Return the versions, the processor, the threads and the load. A reader needs these to judge a figure."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "versions": versions,
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "logical_processors": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def describe_environment() -> str:
    """Return the most important parts of `environment` in one line."""
    facts = environment()
    return f"{facts['processor']} ({facts['instructions']}), {facts['torch_threads']} threads of torch"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table: the first column is aligned to the left, and the others to the right.

    Example:
        >>> print(format_table(["encoder", "texts/s"], [["ours", 12], ["theirs", 3]]))
        encoder  texts/s
        ours          12
        theirs         3
    """
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        first, *rest = (
            cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)


def add_common_options(parser: argparse.ArgumentParser, *, rounds: int = 5) -> None:
    """Add `--json`, `--rounds` and `--threads`."""
    parser.add_argument("--rounds", type=int, default=rounds, help="number of timed rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="threads per contestant (default: torch's own number)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write all figures to this file")


def write_json(file: Path | None, report: Mapping[str, Any]) -> None:
    """Write the command, `environment()` and a report to `file`. Do nothing if `file` is None."""
    if file is None:
        return
    written = {"command": sys.argv, "environment": environment(), **report}
    file.write_text(json.dumps(written, indent=2, ensure_ascii=False, default=_plain) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    return vars(value) if isinstance(value, Spread) else value.item() if hasattr(value, "item") else str(value)
