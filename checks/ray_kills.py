"""Check that `splade index --ray` stores the correct rows, even if one of its processes is killed at a random moment.

python -m checks.ray_kills [--runs 20] [--texts 20000] [--seed 0]

Each run indexes texts into milvus-lite's server. During the run, one process is killed with SIGKILL: a worker of Ray
that encodes or writes, the command itself, or the server. A killed server is started again on its data. If the
command has ended, it is started again with --resume. At the end, the rows must be those of an undisturbed run, and at
most 5 % of the texts may have been encoded twice.
"""

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymilvus import MilvusClient

from benchmarks.processes import descendants, title
from splade_integrations.models.offline import splade_model_path

KINDS = ("worker", "driver", "store")
MOST_TWICE = 0.05
_SECONDS = 240


class Server:
    """milvus-lite's server, which can be killed and started again on the same data and port."""

    def __init__(self, data: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self.uri, self._data = f"http://127.0.0.1:{self._port}", data
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        command = [str(Path(sys.executable).with_name("milvus-lite")), "server", "--data-dir", str(self._data)]
        self._process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self._port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with socket.socket() as connection:
                if connection.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.1)
        raise SystemExit("milvus-lite's server must start, got no answer. Try by hand: milvus-lite server")

    def kill(self) -> None:
        """Kill the server."""
        self._process.kill()
        self._process.wait()


@dataclass
class Outcome:
    """What a run did.

    Args:
        killed: {kind: how often a process of this kind was killed}.
        starts: How often the command was started.
        encoded: The number of texts that were encoded, in all starts together.
        faults: What is wrong.
    """

    killed: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    encoded: int = 0
    faults: list[str] = field(default_factory=list)


@contextmanager
def counting(folder: Path) -> Iterator[dict[str, str]]:
    """Yield environment variables that make each actor note in `folder` how many texts it has encoded."""
    code = Path(folder, "sitecustomize.py")
    code.write_text(
        "import os, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name != 'splade_integrations.ray.encoding':\n"
        "            return None\n"
        "        sys.meta_path.remove(self)\n"
        "        import importlib.util\n"
        "        spec = importlib.util.find_spec(name)\n"
        "        load = spec.loader.exec_module\n"
        "        def exec_module(module):\n"
        "            load(module)\n"
        "            vectors = module.Encode._vectors\n"
        "            def counted(self, texts):\n"
        "                found = vectors(self, texts)\n"
        f"                with open({str(folder)!r} + f'/encoded.{{os.getpid()}}', 'a') as file:\n"
        "                    file.write(f'{len(texts)}\\n')\n"
        "                return found\n"
        "            module.Encode._vectors = counted\n"
        "        spec.loader.exec_module = exec_module\n"
        "        return spec\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    yield {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def encoded(folder: Path) -> int:
    """Return the number of texts that all actors together have noted as encoded."""
    return sum(int(line) for file in folder.glob("encoded.*") for line in file.read_text().split())


def dump(uri: str, name: str) -> dict[str, dict[str, Any]]:
    """Return {id: row} of a collection of at most 100 000 rows with the ids of `write_corpus`."""
    client = MilvusClient(uri)
    client.load_collection(name)
    rows: dict[str, dict[str, Any]] = {}
    for digit in range(10):  # one query for each first digit, because a query returns at most 16 384 rows
        some = client.query(
            name, filter=f'id like "key {digit}%"', output_fields=["id", "text", "sparse", "metadata"], limit=16_384
        )
        rows |= {row["id"]: row for row in some}
    count = client.query(name, filter="", output_fields=["count(*)"])[0]["count(*)"]
    client.close()
    if count != len(rows):
        raise SystemExit(f"the collection must hold each id once, got {count} rows with {len(rows)} ids")
    return rows


def differences(found: dict[str, dict[str, Any]], right: dict[str, dict[str, Any]]) -> list[str]:
    """Return what differs between two collections."""
    if found.keys() != right.keys():
        return [f"{len(right.keys() - found.keys())} rows are missing, {len(found.keys() - right.keys())} are too many"]
    wrong = [
        key
        for key, row in right.items()
        if (row["text"], row["metadata"]) != (found[key]["text"], found[key]["metadata"])
        or not _close(row["sparse"], found[key]["sparse"])
    ]
    return [f"{len(wrong)} rows differ, such as {wrong[0]!r}"] if wrong else []


def _close(found: dict[int, float], right: dict[int, float]) -> bool:
    return all(abs(found.get(term, 0.0) - right.get(term, 0.0)) < 1e-5 for term in found.keys() | right)


def command_for(corpus: Path, server: Server, name: str) -> list[str]:
    """Return the command that indexes a corpus into a collection. Its batches are small, so a kill loses little."""
    splade = str(Path(sys.executable).with_name("splade"))
    where = ["--uri", server.uri, "-c", name, "--json"]
    how = ["--ray", "--encoders", "2", "--rows-per-batch", "32", "--device", "cpu"]
    return [splade, "index", str(corpus), "-m", splade_model_path(), *where, *how]


def disturbed_run(kinds: list[str], corpus: Path, server: Server, name: str, texts: int, rng: random.Random) -> Outcome:
    """Run the command on one collection, kill a process of each kind, and start the command again until it succeeds."""
    outcome = Outcome()
    client = MilvusClient(server.uri)
    with tempfile.TemporaryDirectory() as place, counting(Path(place)) as environment:
        pending, end = list(kinds), time.monotonic() + _SECONDS
        while time.monotonic() < end:
            resume = ["--resume"] if client.has_collection(name) else []
            with subprocess.Popen(
                [*command_for(corpus, server, name), *resume],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=place,
            ) as run:
                outcome.starts += 1
                while pending and run.poll() is None:
                    wanted = encoded(Path(place)) + rng.uniform(0.1, 0.5) * (texts - encoded(Path(place)))
                    while run.poll() is None and encoded(Path(place)) < wanted:
                        time.sleep(0.02)
                    time.sleep(rng.uniform(0, 0.3))
                    if run.poll() is None and _kill(pending[0], run, server, rng):
                        kind = pending.pop(0)
                        outcome.killed[kind] = outcome.killed.get(kind, 0) + 1
                out, err = run.communicate(timeout=max(1.0, end - time.monotonic()))
            if run.returncode == 0:
                break
            if run.returncode != -signal.SIGKILL:
                outcome.faults.append(f"the command failed: {err.decode()[-500:]} {out.decode()[-200:]}")
                break
        outcome.encoded = encoded(Path(place))
    client.close()
    return outcome


def _kill(kind: str, run: "subprocess.Popen[bytes]", server: Server, rng: random.Random) -> bool:
    """Kill a process of this kind if there is one, and return whether there was one."""
    if kind == "store":
        server.kill()
        time.sleep(1)
        server.start()
        return True
    if kind == "driver":
        run.kill()
        return True
    workers = [pid for pid in descendants(run.pid) if title(pid).startswith(("ray::MapWorker", "ray::WriteRows"))]
    with suppress(ProcessLookupError):
        if workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
            return True
    return False


def write_corpus(path: Path, texts: int) -> None:
    """Write a Parquet file of short texts with different ids."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = sorted({word for word in Path(random.__file__).read_text().split() if word.isalpha()})
    rng = random.Random(0)
    rows = [" ".join(rng.choices(words, k=rng.randint(4, 16))) for _ in range(texts)]
    pq.write_table(pa.table({"id": [f"key {n}" for n in range(texts)], "text": rows, "n": range(texts)}), path)


def check(runs: int, texts: int, seed: int, kinds: tuple[str, ...] = KINDS) -> int:
    """Run the check, and return the number of runs with faults."""
    rng, failed = random.Random(seed), 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        corpus = Path(place, "corpus.parquet")
        write_corpus(corpus, texts)
        server = Server(Path(place, "data"))

        try:
            plain = disturbed_run([], corpus, server, "undisturbed", texts, rng)
            right = dump(server.uri, "undisturbed")
            if plain.faults or len(right) != texts:
                raise SystemExit(f"the undisturbed run must give {texts} rows, got {len(right)}: {plain.faults}")
            for number in range(runs):
                kind, start = kinds[number % len(kinds)], time.monotonic()
                outcome = disturbed_run([kind], corpus, server, f"run_{number}", texts, rng)
                if outcome.encoded > (1 + MOST_TWICE) * texts:
                    outcome.faults.append(f"more than {MOST_TWICE:.0%} of the texts were encoded again")
                faults = outcome.faults + differences(dump(server.uri, f"run_{number}"), right)
                failed += bool(faults)
                again = outcome.encoded - texts
                print(
                    f"run {number + 1}: {kind} killed {outcome.killed.get(kind, 0)} times, {outcome.starts} starts, "
                    f"{again} of {texts} texts encoded again ({again / texts:.1%}), "
                    f"{time.monotonic() - start:.0f} s, {'; '.join(faults) or 'rows equal'}",
                    flush=True,
                )
                client = MilvusClient(server.uri)
                client.drop_collection(f"run_{number}")
                client.close()
        finally:
            server.kill()
    return failed


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failed = check(arguments.runs, arguments.texts, arguments.seed)
    print(f"{failed} of {arguments.runs} runs with faults")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
