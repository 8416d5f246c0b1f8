"""Check that faults cause clear errors, that nothing half-written counts as complete, and that no stored row is lost.

    python -m checks.faults [--kills 50] [--interrupts 10] [--seed 0] [--only-kills]

The faults are: memory that runs out during a batch, a tokenizer that raises an error, weights that are NaN, Ctrl-C in
the middle of a batch, a caller that stops reading a stream, a full disk, a read-only folder, a Milvus server that is
killed and comes back, and commands that are killed or interrupted at random moments. After each fault, the same encoder
or collection must still work. The exit status is 1 if a requirement is not met.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pymilvus import MilvusClient
from scipy.sparse import csr_array

from benchmarks.workload import quiet
from checks.figures import Figures
from checks.kills import full_disk, interrupted_evaluation, interrupts, kills, read_only_folder
from splade_integrations import SpladeEncoder, UnsupportedModelError
from splade_integrations.encoding.tokenizer import TextTokenizer
from splade_integrations.engine.model import SpladeModel
from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
from tests.support.adapters import HashEmbeddings
from tests.support.random_checkpoints import save_masked_lm
from tests.support.server import RestartedServer

__all__ = ["encoder_faults", "main", "store_faults"]

_TEXTS = [f"text {number} " + "abc def " * (number % 40) for number in range(120)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m checks.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="how often splade index is killed (default 50)")
    parser.add_argument("--interrupts", type=int, default=10, help="how often it gets Ctrl-C (default 10)")
    parser.add_argument("--only-kills", action="store_true", help="leave out full disks, folders and servers")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments (default 0)")
    options = parser.parse_args(arguments)
    quiet()
    figures, rng = Figures(), random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        encoder_faults(figures, Path(folder))
        if not options.only_kills:
            store_faults(figures, Path(folder))
            full_disk(figures, Path(folder))
            read_only_folder(figures, Path(folder))
        kills(figures, Path(folder), options.kills, rng)
        interrupts(figures, Path(folder), options.interrupts, rng)
        interrupted_evaluation(figures, Path(folder), rng)
    return figures.exit_status()


def encoder_faults(figures: Figures, folder: Path) -> None:
    """Let parts of an encoder fail. Check the errors, and the rows that the encoder returns afterwards."""
    save_masked_lm(folder / "model", "bert")
    encoder = SpladeEncoder(folder / "model", device="cpu", max_batch_tokens=512)
    expected = encoder.encode_documents(_TEXTS)

    def works_on(fault: str) -> None:
        found = SpladeEncoder.encode_documents(encoder, _TEXTS)
        figures.add(f"the encoder still works after {fault}", _equal(found, expected), f"{found.shape[0]} rows")

    failures = 0
    for number in (1, 2, 3, 5):
        with _failing(SpladeModel, "term_weights", number, lambda: torch.empty(2**62, dtype=torch.uint8)):
            failures += not _equal(SpladeEncoder(folder / "model", device="cpu").encode_documents(_TEXTS), expected)
    figures.add("memory that runs out during batch 1, 2, 3 or 5 changes no row", not failures, f"{failures} differ")

    with (
        _failing(TextTokenizer, "__call__", 1, lambda: _raise(RuntimeError("the tokenizer failed"))),
        figures.expecting("a tokenizer's error is passed on", RuntimeError, "the tokenizer failed"),
    ):
        encoder.encode_documents(_TEXTS)
    works_on("a tokenizer's error")

    with _nan_for(80, encoder):
        place = "texts[80]"
        with figures.expecting("NaN is refused with the text's position", UnsupportedModelError, place, "finite"):
            encoder.encode_documents(_TEXTS)
        with figures.expecting("NaN in a stream is refused as well", UnsupportedModelError, place):
            list(encoder.stream_documents(iter(_TEXTS), block_rows=64))
    works_on("NaN")

    with (
        _failing(SpladeModel, "term_weights", 3, lambda: _raise(KeyboardInterrupt())),
        figures.expecting("Ctrl-C in the middle of a batch ends the call", KeyboardInterrupt),
    ):
        encoder.encode_documents(_TEXTS)
    works_on("Ctrl-C")

    before = threading.active_count()
    stream = encoder.stream_documents(iter(_TEXTS), block_rows=16)
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # it is a generator
    left = threading.active_count() - before
    figures.add("a consumer that stops reading leaves no thread", left <= 0, f"{left} threads")
    works_on("a consumer that stops reading")


def store_faults(figures: Figures, folder: Path) -> None:
    """Check that NaN is never stored, and that rows survive a server that is killed and comes back."""
    encoder = SpladeEncoder(folder / "model", device="cpu")
    with RestartedServer(folder / "server") as server:
        store = hybrid_milvus(HashEmbeddings(), SpladeSparseEmbedding(encoder=encoder), uri=server.uri)
        stored = store.add_texts(_TEXTS[:50])
        refused = figures.expecting("a store refuses NaN with the text's position", ValueError, "texts[3]")
        with _nan_for(3, encoder), refused:
            store.add_texts(_TEXTS[:5])
        nan = hybrid_milvus(_NanEmbeddings(), SpladeSparseEmbedding(encoder=encoder), uri=server.uri)
        with figures.expecting("a store refuses a dense vector of NaN", ValueError, "texts[0]", "nan"):
            nan.add_texts(_TEXTS[:5])
        figures.add("no row of a refused call is stored", _count(server.uri) == 50, f"{_count(server.uri)} rows")
        server.kill()
        start = time.monotonic()
        with figures.expecting("a search while Milvus is gone is a clear error", Exception, "Milvus at", server.uri):
            store.similarity_search(_TEXTS[0], k=1, timeout=2)
        figures.add("the error comes in time", time.monotonic() - start < 30, f"{time.monotonic() - start:.1f} s")
        threading.Timer(3, server.start).start()
        stored += store.add_texts(_TEXTS[50:60])
        found = {document.id for text in _TEXTS[:60] for document in store.similarity_search(text, k=60)}
        lost = [key for key in stored if key not in found]
        figures.add("rows lost while Milvus was gone and came back", not lost, f"{len(lost)} of {len(stored)}")


class _NanEmbeddings(HashEmbeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = super().embed_documents(texts)  # type: ignore[no-untyped-call]
        return [[float("nan"), *vector[1:]] for vector in vectors]


def _count(uri: str) -> int:
    client = MilvusClient(uri)
    [name] = client.list_collections()
    return int(client.query(name, output_fields=["count(*)"])[0]["count(*)"])


@contextmanager
def _failing(owner: type, name: str, number: int, fail: Callable[[], object]) -> Iterator[None]:
    """Make the `number`-th call of a method fail. All other calls work."""
    method, calls = getattr(owner, name), 0

    def replaced(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            fail()
        return method(*arguments, **options)

    setattr(owner, name, replaced)
    try:
        yield
    finally:
        setattr(owner, name, method)


@contextmanager
def _nan_for(position: int, encoder: SpladeEncoder) -> Iterator[None]:
    """Make the term weights of one of `_TEXTS` NaN."""
    [ids] = encoder.tokenizer([_TEXTS[position]])["input_ids"]
    method = SpladeModel.term_weights

    def replaced(self: SpladeModel, batch: Any) -> torch.Tensor:
        weights = method(self, batch)
        for row, length in enumerate(batch.lengths.tolist()):
            if batch.input_ids[row, :length].tolist() == ids[:length]:
                weights = weights.clone()
                weights[row, 7] = float("nan")
        return weights

    SpladeModel.term_weights = replaced  # type: ignore[method-assign]
    try:
        yield
    finally:
        SpladeModel.term_weights = method  # type: ignore[method-assign]


def _raise(err: BaseException) -> None:
    raise err


def _equal(found: csr_array, expected: csr_array) -> bool:
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= 1e-5)


if __name__ == "__main__":
    sys.exit(main())
