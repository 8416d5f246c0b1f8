"""Choose the encoders to compare, start each library in its own process, and compare the encoders' results and times.

A peer is another library that encodes with SPLADE. `benchmarks/peers.py` sets up the peers. If a peer is not installed
or cannot run, it is skipped, and the report states the reason.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from scipy.sparse import csr_array

from benchmarks.measuring import format_table, matrix_product_rate, ratio
from benchmarks.peers import PEERS, SETTINGS, Contestant, UnavailableError
from benchmarks.workers import Worker

__all__ = [
    "Contest",
    "add_contestant_options",
    "best_batch_sizes",
    "check_results",
    "contest",
    "format_headlines",
    "headlines",
    "largest_difference",
]

_TRIALS = 2
# Other libraries may add up products in another order, so their float32 results may differ from ours by this much.
_EXACT = 1e-3


@dataclass(frozen=True)
class Contest:
    """The encoders that compete.

    Args:
        contestants: The encoders that run here. The first one is ours in float32.
        skipped: The encoders that do not run here, as {name: reason}.
        ours: The process of our encoder in float32.
    """

    contestants: list[Contestant]
    skipped: dict[str, str]
    ours: Worker

    def matrix_product_rate(self, dtype: torch.dtype) -> float:
        """Return the FLOP/s of plain matrix products, measured in our encoder's process."""
        rate: float = self.ours.call(matrix_product_rate, dtype)
        return rate


def add_contestant_options(parser: argparse.ArgumentParser) -> None:
    """Add FOLDER, `--model`, `--max-length`, `--dtypes` and `--only`."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a dataset in BEIR layout, such as SciFact")
    parser.add_argument(
        "--model",
        default="tiny",
        help="tiny (trained, small), base (BERT-base's size, random weights) or a folder (default: tiny)",
    )
    parser.add_argument(
        "--max-length", type=int, default=256, help="the largest number of tokens of a text (default: %(default)s)"
    )
    parser.add_argument(
        "--dtypes",
        nargs="+",
        default=list(SETTINGS),
        help=f"settings of our encoder to run: some of {', '.join(SETTINGS)} (default: all)",
    )
    parser.add_argument("--only", nargs="*", metavar="NAME", help="run only the peers whose names contain one of these")


@contextmanager
def contest(folder: str, options: argparse.Namespace) -> Iterator[Contest]:
    """Start all encoders on the checkpoint in `folder`, each library in its own process, and end them afterwards.

    In its own process, a library runs as its users run it: no other library can change its process-wide settings or the
    state of its memory allocator. This state can change torch's speed on a CPU by a quarter.

    Args:
        folder: A BERT-like checkpoint.
        options: The command's options. Only `max_length`, `dtypes`, `threads` and `only` are read.
    Raises:
        UnavailableError: Our encoder does not run in float32.
    """
    mine = [f"ours {setting}" for setting in dict.fromkeys(["float32", *options.dtypes])]
    theirs = [name for name in PEERS if options.only is None or any(part in name for part in options.only)]
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        workers = []
        for name in [*mine, *theirs]:
            print(f"  starting {name} …", file=sys.stderr, flush=True)
            try:
                workers.append(stack.enter_context(closing(Worker(name, folder, options))))
            except UnavailableError as err:
                skipped[name] = str(err)
        if mine[0] in skipped:
            raise UnavailableError(skipped[mine[0]])
        yield Contest([one for worker in workers for one in worker.contestants], skipped, workers[0])


def best_batch_sizes(found: list[Contestant], texts: Sequence[str]) -> tuple[list[Contestant], dict[str, float]]:
    """Try the batch sizes of each backend. Return the contestants at the fastest sizes, and the seconds of each trial.

    The contestant at a library's default batch size is always returned and needs no trial, because the few texts of a
    trial would not fill such a batch.
    """
    by_backend: dict[str, list[Contestant]] = {}
    for contestant in found:
        if not contestant.keep:
            by_backend.setdefault(contestant.backend, []).append(contestant)
    seconds: dict[str, float] = {}
    best: set[str] = set()
    for rivals in by_backend.values():
        if len(rivals) > 1:
            for rival in rivals:
                rival.rows(texts[:2])
                seconds[rival.name] = min(rival.seconds(texts, 1) for _ in range(_TRIALS))
        best.add(min(rivals, key=lambda rival: seconds.get(rival.name, 0)).name)
    return [contestant for contestant in found if contestant.keep or contestant.name in best], seconds


def check_results(found: Sequence[Contestant], texts: Sequence[str]) -> dict[str, float]:
    """Return the largest difference between each encoder's term weights and ours in float32. Also warm up the encoders.

    Raises:
        SystemExit: An encoder that must return the same weights as ours in float32 returns other weights. Its times
            would not be comparable.
    """
    reference = found[0].rows(texts)
    differences = {contestant.name: largest_difference(contestant.rows(texts), reference) for contestant in found}
    for contestant in found:
        if contestant.exact and not differences[contestant.name] <= _EXACT:
            raise SystemExit(
                f"{contestant.name} must give the same weights as ours in float32, got a difference of "
                f"{differences[contestant.name]:.2g}. Find out which encoder is wrong before you compare times."
            )
    return differences


def largest_difference(found: csr_array, expected: csr_array) -> float:
    """Return the largest absolute difference between the weights of two matrices."""
    return float(abs(found - expected).max())


def headlines(found: Sequence[Contestant], seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Return peers' times divided by ours, for settings with equal results and for the fastest settings.

    Args:
        found: The contestants that were timed.
        seconds: For each contestant, its seconds in each round.
    Returns:
        {question: {"ours": name, "theirs": name, "ratio": Spread}}. The word "its" in a question refers to
        sentence-transformers. A question is left out if no timed encoder is of the kind that the question is about.
    """

    def fastest(rivals: Iterable[Contestant]) -> str | None:
        return min((rival.name for rival in rivals), key=lambda name: median(seconds[name]), default=None)

    mine = [contestant for contestant in found if contestant.name.startswith("ours")]
    theirs = [contestant for contestant in found if contestant.name.startswith("s-t")]
    milvus = [contestant for contestant in found if contestant.name.startswith("milvus-model")]
    exact = fastest(peer for peer in mine if peer.exact)
    pairs = {
        "float32 against its torch at the default batch": (mine[0].name, fastest(peer for peer in theirs if peer.keep)),
        "float32 against its torch": (mine[0].name, fastest(peer for peer in theirs if peer.backend == "s-t torch")),
        "float32 against its fastest at equal results": (exact, fastest(peer for peer in theirs if peer.exact)),
        "fastest against its fastest": (fastest(mine), fastest(theirs)),
        "float32 against milvus-model": (mine[0].name, fastest(milvus)),
    }
    return {
        question: {"ours": ours, "theirs": their, "ratio": ratio(seconds[their], seconds[ours])}
        for question, (ours, their) in pairs.items()
        if ours and their
    }


def format_headlines(lines: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the result of `headlines` as a table."""
    rows = [[question, line["ours"], line["theirs"], line["ratio"]] for question, line in lines.items()]
    return format_table(["ours against sentence-transformers'", "ours", "theirs", "times as long as ours"], rows)
