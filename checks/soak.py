"""Check that the memory, file handles and threads of an encoder and of both stores do not grow over a long run.

    python -m checks.soak [--seconds 300] [--queries 200000] [--rounds 3000] [--threads 32]

First, `--threads` threads share one encoder for `--seconds` seconds. This is repeated for each number type and backend.
The threads mix encode_queries, encode_documents, stream_documents and explain, with texts of different lengths and with
different options. Each result must equal the result of a single thread. Then `--queries` queries run in one process.
Finally, each store adds, searches and deletes documents in `--rounds` rounds, and so does `MilvusClient` alone. The
number 0 skips a part. The exit status is 1 if a result differs, a thread hangs, or memory, handles or threads grow.
"""

import argparse
import gc
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from benchmarks.workload import quiet
from checks.figures import Figures
from checks.rounds import STORES
from splade_integrations import SpladeEncoder
from splade_integrations.engine.memory import resident_bytes
from splade_integrations.models.offline import splade_model_path

__all__ = ["main", "mixed_threads", "queries", "rounds"]

# The largest allowed difference between two results for the same text, for each number type and backend. Such results
# differ only because sums are added up in different orders. (The differences in docs/speed.md are differences from
# float32.)
_TOLERANCES = {
    ("float32", "torch"): 1e-4,
    ("bfloat16", "torch"): 0.15,
    ("int8", "torch"): 0.15,
    ("float32", "openvino"): 1e-4,
}
_MOST_MIB_PER_10000_QUERIES = 1.0
_MOST_MIB_PER_100_ROUNDS = 2.0
_WORDS = (*("the", "a", "cat", "dog", "Turing", "broke", "Enigma", "cipher", "in", "London"), *("machine", "learning"),
          *("model", "sparse", "term", "weight", "index"))  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m checks.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300, help="time of mixed threads per type (default 300)")
    parser.add_argument("--queries", type=int, default=200_000, help="number of queries (default 200000)")
    parser.add_argument("--rounds", type=int, default=3000, help="rounds of each store (default 3000)")
    parser.add_argument("--threads", type=int, default=32, help="number of threads (default 32)")
    parser.add_argument("--only", nargs="+", choices=[f"{dtype}/{backend}" for dtype, backend in _TOLERANCES])
    parser.add_argument("--rounds-of", choices=list(STORES), help="print the growth of one store, as JSON")
    options = parser.parse_args(arguments)
    quiet()
    if options.rounds_of:
        print(json.dumps(_growth(options.rounds_of, options.rounds)))
        return 0
    figures = Figures()
    for dtype, backend in _TOLERANCES:
        if options.seconds and f"{dtype}/{backend}" in (options.only or [f"{dtype}/{backend}"]):
            mixed_threads(figures, dtype, backend, options.threads, options.seconds)
    if options.queries:
        queries(figures, options.queries)
    if options.rounds:
        rounds(figures, options.rounds)
    return figures.exit_status()


def mixed_threads(
    figures: Figures, dtype: Any, backend: Any, threads: int, seconds: float, *, compare_speed: bool = True
) -> None:
    """Let threads share one encoder, and compare each result with the result of one thread."""
    encoder = SpladeEncoder(splade_model_path(), device="cpu", dtype=dtype, backend=backend, max_length=128)
    tolerance = _TOLERANCES[dtype, backend]
    rng = random.Random(0)
    texts = [" ".join(rng.choices(_WORDS, k=length)) for length in (1, 3, 8, 20, 60, 150) for _ in range(4)]
    tasks = _tasks(encoder, texts)
    expected = [task() for task in tasks]
    wrong: list[str] = []
    done = [0] * threads
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        choose = random.Random(number)
        while time.monotonic() < end and not wrong:
            place = choose.randrange(len(tasks))
            try:
                difference = _difference(tasks[place](), expected[place])
            except Exception as err:
                wrong.append(f"task {place} raised {type(err).__name__}: {err}")
                return
            if difference > tolerance:
                wrong.append(f"task {place} differs by {difference:.2g}")
            done[number] += 1

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(end + 120 - time.monotonic())
    hanging = sum(worker.is_alive() for worker in workers)
    name = f"{threads} threads, {dtype}, {backend}"
    figures.add(f"{name}: results equal those of one thread", not wrong, wrong or f"{sum(done)} within {tolerance}")
    figures.add(f"{name}: no thread hangs or starves", not hanging and min(done) > 0, f"{hanging} hang")
    if compare_speed and not hanging and not wrong:
        together, alone = _calls_per_second(tasks, threads, min(seconds / 10, 10))
        fast = together >= 0.9 * alone
        figures.add(f"{name}: no slower than one thread", fast, f"{together:.0f} calls a second, alone {alone:.0f}")


def _tasks(encoder: SpladeEncoder, texts: list[str]) -> list[Callable[[], Any]]:
    """Return functions that call the encoder in many ways. Each function must return the same result every time."""
    tasks: list[Callable[[], Any]] = []
    for start in range(0, len(texts), 3):
        some = texts[start : start + 3]
        tasks += [
            lambda some=some: encoder.encode_queries(some),  # type: ignore[misc]
            lambda some=some: encoder.encode_documents(some + texts[:1]),  # type: ignore[misc]
            lambda some=some: encoder.encode_documents(some, show_progress=_ignored),  # type: ignore[misc]
            lambda some=some: _joined(encoder.stream_documents(iter(some * 2), block_rows=2)),  # type: ignore[misc]
            lambda some=some: encoder.explain(some[0], some[1]).score,  # type: ignore[misc]
        ]
    return tasks


def _ignored(texts: int) -> None:
    """Do not report progress."""


def _joined(blocks: Any) -> csr_array:
    from scipy.sparse import vstack

    return csr_array(vstack(list(blocks)))


def _difference(found: Any, expected: Any) -> float:
    if isinstance(expected, int | float):  # a score, which is 0 if no term is shared
        return float(abs(found - expected) / max(1.0, abs(expected)))
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max())


def _calls_per_second(tasks: list[Callable[[], Any]], threads: int, seconds: float) -> tuple[float, float]:
    """Return the calls per second of `threads` threads, and of the main thread alone: medians of five rounds in turns.

    A round takes `seconds` seconds for each of the two.
    """

    def call(number: int) -> None:
        choose = random.Random(number)
        while time.monotonic() < end:
            choose.choice(tasks)()
            done[number] += 1

    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(5):
        for several in (True, False):
            done = [0] * threads
            start = time.monotonic()
            end = start + seconds
            workers = [threading.Thread(target=call, args=(number,)) for number in range(threads if several else 0)]
            for worker in workers:
                worker.start()
            if not several:
                call(0)
            for worker in workers:
                worker.join()
            rates[not several].append(sum(done) / (time.monotonic() - start))
    return median(rates[0]), median(rates[1])


def queries(figures: Figures, number: int) -> None:
    """Encode many queries in this process. Compare its memory, handles and threads after a warm-up and at the end."""
    encoder = SpladeEncoder(splade_model_path(), device="cpu")
    rng = random.Random(0)
    warm_up = max(number // 10, 200)
    start = _state()
    for count in range(warm_up + number):
        if count == warm_up:
            start = _state()
        encoder.encode_queries([" ".join(rng.choices(_WORDS, k=rng.randint(1, 12))) + f" {count}"])
    end = _state()
    slope = (end["mib"] - start["mib"]) * 10_000 / number
    figures.add(f"memory over {number} queries", slope <= _MOST_MIB_PER_10000_QUERIES, f"{slope:+.2f} MiB in 10,000")
    same = end["handles"] <= start["handles"] and end["threads"] <= start["threads"]
    figures.add("file handles and threads after the queries", same, f"{start} at first, {end} at the end")


def rounds(figures: Figures, number: int) -> None:
    """Compare the memory growth of both stores with that of `MilvusClient` alone, each in its own process."""
    found: dict[str, Any] = {}
    for store in STORES:
        command = [sys.executable, "-W", "ignore", "-m", "checks.soak", "--rounds-of", store, "--rounds", str(number)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            figures.add(f"{number} rounds of {store}", False, done.stderr[-500:])
            return
        found[store] = json.loads(done.stdout.splitlines()[-1])
    bare = found.pop("MilvusClient")
    print(f"     MilvusClient alone grows by {bare['slope']:+.2f} MiB in 100 rounds, {bare['end']}")
    for store, grown in found.items():
        above = grown["slope"] - bare["slope"]
        text = f"{above:+.2f} MiB in 100 rounds ({grown['slope']:+.2f} in all)"
        figures.add(f"memory of {store} above MilvusClient", above <= _MOST_MIB_PER_100_ROUNDS, text)
        more = {key: grown["end"][key] - grown["start"][key] for key in ("handles", "threads")}
        figures.add(f"handles and threads of {store}", max(more.values()) <= 2, f"{more} more, {grown['end']}")


def _state() -> dict[str, Any]:
    gc.collect()
    count = {"handles": "/proc/self/fd", "threads": "/proc/self/task"}
    return {"mib": round(resident_bytes() / 2**20, 2)} | {
        key: len(list(Path(path).iterdir())) for key, path in count.items()
    }


def _growth(store: str, number: int) -> dict[str, Any]:
    """Add, search and delete documents in rounds. Return the growth after a warm-up, in MiB per 100 rounds."""
    with tempfile.TemporaryDirectory() as folder:
        one_round = STORES[store](str(Path(folder) / "a.db"))
        warm_up = max(50, number // 10)
        start = _state()
        for count in range(warm_up + number):
            if count == warm_up:
                start = _state()
            one_round([f"{count}-{document}" for document in range(16)])
        end = _state()
    return {"start": start, "end": end, "slope": (end["mib"] - start["mib"]) * 100 / number}


if __name__ == "__main__":
    sys.exit(main())
