"""Measure how many texts per second `splade serve` encodes for 64 clients, and how long a lone request takes.

The clients are coroutines of this process. They connect over loopback, and keep their connections open. For comparison,
this process also encodes the queries itself while the servers are idle. A round measures each server and this process
once. With --memory, the command also compares the memory of eight processes that share a server with the memory of
eight processes that each load the model.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.measuring import (
    add_common_options,
    describe_environment,
    format_table,
    interleave,
    ratio,
    spread,
    write_json,
)
from benchmarks.workload import made_up_queries, quiet, random_bert_base
from splade_integrations import RemoteEncoder, SpladeEncoder
from splade_integrations.models.offline import splade_model_path

__all__ = ["ask_together"]

_STARTS_WITHIN = 300
_PROCESSES = 8
_LONE_CALLS = 200
# The code of each of the eight processes: `_ASKING` or `_LOADING`, and then `_ONE_QUERY`. A process encodes one query,
# prints "ready", and waits until its input ends.
_ASKING = "from splade_integrations import RemoteEncoder as E; encoder = E({!r})"
_LOADING = "from splade_integrations import SpladeEncoder as E; encoder = E({!r}, dtype={!r}, device='cpu')"
_ONE_QUERY = "; encoder.encode_queries(['a cat']); import sys; print('ready', flush=True); sys.stdin.read()"


async def _ask(url: str, bodies: Iterator[bytes]) -> None:
    """Send requests one after another on one connection, until no request body is left."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for body in bodies:
        head = f"POST /embed_sparse HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"content-length: (\d+)", answer)
        if b" 200 " not in answer or length is None:
            raise RuntimeError(answer.decode())
        await reader.readexactly(int(length[1]))
    writer.close()


def ask_together(url: str, texts: Sequence[str], *, clients: int, per_request: int) -> None:
    """Ask a server for the rows of all texts.

    Args:
        url: The server's address.
        texts: The queries.
        clients: The number of clients that ask at the same time.
        per_request: The number of texts in a request.
    Raises:
        RuntimeError: A request was refused.
    """
    parts = (texts[start : start + per_request] for start in range(0, len(texts), per_request))
    bodies = iter([json.dumps({"inputs": part, "prompt_name": "query", "truncate": True}).encode() for part in parts])

    async def all_clients() -> None:
        await asyncio.gather(*(_ask(url, bodies) for _ in range(clients)))

    asyncio.run(all_clients())


@contextmanager
def _process(command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def _our_server(model: str, dtype: str) -> Iterator[tuple[str, int]]:
    splade = str(Path(sys.executable).parent / "splade")
    with _process([splade, "serve", "-m", model, "--port", "0", "--dtype", dtype, "--device", "cpu"]) as process:
        assert process.stderr is not None
        found = None
        for line in process.stderr:
            if found := re.search(r"Serving .* on (http://\S+)", line):
                break
        if found is None:
            raise RuntimeError("splade serve has ended. Run it by hand to see why.")
        yield found[1], process.pid


@contextmanager
def _peer(model: str, port: int, workers: int) -> Iterator[str]:
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "benchmarks.fastapi_peer:make",
        "--factory",
        "--log-level",
        "error",
        "--port",
        str(port),
    ]
    url = f"http://127.0.0.1:{port}"
    with _process([*command, "--workers", str(workers)], MODEL=model) as process:
        deadline = time.monotonic() + _STARTS_WITHIN
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.5)
        yield url


def _lone_ms(encode: Callable[[list[str]], object], texts: Sequence[str]) -> list[float]:
    seconds = []
    for text in texts:
        start = time.perf_counter()
        encode([text])
        seconds.append(1000 * (time.perf_counter() - start))
    return seconds


def _pss_mib(process: int) -> float:
    """Return the memory of a process in MiB. A page that n processes share counts as 1/n."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def _memory_of_processes(code: str) -> float:
    with ExitStack() as stack:
        processes = []
        for _ in range(_PROCESSES):
            process = subprocess.Popen(
                [sys.executable, "-c", code + _ONE_QUERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.callback(process.wait, 60)
            assert process.stdin is not None
            stack.callback(process.stdin.close)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("a process could not encode its query")
        return sum(_pss_mib(process.pid) for process in processes)


def _model(name: str) -> str:
    if name == "tiny":
        return splade_model_path()
    return str(random_bert_base("queries", made_up_queries(40, seed=1))) if name == "base" else name


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_common_options(parser, rounds=7)
    parser.add_argument("--model", default="tiny", help="tiny, base or a folder (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="number type of our server (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=512, help="number of queries per round (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=64, help="clients at the same time (default: %(default)s)")
    parser.add_argument("--peer", action="store_true", help="also measure FastAPI around sentence-transformers")
    parser.add_argument("--memory", action="store_true", help="also measure the memory of eight processes")
    options = parser.parse_args()
    quiet()
    texts = made_up_queries(options.queries)
    model = _model(options.model)
    with ExitStack() as stack:
        url, server = stack.enter_context(_our_server(model, options.dtype))
        asked = {f"served, {number} a request": (url, number) for number in (1, 16)}
        if options.peer:
            for workers in (1, 2):
                peer = stack.enter_context(_peer(model, 8790 + workers, workers))
                asked[f"FastAPI, {workers} worker{'s' * (workers > 1)}, 1 a request"] = (peer, 1)
        encoder = SpladeEncoder(model, dtype=options.dtype, device="cpu")
        cpu: dict[str, list[float]] = {name: [] for name in asked}

        def timed_asking(name: str, address: str, per_request: int) -> float:
            start, used = time.perf_counter(), time.process_time()
            ask_together(address, texts, clients=options.clients, per_request=per_request)
            cpu[name].append(time.process_time() - used)
            return time.perf_counter() - start

        def in_process() -> float:
            start = time.perf_counter()
            encoder.encode_queries(texts)
            return time.perf_counter() - start

        contestants: dict[str, Callable[[], float]] = {"in process, one call": in_process}
        for name, (address, number) in asked.items():
            contestants[name] = partial(timed_asking, name, address, number)
        interleave(contestants, 1)  # fills caches
        for values in cpu.values():
            values.clear()
        seconds = interleave(contestants, options.rounds)
        remote = RemoteEncoder(url)
        some = texts[:_LONE_CALLS]
        lone: dict[str, list[float]] = {"in process": [], "served": []}
        for _ in range(options.rounds):
            for name, encode in (("in process", encoder.encode_queries), ("served", remote.encode_queries)):
                lone[name].append(spread(_lone_ms(encode, some[:20] if options.model == "base" else some)).median)
        memory = {}
        if options.memory:
            memory["asking"] = _memory_of_processes(_ASKING.format(url)) + _pss_mib(server)
            memory["loading"] = _memory_of_processes(_LOADING.format(model, options.dtype))
    print(describe_environment())
    print(f"{options.model}, {options.dtype}, {len(texts)} queries, {options.clients} clients\n")
    rows = [
        [name, spread(len(texts) / value for value in values), ratio(seconds["in process, one call"], values),
         spread(cpu[name]) if name in cpu else ""]
        for name, values in seconds.items()
    ]  # fmt: skip
    print(format_table(["contestant", "texts/s", "of in process", "CPU of the clients, s"], rows), "\n")
    growth = spread(b - a for a, b in zip(lone["in process"], lone["served"], strict=True))
    print(f"lone query, ms: in process {spread(lone['in process'])}, served {spread(lone['served'])}, +{growth}")
    if memory:
        asking, loading = memory["asking"], memory["loading"]
        print(
            f"{_PROCESSES} processes, MiB: {asking:.0f} with RemoteEncoder and the server, {loading:.0f} with the "
            f"model in each, ratio {asking / loading:.2f}"
        )
    write_json(options.json, {"seconds": seconds, "cpu_of_clients": cpu, "lone_ms": lone, "memory_mib": memory})


if __name__ == "__main__":
    main()
