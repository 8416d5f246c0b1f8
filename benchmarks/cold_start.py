"""Measure how long a process takes from its start to its first encoded row, and how much memory it then holds.

Each contestant is a script that runs in a process of its own. The script prints the time since the process started, the
CPU time, the resident memory, and the time of each part of the script. A round runs each script once. Some scripts use
the demo's tiny model as it is. The scripts for inference-free queries use this model with a further file, `idf.json`,
which holds a made-up weight for each query token.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measuring import (
    Spread,
    add_common_options,
    describe_environment,
    format_table,
    ratio,
    spread,
    write_json,
)
from splade_integrations.models.offline import splade_model_path

__all__ = ["inference_free", "measure"]

_QUERY = "who cracked the enigma code in the war?"
# Every script starts with this code. `part` notes how long the script took since the last call of `part`.
_START = """
import json, os, sys, time
_last, _parts = time.perf_counter(), {}
def part(name):
    global _last
    now = time.perf_counter()
    _parts[name], _last = now - _last, now
"""
_END = """
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
ticks = open("/proc/self/stat").read().rpartition(")")[2].split()
started = int(ticks[19]) / os.sysconf("SC_CLK_TCK")
print(json.dumps({
    "seconds": time.clock_gettime(time.CLOCK_BOOTTIME) - started, "cpu": time.process_time(),
    "mib": int(status["VmRSS"].split()[0]) / 1024, "parts": _parts,
    "heavy": sorted({"torch", "transformers"} & sys.modules.keys()),
}))
"""
_ENCODER = """
from splade_integrations import SpladeEncoder
part("imports")
encoder = SpladeEncoder(MODEL)
part("loading")
encoder.encode_queries([QUERY])
part("first row")
"""
_SENTENCE_TRANSFORMERS = """
from sentence_transformers import SparseEncoder
part("imports")
encoder = SparseEncoder(MODEL, device="cpu")
part("loading")
encoder.encode_query([QUERY])
part("first row")
"""
# The scripts that encode an inference-free query, and "bare" scripts to compare them with. A bare script only imports
# packages: those of the framework, or all packages that the encoder or the adapter needs.
_LIGHT = "import numpy, scipy.sparse, tokenizers\n"
_LANGCHAIN = """
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore  # a package that imports nothing until a name is asked for
import pymilvus
"""
_LLAMA_INDEX = "import llama_index.core, pymilvus\n"
_BARE = "part('imports')\n"
_FREE = {
    "encoder": _ENCODER,
    "bare numpy, scipy.sparse, tokenizers": _LIGHT + _BARE,
    "LangChain": _ENCODER.replace("SpladeEncoder(MODEL)", "SpladeSparseEmbedding(model_name=MODEL)")
    .replace("splade_integrations import SpladeEncoder", "splade_integrations.langchain import SpladeSparseEmbedding")
    .replace("encode_queries([QUERY])", "embed_query(QUERY)"),
    "bare langchain_core, pymilvus": _LANGCHAIN + _BARE,
    "bare langchain_core, pymilvus, numpy, scipy.sparse, tokenizers": _LANGCHAIN + _LIGHT + _BARE,
    "LlamaIndex": _ENCODER.replace("SpladeEncoder(MODEL)", "SpladeSparseEmbedding(model_name=MODEL)")
    .replace("splade_integrations import SpladeEncoder", "splade_integrations.llama_index import SpladeSparseEmbedding")
    .replace("encode_queries([QUERY])", "get_query_embedding(QUERY)"),
    "bare llama_index.core, pymilvus": _LLAMA_INDEX + _BARE,
    "bare llama_index.core, pymilvus, numpy, scipy.sparse, tokenizers": _LLAMA_INDEX + _LIGHT + _BARE,
}
_LONE = """
from statistics import median
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(MODEL + "/tokenizer.json")
def p50(call):
    times = []
    for _ in range(2000):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times) * 1e6
p50(lambda: encoder.encode_queries([QUERY]))
_parts["query us"] = p50(lambda: encoder.encode_queries([QUERY]))
_parts["tokenizers us"] = p50(lambda: tokenizer.encode(QUERY))
"""


def inference_free(folder: Path) -> str:
    """Save the tiny model with a made-up weight for each query token, and return the folder."""
    shutil.copytree(splade_model_path(), folder, dirs_exist_ok=True)
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    weights = {token: 1 + number % 7 / 3 for token, number in vocabulary.items()}
    (folder / "idf.json").write_text(json.dumps(weights), encoding="utf-8")
    return str(folder)


def measure(script: str, model: str, *, checkout: Path | None = None) -> dict[str, Any]:
    """Run a script in a process of its own, and return what it prints.

    Args:
        script: Python code. It may use MODEL and QUERY, and may call `part(name)` after each of its parts.
        model: The folder of the model.
        checkout: The folder of an earlier build of this package. None means the installed package.
    Raises:
        RuntimeError: The script failed. The message is its standard error.
    """
    code = f"{_START}\nMODEL, QUERY = {model!r}, {_QUERY!r}\n{script}\n{_END}"
    environment = dict(os.environ) if checkout is None else os.environ | {"PYTHONPATH": str(checkout)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # pip compiles the modules of an installed package
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=checkout, env=environment
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _rounds(contestants: Mapping[str, tuple[str, str, Path | None]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, (script, model, checkout) in contestants.items():
            measured = measure(script, model, checkout=checkout)
            if number:  # the first round only fills the caches of the system
                found[name].append(measured)
    return found


def _table(found: Mapping[str, list[dict[str, Any]]]) -> str:
    rows = []
    for name, runs in found.items():
        parts = ", ".join(f"{part} {median(run['parts'][part] for run in runs):.2f}" for part in runs[0]["parts"])
        columns = [spread(run[key] for run in runs) for key in ("seconds", "cpu", "mib")]
        rows.append([name, *columns, parts, ", ".join(runs[0]["heavy"]) or "none"])
    return format_table(["contestant", "start to row, s", "CPU, s", "resident, MiB", "parts, s", "loaded"], rows)


def _over(found: Mapping[str, list[dict[str, Any]]], name: str, bare: str, key: str) -> Spread:
    return spread(run[key] - other[key] for run, other in zip(found[name], found[bare], strict=True))


def _compare(found: Mapping[str, list[dict[str, Any]]], name: str, other: str, key: str) -> Spread:
    return ratio([run[key] for run in found[name]], [run[key] for run in found[other]])


def main() -> None:
    """Measure, and print a table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_common_options(parser, rounds=7)
    parser.add_argument(
        "--before", type=Path, metavar="CHECKOUT", help="a checkout of an earlier build to compare with"
    )
    parser.add_argument("--base", type=Path, metavar="FOLDER", help="also measure this model of BERT-base's size")
    parser.add_argument("--inference-free", action="store_true", help="measure only inference-free queries")
    options = parser.parse_args()
    tiny = splade_model_path()
    with tempfile.TemporaryDirectory() as folder:
        free = inference_free(Path(folder))
        contestants: dict[str, tuple[str, str, Path | None]] = {
            name: (script, free, None) for name, script in _FREE.items()
        }
        lone: dict[str, tuple[str, str, Path | None]] = {"lone query": (_ENCODER + _LONE, free, None)}
        models = {"tiny": tiny} | ({"base": str(options.base.resolve())} if options.base else {})
        if options.inference_free:
            models = {}
        for size, model in models.items():
            contestants[f"{size} model"] = (_ENCODER, model, None)
            contestants[f"{size} model, sentence-transformers"] = (_SENTENCE_TRANSFORMERS, model, None)
        if options.before is not None:
            contestants["encoder, before"] = (_ENCODER, free, options.before)
            lone["lone query, before"] = (_ENCODER + _LONE, free, options.before)
            contestants |= {
                f"{size} model, before": (_ENCODER, model, options.before) for size, model in models.items()
            }
        found = _rounds(contestants, options.rounds)
        queries = _rounds(lone, options.rounds)
    print(describe_environment(), "\n")
    print(_table(found), "\n")
    for name, runs in queries.items():
        ours, bare = ([run["parts"][key] for run in runs] for key in ("query us", "tokenizers us"))
        print(f"{name}: {spread(ours)} us, {ratio(ours, bare)} times the bare call of tokenizers, {spread(bare)} us")
    for name, first in (("encoder", "numpy"), ("LangChain", "langchain_core"), ("LlamaIndex", "llama_index")):
        for other in (other for other in found if other.startswith(f"bare {first}")):
            seconds, memory = (_over(found, name, other, key) for key in ("seconds", "mib"))
            print(f"{name} takes {seconds} s and {memory} MiB more than {other}")
    pairs = [(name, f"{name}, sentence-transformers") for name in found if f"{name}, sentence-transformers" in found]
    pairs += [(name, f"{name}, before") for name in found if f"{name}, before" in found]
    for name, other in pairs:
        seconds, memory = (_compare(found, name, other, key) for key in ("seconds", "mib"))
        print(f"{name} / {other}: {seconds} of its time, {memory} of its memory")
    write_json(options.json, {"runs": found, "queries": queries})


if __name__ == "__main__":
    main()
