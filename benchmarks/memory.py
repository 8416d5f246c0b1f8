"""Measure how much memory a warmed-up encoder adds while it encodes a stream of long texts.

    python -m benchmarks.memory FOLDER [--runs tiny:1000 tiny:10000 tiny:50000 base:500] [--dtype float32] [--json OUT]
    python -m benchmarks.memory FOLDER --mixed [--runs …]

A run is MODEL:TEXTS, a model and a number of texts. Each run is a new process. First, a few long texts warm up the
encoder. Then the peak of resident memory is reset, and `stream_documents` encodes the texts of the run. Each text has
512 tokens. A generator makes the texts from FOLDER's documents. Each block of encoded rows is dropped when the next
block comes. The table shows how far the peak rises. With --mixed, the texts are FOLDER's documents at their real
lengths, repeated and cut at 512 tokens. Texts of many lengths need more memory than texts of one length, because the
allocator keeps more freed memory. The command reads /proc, so it needs Linux.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import describe_environment, format_table, write_json
from benchmarks.peers import our_encoder
from benchmarks.resident import PeakMemory
from benchmarks.workload import load_dataset, model_path, quiet, token_lengths
from splade_integrations.engine.compute import resolve_compute
from splade_integrations.engine.heads import TwoPassHead
from splade_integrations.engine.load import load_masked_lm
from splade_integrations.models.repository import Repository

__all__ = ["long_texts", "main", "measure_stream"]

_MAX_LENGTH = 512
_CHARACTERS = 4000  # this many characters of English have more than 512 tokens
_WARMING_TEXTS = 8
_MIB = 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.in_this_process:
        (run,) = options.runs
        print(json.dumps(measure_stream(options.folder, *_parsed(run), options.dtype, options.mixed)))
        return 0
    print(describe_environment())
    dataset = load_dataset(options.folder)
    for model in {_parsed(run)[0] for run in options.runs}:
        model_path(model, dataset)  # makes a missing model now, because making it in a run would need memory
    runs = [_in_process_of_its_own(run, options) for run in options.runs]
    header = ["model", "texts", "MiB added at peak", "MiB after warming up", "int8 head MiB", "texts/s"]
    rows = [
        [
            run["model"],
            run["texts"],
            f"{run['peak_over_warmed'] / _MIB:.0f}",
            f"{run['warmed'] / _MIB:.0f}",
            "?" if run["coarse_head_bytes"] is None else f"{run['coarse_head_bytes'] / _MIB:.0f}",
            f"{run['texts_per_second']:.1f}",
        ]
        for run in runs
    ]
    print("\n" + format_table(header, rows))
    texts = f"texts of {'up to ' * options.mixed}{_MAX_LENGTH} tokens"
    print(
        f"\n{options.dtype}; {texts}. The memory after warming up includes the model's weights. It also includes the "
        "int8 copy of the decoder that the two-pass head keeps (the column int8 head MiB)."
    )
    write_json(options.json, {"question": "memory of a stream", "dtype": options.dtype, "runs": runs})
    return 0


def measure_stream(folder: str, model: str, texts: int, dtype: str, mixed: bool) -> dict[str, Any]:
    """Return the bytes that a stream of `texts` texts adds to a warmed-up encoder, and the conditions of the run."""
    quiet()
    dataset = load_dataset(folder)
    encoder = our_encoder(model_path(model, dataset), dtype, _MAX_LENGTH)
    warming = list(islice(long_texts(dataset.documents), _WARMING_TEXTS))
    lengths = token_lengths(model_path(model, dataset), warming, _MAX_LENGTH)
    if min(lengths) != _MAX_LENGTH:
        raise ValueError(
            f"the long texts must have {_MAX_LENGTH} tokens, got {min(lengths)}. Use a dataset in English."
        )
    for _ in encoder.stream_documents(warming):
        pass
    memory = PeakMemory()
    rows = terms = 0
    start = time.perf_counter()
    source = cycle(dataset.documents) if mixed else long_texts(dataset.documents)
    for block in encoder.stream_documents(islice(source, texts)):
        rows += block.shape[0]
        terms += block.nnz
    seconds = time.perf_counter() - start
    assert rows == texts
    return {
        "model": model,
        "texts": texts,
        "mixed_lengths": mixed,
        "most_tokens_a_text": _MAX_LENGTH,
        "terms_a_text": terms / rows,
        "warmed": memory.start,
        "peak_over_warmed": memory.grown(),
        "coarse_head_bytes": _coarse_head_bytes(model_path(model, dataset)),
        "seconds": seconds,
        "texts_per_second": texts / seconds,
    }


def long_texts(documents: Sequence[str]) -> Iterator[str]:
    """Yield texts of more than 512 tokens, without end. Each starts with its number and continues with documents.

    Example:
        >>> next(long_texts(["a dog", "", "two cats"]))[:17]
        '0 a dog two cats '
    """
    words = cycle([document for document in documents if document])
    for number in count():
        parts, length = [str(number)], 0
        while length < _CHARACTERS:
            parts.append(next(words))
            length += len(parts[-1]) + 1
        yield " ".join(parts)


def _coarse_head_bytes(folder: str) -> int | None:
    """Return the bytes of the two-pass head's int8 copy, or None if this machine does not use that head."""
    decoder = load_masked_lm(Repository(folder), "", resolve_compute("cpu")).decoder
    return TwoPassHead(decoder).nbytes if decoder is not None and TwoPassHead.suits(decoder.weight) else None


def _in_process_of_its_own(run: str, options: argparse.Namespace) -> dict[str, Any]:
    print(f"  {run} …", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks.memory", options.folder, "--in-this-process", "--runs", run]
    command += ["--dtype", options.dtype, *["--mixed"] * options.mixed]
    command += ["--threads", str(options.threads)] if options.threads else []
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    print(f"  {run}: {report['peak_over_warmed'] / _MIB:.0f} MiB", file=sys.stderr, flush=True)
    return report


def _parsed(run: str) -> tuple[str, int]:
    model, _, texts = run.rpartition(":")
    return model, int(texts)


def _run(argument: str) -> str:
    model, texts = _parsed(argument)  # argparse turns a ValueError into a message
    if not model or texts < 1:
        raise ValueError(argument)
    return argument


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="memory", description="Measure the peak memory of stream_documents on 512-token texts."
    )
    parser.add_argument("folder", metavar="FOLDER", help="a dataset in BEIR layout, such as SciFact")
    parser.add_argument(
        "--runs",
        nargs="+",
        type=_run,
        default=["tiny:1000", "tiny:10000", "tiny:50000", "base:500"],
        metavar="MODEL:TEXTS",
        help="models and numbers of texts to measure (default: tiny:1000 tiny:10000 tiny:50000 base:500)",
    )
    parser.add_argument("--mixed", action="store_true", help="use FOLDER's documents at their real lengths, repeated")
    parser.add_argument(
        "--dtype",
        default="float32",
        help="number type, such as int8, or backend and type, such as openvino-int8 (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, help="number of torch threads")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write all figures to this file")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
