"""How fast are we beside others? Time encoders next to busy neighbours, on fewer cores, and in several processes.

    python -m benchmarks.contention FOLDER [--model tiny|base] [--dtypes float32 int8] [--before CHECKOUT] [--json OUT]

CHECKOUT is a folder with an older version of this package, which is timed in the same rounds ("before"). Each encoder
runs in processes of its own with torch's default threads, and one encoder works at a time. A neighbour is a process
that spins.

Conditions: a quiet machine; one neighbour for each two cores; two for each two cores; and half of the cores (taskset's
way, since a quota needs rights that not every machine gives). Then 1, 2 and 4 worker processes that encode the same
texts at once; and one query at a time, quiet and beside a neighbour. All conditions of all encoders are interleaved.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.measuring import describe_environment, format_table, interleave, ratio, spread, write_json
from benchmarks.workload import evenly_spaced, load_dataset, model_path

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parents[1]
_MAX_LENGTH = 256
# The process of an encoder. It reads a line for each call, {"texts": how many, "calls": how often}, and writes seconds.
_SERVER = """
import json, logging, sys, time
kind, dtype, folder, file, query = sys.argv[1:]
logging.disable(logging.WARNING)
texts = json.load(open(file, encoding="utf-8"))
if kind == "sentence-transformers":
    from sentence_transformers import SparseEncoder
    model = SparseEncoder(folder, device="cpu")
    model.max_seq_length = 256
    encode = lambda some: model.encode_document(some, batch_size=int(dtype), convert_to_sparse_tensor=True)
else:
    from splade_integrations import SpladeEncoder
    backend, _, precision = dtype.rpartition("-")
    model = SpladeEncoder(folder, device="cpu", dtype=precision, backend=backend or "torch", max_length=256)
    encode = model.encode_documents
for line in sys.stdin:
    asked = json.loads(line)
    some = texts[: asked["texts"]] if asked["texts"] else [query]
    seconds = []
    for _ in range(asked["calls"]):
        start = time.perf_counter()
        encode(some)
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds), flush=True)
"""
_SPIN = "while True: pass"


class _Server:
    """An encoder in a process of its own."""

    def __init__(self, kind: str, dtype: str, package: Path, files: tuple[str, str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SERVER, kind, dtype, *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(package)},
            cwd=package,
        )

    def ask(self, texts: int, calls: int = 1) -> None:
        """Start to encode this many texts, or one query for 0, this often."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"texts": texts, "calls": calls}) + "\n")
        self._process.stdin.flush()

    def seconds(self) -> list[float]:
        """Wait for the answer."""
        assert self._process.stdout is not None
        found: list[float] = json.loads(self._process.stdout.readline())
        return found

    def limit(self, cores: set[int]) -> None:
        """Let all its threads run on these cores only."""
        for thread in Path(f"/proc/{self._process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def _neighbours(number: int) -> Iterator[None]:
    spinning = [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(number)]
    try:
        time.sleep(0.2 if spinning else 0)
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def _rate(servers: list[_Server], texts: int, neighbours: int, cores: set[int] | None = None) -> float:
    """Return the seconds that these processes take to encode the texts, each all of them."""
    everywhere = os.sched_getaffinity(0)
    if cores:
        servers[0].limit(cores)
    with _neighbours(neighbours):
        start = time.perf_counter()
        for server in servers:
            server.ask(texts)
        for server in servers:
            server.seconds()
        seconds = time.perf_counter() - start
    if cores:
        servers[0].limit(everywhere)
    return seconds / len(servers)


def _latencies(server: _Server, calls: int, neighbours: int) -> list[float]:
    with _neighbours(neighbours):
        server.ask(0, calls)
        return server.seconds()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit status."""
    options = _parser().parse_args(arguments)
    dataset = load_dataset(options.folder)
    folder = model_path(options.model, dataset)
    documents = evenly_spaced(dataset.documents, options.texts)
    file = Path(options.work) / "contention-texts.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(documents), encoding="utf-8")
    queries = sorted(dataset.queries, key=len)
    files = (folder, str(file.resolve()), queries[len(queries) // 2])
    cores = sorted(os.sched_getaffinity(0))
    pairs = max(1, len(cores) // 2)
    kinds: list[tuple[str, str, str, Path]] = []
    for dtype in options.dtypes:
        kinds.append((f"ours, {dtype}", "ours", dtype, _ROOT))
        if options.before:
            kinds.append((f"before, {dtype}", "ours", dtype, options.before.resolve()))
    kinds += [
        (f"sentence-transformers, batch {size}", "sentence-transformers", str(size), _ROOT) for size in options.peers
    ]
    with ExitStack() as stack:
        servers: dict[str, list[_Server]] = {}
        for name, kind, dtype, package in kinds:
            workers = max(options.workers) if kind == "ours" and options.workers else 1
            servers[name] = [_Server(kind, dtype, package, files) for _ in range(workers)]
            for server in servers[name]:
                stack.callback(server.close)
        for name, own in servers.items():  # load and warm
            for server in own:
                server.ask(len(documents))
                if not _answers(server):
                    print(f"without {name}: it does not run here")
                    servers = {other: kept for other, kept in servers.items() if other != name}
                    break
        conditions: dict[tuple[str, str], Callable[[], float]] = {}
        lone: dict[tuple[str, str], list[float]] = {}
        for name, own in servers.items():
            one = partial(_rate, own[:1], len(documents))
            conditions[name, "quiet"] = partial(one, 0)
            conditions[name, "one neighbour a pair"] = partial(one, pairs)
            conditions[name, "two a pair"] = partial(one, 2 * pairs)
            conditions[name, "half the cores"] = partial(one, 0, set(cores[: max(1, len(cores) // 2)]))
            for number in options.workers if len(own) > 1 else ():
                conditions[name, f"{number} processes"] = partial(_rate, own[:number], len(documents), 0)
            for title, neighbours in (("quiet", 0), ("neighbour", pairs)):
                lone[name, title] = []
                conditions[name, f"query, {title}"] = partial(
                    _query, own[0], options.calls, neighbours, lone[name, title]
                )
        seconds = interleave({" | ".join(key): call for key, call in conditions.items()}, options.rounds)
    return _report(options, seconds, lone, len(documents), pairs)


def _answers(server: _Server) -> bool:
    try:
        server.seconds()
    except ValueError:  # an empty line: it has ended
        return False
    return True


def _query(server: _Server, calls: int, neighbours: int, into: list[float]) -> float:
    found = _latencies(server, calls, neighbours)
    into += found
    return median(found)


def _report(
    options: argparse.Namespace,
    seconds: dict[str, list[float]],
    lone: dict[tuple[str, str], list[float]],
    texts: int,
    pairs: int,
) -> int:
    print(describe_environment())
    print(f"{options.model}: {texts} texts; {options.rounds} rounds; {pairs} pairs of cores\n")
    rows, names = [], list(dict.fromkeys(key.split(" | ")[0] for key in seconds))
    for key, values in seconds.items():
        name, condition = key.split(" | ")
        if condition.startswith("query"):
            continue
        quiet = seconds[f"{name} | quiet"]
        ours = seconds.get(f"{names[0]} | {condition}", values)
        rows.append(
            [name, condition, spread(texts / value for value in values), ratio(quiet, values), ratio(values, ours)]
        )
    print(format_table(["encoder", "condition", "texts/s", "of its quiet rate", f"{names[0]} is × faster"], rows))
    print()
    tails = {key: (median(values), quantiles(values, n=100)[98]) for key, values in lone.items()}
    table = []
    for name in names:
        quiet_p50, quiet_p99 = tails[name, "quiet"]
        busy_p50, busy_p99 = tails[name, "neighbour"]
        figures = [f"{1000 * value:.1f}" for value in (quiet_p50, quiet_p99, busy_p50, busy_p99)]
        table.append([name, *figures, f"{busy_p50 / quiet_p50:.2f}", f"{busy_p99 / quiet_p99:.2f}"])
    header = ["one query, ms", "p50 quiet", "p99 quiet", "p50 beside", "p99 beside", "p50 ×", "p99 ×"]
    print(format_table(header, table))
    report: dict[str, Any] = {"seconds": seconds, "queries": {" | ".join(key): values for key, values in lone.items()}}
    write_json(options.json, report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="contention", description="Speed beside others.")
    parser.add_argument("folder", help="a test collection in BEIR layout")
    parser.add_argument("--model", choices=["tiny", "base"], default="tiny")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "int8"], help="also openvino-int8 and the like")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an older version, timed in the same rounds")
    parser.add_argument("--peers", nargs="*", type=int, default=[1, 4, 32], help="sentence-transformers' batch sizes")
    parser.add_argument("--texts", type=int, default=192)
    parser.add_argument("--calls", type=int, default=60, help="queries a round")
    parser.add_argument("--workers", nargs="*", type=int, default=[1, 2, 4], help="numbers of processes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", default=".cache/benchmarks", help="folder for the texts")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write all figures to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
