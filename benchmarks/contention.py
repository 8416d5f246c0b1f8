"""Measure how fast encoders are while other processes keep the cores busy, and while several processes encode.

    python -m benchmarks.contention FOLDER [--model tiny|base] [--dtypes float32 int8] [--before CHECKOUT] [--peers 4]
    python -m benchmarks.contention FOLDER --only-quiet --before CHECKOUT --dtypes float32 bfloat16 int8 openvino-int8

CHECKOUT is a folder with another version of this package. The benchmark also measures that version, in the same rounds,
and calls it "before". Each encoder runs in processes of its own, with torch's default number of threads. An encoder
does nothing while the others are measured. A neighbour is a process that keeps one core busy.

The conditions are:

- a quiet machine
- one neighbour per two cores
- two neighbours per two cores
- several processes that encode the same texts at the same time

Single queries are measured on a quiet machine, and with one neighbour per two cores. Many short texts, which are
FOLDER's queries, are measured on a quiet machine. A round measures each encoder in each condition once. --only-quiet
leaves out neighbours and several processes.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles

from benchmarks.measuring import describe_environment, format_table, interleave, ratio, spread, write_json
from benchmarks.workload import CACHE, evenly_spaced, load_dataset, model_path

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parents[1]
# The code of a process that holds an encoder. An input line names a group of texts, the number of its texts, and the
# number of calls. For each line, the process prints the seconds of each call.
_SERVER = """
import json, logging, sys, time
kind, variant, folder, file = sys.argv[1:]
logging.disable(logging.WARNING)
texts = json.load(open(file, encoding="utf-8"))
if kind == "sentence-transformers":
    from sentence_transformers import SparseEncoder
    model = SparseEncoder(folder, device="cpu")
    model.max_seq_length = 256
    encode = lambda some: model.encode_document(some, batch_size=int(variant), convert_to_sparse_tensor=True)
else:
    from splade_integrations import SpladeEncoder
    backend, _, dtype = variant.rpartition("-")
    model = SpladeEncoder(folder, device="cpu", dtype=dtype, backend=backend or "torch", max_length=256)
    encode = model.encode_documents
for line in sys.stdin:
    asked = json.loads(line)
    some = texts[asked["group"]][: asked["texts"]]
    seconds = []
    for _ in range(asked["calls"]):
        start = time.perf_counter()
        encode(some)
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds), flush=True)
"""


class _Server:
    """An encoder in a process of its own."""

    def __init__(self, kind: str, variant: str, package: Path, files: tuple[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SERVER, kind, variant, *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(package)},
            cwd=package,
        )

    def ask(self, group: str, texts: int, calls: int = 1) -> None:
        """Start `calls` calls. Each call encodes the first `texts` texts of "documents", "queries" or "query"."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"group": group, "texts": texts, "calls": calls}) + "\n")
        self._process.stdin.flush()

    def seconds(self) -> list[float]:
        """Wait until the calls have ended, and return the seconds of each call."""
        assert self._process.stdout is not None
        found: list[float] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def _neighbours(number: int) -> Iterator[None]:
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        time.sleep(0.2 if spinning else 0)
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def _texts(servers: list[_Server], group: str, texts: int, neighbours: int) -> float:
    """Let all processes encode the texts at the same time. Return the seconds divided by the number of processes."""
    with _neighbours(neighbours):
        for server in servers:  # a process is slow after it has done nothing for a while
            server.ask(group, max(1, texts // 8))
            server.seconds()
        start = time.perf_counter()
        for server in servers:
            server.ask(group, texts)
        for server in servers:
            server.seconds()
        return (time.perf_counter() - start) / len(servers)


def _query(server: _Server, calls: int, neighbours: int, into: list[float]) -> float:
    """Return the median seconds of a query, and add the seconds of all calls to `into`."""
    with _neighbours(neighbours):
        server.ask("query", 1, calls)
        found = server.seconds()
    into += found
    return median(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    dataset = load_dataset(options.folder)
    documents = evenly_spaced(dataset.documents, options.texts)
    file = CACHE / "contention-texts.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    queries = sorted(dataset.queries, key=len)
    short, query = evenly_spaced(dataset.queries, 4 * options.texts), queries[len(queries) // 2]
    texts = {"documents": documents, "queries": short, "query": [query]}
    file.write_text(json.dumps(texts), encoding="utf-8")
    files = (str(model_path(options.model, dataset)), str(file))
    pairs = max(1, len(os.sched_getaffinity(0)) // 2)
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
        for name, kind, variant, package in kinds:
            number = max(options.workers, default=1) if kind == "ours" and not options.only_quiet else 1
            servers[name] = [_Server(kind, variant, package, files) for _ in range(number)]
            for server in servers[name]:
                stack.callback(server.close)
                for group, some in texts.items():  # the first call loads the model. All calls warm it up
                    server.ask(group, len(some))
                    server.seconds()
        conditions: dict[str, Callable[[], float]] = {}
        lone: dict[str, list[float]] = {}
        for name, own in servers.items():
            conditions[f"{name} | quiet"] = partial(_texts, own[:1], "documents", len(documents), 0)
            conditions[f"{name} | quiet, short texts"] = partial(_texts, own[:1], "queries", len(short), 0)
            busy = {} if options.only_quiet else {"one neighbour": pairs, "two neighbours": 2 * pairs}
            for title, neighbours in busy.items():
                conditions[f"{name} | {title}"] = partial(_texts, own[:1], "documents", len(documents), neighbours)
            for number in options.workers if len(own) > 1 else ():
                conditions[f"{name} | {number} processes"] = partial(
                    _texts, own[:number], "documents", len(documents), 0
                )
            for title, neighbours in {"query, quiet": 0, **({"query, one neighbour": pairs} if busy else {})}.items():
                into = lone[f"{name} | {title}"] = []
                conditions[f"{name} | {title}"] = partial(_query, own[0], options.calls, neighbours, into)
        seconds = interleave(conditions, options.rounds)
    print(describe_environment())
    print(f"{options.model}: {len(documents)} texts; {options.rounds} rounds; neighbours are per pair of cores\n")
    print(_rates(seconds, len(documents), len(short)) + "\n\n" + _latencies(lone))
    write_json(options.json, {"seconds": seconds, "queries": lone})
    return 0


def _rates(seconds: dict[str, list[float]], texts: int, short: int) -> str:
    rows = []
    for key, values in seconds.items():
        name, condition = key.split(" | ")
        if not condition.startswith("query"):
            number = short if "short" in condition else texts
            of_quiet = "" if "short" in condition else ratio(seconds[f"{name} | quiet"], values)
            against = seconds.get(f"{_ours(name, seconds)} | {condition}")
            times = ratio(values, against) if against else ""
            rows.append([name, condition, spread(number / value for value in values), of_quiet, times])
    return format_table(["encoder", "condition", "texts/s", "of its quiet rate", "ours is × faster"], rows)


def _ours(name: str, keys: Iterable[str]) -> str:
    """Return the name of this package's encoder with which an encoder is compared.

    "before" is compared with the same number type and backend, and other libraries with the first encoder.
    """
    return name.replace("before", "ours") if name.startswith("before") else next(iter(keys)).split(" | ")[0]


def _latencies(lone: dict[str, list[float]]) -> str:
    found = {key: (median(values), quantiles(values, n=100)[98]) for key, values in lone.items()}
    rows = []
    for key, (p50, p99) in found.items():
        name, condition = key.split(" | ")
        quiet = found[f"{name} | query, quiet"]
        of_quiet = [f"{p50 / quiet[0]:.2f}", f"{p99 / quiet[1]:.2f}"]
        faster = f"{p50 / found[f'{_ours(name, lone)} | {condition}'][0]:.2f}"
        rows.append([name, condition, f"{1000 * p50:.1f}", f"{1000 * p99:.1f}", *of_quiet, faster])
    header = ["encoder", "condition", "p50, ms", "p99, ms", "p50 × quiet", "p99 × quiet", "ours is × faster"]
    return format_table(header, rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="contention", description="Measure encoders beside busy processes.")
    parser.add_argument("folder", help="a test dataset in BEIR layout")
    parser.add_argument("--model", choices=["tiny", "base"], default="tiny", help="(default: %(default)s)")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], help="float32, int8, openvino-int8 and the like")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another version, measured in the same rounds")
    parser.add_argument("--peers", nargs="*", type=int, default=[], help="batch sizes of sentence-transformers")
    parser.add_argument("--texts", type=int, default=96, help="(default: %(default)s)")
    parser.add_argument("--calls", type=int, default=40, help="queries in a round (default: %(default)s)")
    parser.add_argument("--workers", nargs="*", type=int, default=[1, 2], help="numbers of processes")
    parser.add_argument("--only-quiet", action="store_true", help="leave out neighbours and several processes")
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write all figures to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
