"""Kill and interrupt the command `splade` at random moments, and run it on full disks and in read-only folders.

Each command runs in its own process. To save time, this process is forked from a server process that has already
imported the slow packages.
"""

import atexit
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from checks.figures import Figures
from splade_integrations.models.offline import dense_model_path

__all__ = ["full_disk", "interrupted_evaluation", "interrupts", "kills", "read_only_folder", "run_command"]

_ROWS = 3000


class BrokenDatabaseError(Exception):
    """A database cannot be opened, or its rows cannot be read."""


_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    ["torch", "transformers", "pymilvus", "milvus_lite", "sentence_transformers", "splade_integrations.cli.index",
     "splade_integrations.langchain", "splade_integrations.evaluation.compare", "splade_integrations.engine.load"]
)  # fmt: skip


def kills(figures: Figures, folder: Path, times: int, rng: random.Random, rows: int = _ROWS) -> None:
    """Kill `splade index --dense` at random moments, and continue it with --resume, until all rows are stored.

    Runs that end before the kill do not count, so there are more runs than kills.
    """
    command, database = _index_command(folder, "killed", rows)
    seconds = _seconds(folder, rows)
    known: set[str] = set()
    lost, killed, runs, empty, rebuilt = 0, 0, 0, 0, 0
    broken: list[str] = []
    while killed < times and runs < 10 * times:
        process = _start([*command, "--resume"] if database.exists() else command, folder / "output")
        process.join(rng.uniform(0.1, seconds))
        if process.exitcode is None:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        _end(process)
        runs += 1
        try:
            found, needed_indexes = _rows_and_repairs(database)
            rebuilt += needed_indexes
        except BrokenDatabaseError as err:
            broken.append(str(err)[:150])
            found, known = {}, set()
            _remove(database)
        empty += not found
        lost += len(known - found.keys())
        known |= found.keys()
        if len(known) == rows:  # all rows are stored, so begin again
            lost += _wrong(found)
            known = set()
            _remove(database)
    process = _start([*command, "--resume"] if database.exists() else command, folder / "output")
    _end(process)
    found = _rows(database)
    figures.add("kills of splade index --dense", killed == times, f"{killed} kills in {runs} runs")
    figures.add("rows lost over these kills", lost == 0, f"{lost} lost")
    figures.add("databases that cannot be opened after a kill", not broken, broken or "none")
    figures.add("databases that milvus-lite alone could not load, and this package could", True, rebuilt)
    figures.add("some runs had stored rows when they ended", empty < runs, f"{runs - empty} of {runs}")
    whole = process.exitcode == 0 and len(found) == rows and not _wrong(found)
    figures.add("--resume completes the collection", whole, f"{len(found)} of {rows} rows, {_wrong(found)} wrong")


def _end(process: BaseProcess) -> None:
    """Wait until a command ends.

    Raises:
        TimeoutError: The command has not ended after five minutes. It has now been killed.
    """
    process.join(300)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError("a command must end within five minutes of its last signal, but had to be killed.")


def interrupts(figures: Figures, folder: Path, times: int, rng: random.Random, rows: int = _ROWS) -> None:
    """Send Ctrl-C or SIGTERM to `splade index`, and compare the number of rows in its message with the stored rows."""
    command, database = _index_command(folder, "interrupted", rows)
    seconds, said, wrong, codes = _seconds(folder, rows), 0, [], set()
    for _ in range(times):
        process = _started([*command, "--resume"] if database.exists() else command, folder / "output")
        process.join(rng.uniform(0.2, seconds))
        if process.exitcode is None:
            assert process.pid is not None
            os.kill(process.pid, rng.choice([signal.SIGINT, signal.SIGTERM]))
        _end(process)
        codes.add(process.exitcode)
        message = (folder / "output").read_text()
        if match := re.search(r"interrupted; ([\d,]+) documents are in", message):
            said += 1
            stored, claimed = len(_rows(database)), int(match[1].replace(",", ""))
            if claimed > stored:
                wrong.append(f"said {claimed}, stored {stored}")
        if len(_rows(database)) == rows:
            database.unlink() if database.is_file() else _remove(database)
    process = _start([*command, "--resume"] if database.exists() else command, folder / "output")
    _end(process)
    found = _rows(database)
    figures.add("Ctrl-C and SIGTERM end with their own exit codes", codes <= {0, 130, 143}, sorted(codes, key=str))
    figures.add("a message after Ctrl-C never claims more rows than are stored", not wrong, wrong or f"{said} messages")
    whole = process.exitcode == 0 and len(found) == rows and not _wrong(found)
    figures.add("--resume completes the collection after Ctrl-C", whole, f"{len(found)} of {rows} rows")


def interrupted_evaluation(figures: Figures, folder: Path, rng: random.Random) -> None:
    """Send Ctrl-C to `splade evaluate`, which must leave no file behind."""
    dataset = folder / "dataset"
    dataset.mkdir()
    texts = [f"text {number} " + "abc " * (number % 30) for number in range(500)]
    lines = [json.dumps({"_id": str(number), "text": text}) for number, text in enumerate(texts)]
    (dataset / "corpus.jsonl").write_text("\n".join(lines))
    (dataset / "queries.jsonl").write_text("\n".join(lines[:50]))
    (dataset / "qrels.tsv").write_text("".join(f"{number}\t{number}\t1\n" for number in range(50)))
    work = folder / "work"
    work.mkdir()
    command = [
        "evaluate",
        str(dataset),
        "-m",
        str(folder / "model"),
        "--dense",
        "none",
        "--search",
        "both",
        "--max-length",
        "100",
    ]
    command += ["--json", "--plot", str(work / "plot.png")]
    codes, messages = set(), set()
    output = folder / "output"
    for _ in range(3):
        process = _started(command, output, TMPDIR=str(work))
        process.join(rng.uniform(1, 2.5))
        if process.exitcode is None:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
        _end(process)
        codes.add(process.exitcode)
        messages.add(output.read_text().strip()[-80:])
    left = [path.name for path in work.iterdir() if path.name != "plot.png"]
    clear = codes <= {0, 130} and any("interrupted" in message for message in messages)
    figures.add("Ctrl-C in splade evaluate ends it with a message", clear, f"{sorted(codes, key=str)}, {messages}")
    figures.add("an interrupted splade evaluate leaves no file", not left, left or "none")


def full_disk(figures: Figures, folder: Path) -> None:
    """Fill the disk while files and a collection are written. If tmpfs cannot be mounted, use /dev/full instead."""
    texts = _texts(folder)
    encode = ["encode", str(texts), "-m", str(folder / "model"), "-o"]
    with _small_disk(folder / "disk", "size=256k") as disk:
        output = disk / "out.jsonl" if disk else Path("/dev/full")
        code, message = run_command([*encode, str(output)], folder / "output")
        left = [path.name for path in disk.iterdir()] if disk else []
        clear = code == 2 and "No space left on device" in message and not left
        figures.add("a full disk is a clear error of splade encode, and leaves no file", clear, f"{code}, {message}")
        code, message = run_command([*encode, str(folder / "out.jsonl")], folder / "output")
        figures.add("splade encode works on another disk", code == 0, f"{code} {message}")
    if disk is None:
        figures.add("a disk that fills while an index is written", True, "not tried, because mount is not allowed")
        return
    with _small_disk(folder / "disk", "size=6m") as disk:
        assert disk is not None
        command, _ = _index_command(folder, "full")
        database = disk / "full.db"
        command[command.index("--uri") + 1] = str(database)
        code, message = run_command(command, folder / "output")
        figures.add(
            "a full disk is a clear error of splade index", code == 2 and "space" in message, f"{code} {message}"
        )
        subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
        before = len(_rows(database))
        resumed = "--resume" if before or database.exists() else "--replace"
        code, message = run_command([*command, resumed], folder / "output")
        found = _rows(database)
        whole = code == 0 and len(found) == _ROWS and not _wrong(found)
        figures.add("with more space, --resume completes it", whole, f"{before} rows, then {len(found)}: {message}")


def read_only_folder(figures: Figures, folder: Path) -> None:
    """Write into a folder that is read-only even for root."""
    texts = _texts(folder)
    with _small_disk(folder / "disk", "size=1m,ro") as disk:
        if disk is None:
            figures.add("a read-only folder", True, "not tried, because mount is not allowed")
            return
        encode = ["encode", str(texts), "-m", str(folder / "model"), "-o", str(disk / "out.npz")]
        code, message = run_command(encode, folder / "output")
        clear = code == 2 and "Read-only file system" in message
        figures.add("a read-only folder is a clear error of splade encode", clear, f"{code}, {message}")
        command, _ = _index_command(folder, "read-only")
        command[command.index("--uri") + 1] = str(disk / "a.db")
        code, message = run_command(command, folder / "output")
        clear = code == 2 and "Traceback" not in message and str(disk) in message
        figures.add("a read-only folder is a clear error of splade index", clear, f"{code}, {message}")


def run_command(arguments: list[str], output: Path) -> tuple[int | None, str]:
    """Run `splade` in its own process. Return its exit code and the last line of its output."""
    process = _start(arguments, output)
    process.join(120)
    if process.exitcode is None:
        process.kill()
        return None, "it hangs"
    return process.exitcode, (output.read_text().strip().splitlines() or [""])[-1][:300]


def _start(arguments: list[str], output: Path, **environment: str) -> BaseProcess:
    process = _processes.Process(target=_run, args=(arguments, str(output), environment))
    process.start()
    return process


def _started(arguments: list[str], output: Path, **environment: str) -> BaseProcess:
    """Start a process and wait until it runs. A signal that arrived earlier would end it before the command begins."""
    output.unlink(missing_ok=True)
    process = _start(arguments, output, **environment)
    while not output.exists() and process.exitcode is None:
        process.join(0.01)
    return process


def _run(arguments: list[str], output: str, environment: dict[str, str]) -> None:
    """Run `splade` in this process, with its output in a file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    from splade_integrations.cli.app import run

    code = run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()  # os._exit skips the exit functions, and one of them ends milvus-lite's server
    os._exit(code)


def _texts(folder: Path, number: int = _ROWS) -> Path:
    file = folder / f"texts-{number}.jsonl"
    if not file.exists():
        rows = ({"_id": f"id-{row}", "text": _text(row), "n": row} for row in range(number))
        file.write_text("\n".join(map(json.dumps, rows)))
    return file


def _text(number: int) -> str:
    return f"text {number} " + "abc " * (number % 7)


def _index_command(folder: Path, name: str, rows: int = _ROWS) -> tuple[list[str], Path]:
    database = folder / f"{name}.db"
    command = ["index", str(_texts(folder, rows)), "-m", str(folder / "model"), "--dense", dense_model_path()]
    return [*command, "--uri", str(database), "-c", "documents", "--device", "cpu"], database


def _seconds(folder: Path, rows: int) -> float:
    """Return the time that a whole run of `splade index` takes."""
    run_command(["--version"], folder / "output")  # waits until the server process has imported the slow packages
    command, database = _index_command(folder, f"timed-{time.monotonic_ns()}", rows)
    start = time.monotonic()
    code, message = run_command(command, folder / "output")
    assert code == 0, message
    _remove(database)
    return time.monotonic() - start


def _rows(database: Path) -> dict[str, dict[str, Any]]:
    """Return {id: row} of the collection in a database."""
    return _rows_and_repairs(database)[0]


def _rows_and_repairs(database: Path) -> tuple[dict[str, dict[str, Any]], bool]:
    """Return {id: row}, read in another process, and whether only this package's client could load the collection."""
    if not database.exists():
        return {}, False
    receive, send = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_read, args=(str(database), send))
    process.start()
    send.close()
    found: tuple[dict[str, dict[str, Any]], bool] | str = receive.recv()
    _end(process)
    if isinstance(found, str):
        raise BrokenDatabaseError(found)
    return found


def _read(database: str, send: Any) -> None:
    """Read a copy of the database, because a database that needs new indexes must stay so for the next command."""
    from pymilvus import MilvusClient

    from splade_integrations.milvus.clients import open_client

    copied = shutil.copytree(database, tempfile.mkdtemp() + "/copy.db")
    try:
        try:
            send.send((_rows_of(MilvusClient(copied)), False))
        except Exception:
            send.send((_rows_of(open_client(uri=copied)), True))
    except Exception as err:
        send.send(f"{type(err).__name__}: {err}")
    send.close()
    atexit._run_exitfuncs()
    shutil.rmtree(Path(copied).parent)
    os._exit(0)


def _rows_of(client: Any) -> dict[str, dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if client.has_collection("documents"):
        client.load_collection("documents")
        fields = ["id", "text", "dense", "sparse"]
        rows = client.query("documents", filter="id != ''", output_fields=fields, limit=16_384)
    return {row["id"]: {"text": row["text"], "whole": bool(row["sparse"]) and len(row["dense"]) > 1} for row in rows}


def _wrong(rows: dict[str, dict[str, Any]]) -> int:
    """Return the number of rows that hold a wrong text or lack a vector."""
    return sum(row["text"].strip() != _text(int(key.removeprefix("id-"))).strip() or not row["whole"]
               for key, row in rows.items())  # fmt: skip


def _remove(database: Path) -> None:
    shutil.rmtree(database) if database.is_dir() else database.unlink(missing_ok=True)


@contextmanager
def _small_disk(folder: Path, options: str) -> Iterator[Path | None]:
    """Mount a small tmpfs and yield its folder. If mounting is not allowed, yield None."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        allowed = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        allowed = False
    try:
        yield folder if allowed else None
    finally:
        if allowed:
            subprocess.run(["umount", "-l", str(folder)], check=True)
