"""Which encoders are compared: ours in each dtype, and each peer that is installed, on the same weights and texts.

A peer that is not installed, or cannot run, is skipped by name with the reason. `benchmarks/backends.py` has those of
sentence-transformers that need exported files.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from scipy.sparse import csr_array

from benchmarks.backends import OnnxModel, OpenVinoModel, exported_onnx
from benchmarks.measuring import format_table, ratio
from splade_integrations import SpladeEncoder

__all__ = [
    "DTYPES",
    "Contestant",
    "UnavailableError",
    "add_contestant_options",
    "best_batch_sizes",
    "check_results",
    "contestants",
    "format_headlines",
    "headlines",
    "largest_difference",
    "our_encoder",
]

DTYPES = ("float32", "bfloat16", "int8")
_BATCH_SIZES = (1, 4, 8)
_DEFAULT_BATCH_SIZE = 32  # of sentence-transformers, milvus-model and yasem
_TRIALS = 2
_FASTEMBED_TERMS = 30522  # the vocabulary of the model whose name it is given
# float32 results of other libraries, whose own products may be added up in another order.
_EXACT = 1e-3


class UnavailableError(Exception):
    """An encoder that cannot run here; the message says why."""


@dataclass(frozen=True)
class Contestant:
    """One encoder at one setting.

    Args:
        name: As printed.
        backend: Contestants of one backend differ in batch size, or in how its file is optimised, only.
        dtype: What it computes in, as far as known: "float32", "bfloat16", "int8", or "" if its runtime decides.
        encode: Texts to whatever it returns: this is timed.
        to_csr: What it returns to a csr_array. Not timed.
        exact: Whether it must give float32's weights.
        keep: Whether it stays whatever its batch size, as the library's default.
        tokenizer: The model's tokenizer (ours only).
    """

    name: str
    backend: str
    dtype: str
    encode: Callable[[Sequence[str]], Any]
    to_csr: Callable[[Any], csr_array]
    exact: bool = False
    keep: bool = False
    tokenizer: Any = None


def add_contestant_options(parser: argparse.ArgumentParser) -> None:
    """FOLDER, `--model`, `--max-length`, `--dtypes` and `--only`."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a test collection in BEIR layout, such as SciFact")
    parser.add_argument(
        "--model", default="tiny", help="tiny (trained, 4.4 M), base (random, BERT-base) or a folder (default: tiny)"
    )
    parser.add_argument("--max-length", type=int, default=256, help="most tokens of a text (default: %(default)s)")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), help="ours (default: all, but those refused)")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="only peers whose name has one of these in it")


def contestants(folder: str, options: argparse.Namespace) -> tuple[list[Contestant], dict[str, str]]:
    """All encoders that run here on the checkpoint in `folder`, ours in float32 first, and {name: why not} of the rest.

    Args:
        folder: A BERT-like checkpoint.
        options: `max_length`, `dtypes`, `threads` and `only`.
    Raises:
        UnavailableError: Not even ours in float32 runs.
    """
    found: list[Contestant] = []
    skipped: dict[str, str] = {}
    for dtype in dict.fromkeys(["float32", *options.dtypes]):
        try:
            found.append(_ours(our_encoder(folder, dtype, options.max_length), dtype))
        except UnavailableError as err:
            skipped[f"ours {dtype}"] = str(err)
    if not found:
        raise UnavailableError(skipped["ours float32"])
    for name, make in _PEERS.items():
        if options.only is not None and not any(part in name for part in options.only):
            continue
        try:
            found += list(make(folder, options))
        except UnavailableError as err:
            skipped[name] = str(err)
        except ImportError as err:
            skipped[name] = f"{err}. Install the peers with: pip install -r benchmarks/requirements-peers.txt"
        except Exception as err:  # a peer's own fault must not end the comparison of the others
            skipped[name] = f"fails with {type(err).__name__}: {str(err).strip().splitlines()[0] if str(err) else ''}"
    return found, skipped


def our_encoder(folder: str, dtype: str, max_length: int) -> SpladeEncoder:
    """Ours, on the CPU.

    Raises:
        UnavailableError: The encoder refuses the dtype.
    """
    try:
        return SpladeEncoder(folder, device="cpu", dtype=dtype, max_length=max_length)
    except ValueError as err:
        raise UnavailableError(str(err)) from err


def best_batch_sizes(found: list[Contestant], texts: Sequence[str]) -> tuple[list[Contestant], dict[str, float]]:
    """The contestants without those whose backend is faster at another batch size, and each one's seconds in trials."""
    by_backend: dict[str, list[Contestant]] = {}
    for contestant in found:
        by_backend.setdefault(contestant.backend, []).append(contestant)
    seconds: dict[str, float] = {}
    best: set[str] = set()
    for rivals in by_backend.values():
        if len(rivals) > 1:
            for rival in rivals:
                rival.encode(texts[:2])
                seconds[rival.name] = min(_seconds(rival, texts) for _ in range(_TRIALS))
        best.add(min(rivals, key=lambda rival: seconds.get(rival.name, 0)).name)
    return [contestant for contestant in found if contestant.keep or contestant.name in best], seconds


def check_results(found: Sequence[Contestant], texts: Sequence[str]) -> dict[str, float]:
    """Largest weight difference of each from ours in float32. Warms each of them up, too.

    Raises:
        SystemExit: One that must be exact is not: times of unlike results are not compared.
    """
    reference = found[0].to_csr(found[0].encode(texts))
    differences = {
        contestant.name: largest_difference(contestant.to_csr(contestant.encode(texts)), reference)
        for contestant in found
    }
    for contestant in found:
        if contestant.exact and not differences[contestant.name] <= _EXACT:
            raise SystemExit(
                f"{contestant.name} must give the weights of ours in float32, got a difference of "
                f"{differences[contestant.name]:.2g}. Find out which one is wrong before comparing times."
            )
    return differences


def largest_difference(found: csr_array, expected: csr_array) -> float:
    """Largest absolute difference of two matrices' weights."""
    return float(abs(found - expected).max())


def headlines(found: Sequence[Contestant], seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """How many times as long as ours sentence-transformers takes: at equal results, at its default, and all out.

    Args:
        found: Those that were timed.
        seconds: Of each of them, one a round.
    Returns:
        {question: {"ours": name, "theirs": name, "ratio": Spread}}; without what cannot be answered.
    """

    def fastest(rivals: Iterable[Contestant]) -> str | None:
        return min((rival.name for rival in rivals), key=lambda name: median(seconds[name]), default=None)

    mine = [contestant for contestant in found if contestant.name.startswith("ours")]
    theirs = [contestant for contestant in found if contestant.name.startswith("s-t")]
    milvus = [contestant for contestant in found if contestant.name.startswith("milvus-model")]
    pairs = {
        "float32 against its torch at the default batch": (mine[0].name, fastest(peer for peer in theirs if peer.keep)),
        "float32 against its torch": (mine[0].name, fastest(peer for peer in theirs if peer.backend == "s-t torch")),
        "float32 against its fastest at equal results": (mine[0].name, fastest(peer for peer in theirs if peer.exact)),
        "fastest against its fastest": (fastest(mine), fastest(theirs)),
        "float32 against milvus-model": (mine[0].name, fastest(milvus)),
    }
    return {
        question: {"ours": ours, "theirs": their, "ratio": ratio(seconds[their], seconds[ours])}
        for question, (ours, their) in pairs.items()
        if ours and their
    }


def format_headlines(lines: Mapping[str, Mapping[str, Any]]) -> str:
    """`headlines` as a table."""
    rows = [[question, line["ours"], line["theirs"], line["ratio"]] for question, line in lines.items()]
    return format_table(["ours against sentence-transformers'", "ours", "theirs", "times as long as ours"], rows)


def _seconds(contestant: Contestant, texts: Sequence[str]) -> float:
    start = time.perf_counter()
    contestant.encode(texts)
    return time.perf_counter() - start


def _ours(encoder: SpladeEncoder, dtype: str) -> Contestant:
    return Contestant(
        name=f"ours {dtype}",
        backend=f"ours {dtype}",
        dtype=dtype,
        encode=encoder.encode_documents,
        to_csr=lambda rows: cast(csr_array, rows),
        exact=dtype == "float32",
        tokenizer=encoder.tokenizer,
    )


def _sentence_transformers_encoder(folder: str, max_length: int) -> Any:
    from sentence_transformers import SparseEncoder

    encoder: Any = SparseEncoder(folder, device="cpu")
    encoder.max_seq_length = max_length
    return encoder


def _at_batch_sizes(
    backend: str,
    encode: Callable[[list[str], int], Any],
    sizes: Sequence[int],
    *,
    to_csr: Callable[[Any], csr_array] | None = None,
    dtype: str = "float32",
    exact: bool = False,
    default: int = 0,
) -> Iterator[Contestant]:
    """A contestant for each batch size of one backend."""

    def at(size: int) -> Callable[[Sequence[str]], Any]:
        return lambda texts: encode(list(texts), size)

    for size in sizes:
        yield Contestant(
            name=f"{backend}, batch {size}",
            backend=backend,
            dtype=dtype,
            encode=at(size),
            to_csr=to_csr or _from_torch,
            exact=exact,
            keep=size == default,
        )


def _sentence_transformers(encoder: Any) -> Callable[[list[str], int], Any]:
    return lambda texts, size: encoder.encode(texts, batch_size=size, show_progress_bar=False)


def _torch(folder: str, options: argparse.Namespace) -> Iterator[Contestant]:
    encoder = _sentence_transformers_encoder(folder, options.max_length)
    sizes = (*_BATCH_SIZES, _DEFAULT_BATCH_SIZE)
    encode = _sentence_transformers(encoder)
    yield from _at_batch_sizes("s-t torch", encode, sizes, exact=True, default=_DEFAULT_BATCH_SIZE)


def _onnx(folder: str, options: argparse.Namespace, *, int8: bool = False, fused: bool = False) -> Iterator[Contestant]:
    encoder = _sentence_transformers_encoder(folder, options.max_length)
    file = exported_onnx(folder, fused=fused, int8=int8)
    encoder[0].model = OnnxModel(file, encoder[0].model.config, options.threads)
    backend, dtype = ("s-t ONNX int8", "int8") if int8 else ("s-t ONNX", "float32")
    for contestant in _at_batch_sizes(
        f"{backend} fused" if fused else backend,
        _sentence_transformers(encoder),
        _BATCH_SIZES,
        dtype=dtype,
        exact=not int8,
    ):
        yield replace(contestant, backend=backend)


def _openvino(folder: str, options: argparse.Namespace, *, precision: str | None = None) -> Iterator[Contestant]:
    encoder = _sentence_transformers_encoder(folder, options.max_length)
    config = encoder[0].model.config
    encoder[0].model = OpenVinoModel(exported_onnx(folder), config, options.threads, precision)
    name, dtype = ("s-t OpenVINO f32", "float32") if precision else ("s-t OpenVINO", "")
    encode = _sentence_transformers(encoder)
    yield from _at_batch_sizes(name, encode, _BATCH_SIZES, dtype=dtype, exact=precision is not None)


def _milvus_model(folder: str, options: argparse.Namespace) -> Iterator[Contestant]:
    """Made to run: transformers 5 has no `batch_encode_plus`, of which its `__call__` is the successor.

    It pads without a mask before its maximum, so its weights depend on the batch: not exact, whatever its type.
    """
    from transformers import PreTrainedTokenizerBase

    base: Any = PreTrainedTokenizerBase
    if not hasattr(base, "batch_encode_plus"):
        base.batch_encode_plus = base.__call__
    from milvus_model.sparse import SpladeEmbeddingFunction

    function: Any = SpladeEmbeddingFunction(model_name=folder, device="cpu")
    function.model.tokenizer.model_max_length = options.max_length
    yield Contestant(
        name=f"milvus-model, batch {_DEFAULT_BATCH_SIZE}",
        backend="milvus-model",
        dtype="float32",
        encode=lambda texts: function.encode_documents(list(texts)),
        to_csr=csr_array,
    )


def _yasem(folder: str, options: argparse.Namespace) -> Iterator[Contestant]:
    from yasem import SpladeEmbedder

    embedder: Any = SpladeEmbedder(folder, device="cpu", use_fp16=False, max_seq_length=options.max_length)

    def encode(texts: list[str], size: int) -> Any:
        return embedder.encode(texts, batch_size=size, convert_to_csr_matrix=True)

    yield from _at_batch_sizes("yasem", encode, (*_BATCH_SIZES, _DEFAULT_BATCH_SIZE), to_csr=csr_array, exact=True)


def _fastembed(folder: str, options: argparse.Namespace) -> Iterator[Contestant]:
    """Its SPLADE class on our exported file: it reads any folder that is laid out like its own model's."""
    from fastembed import SparseTextEmbedding

    model: Any = SparseTextEmbedding(
        "prithivida/Splade_PP_en_v1",
        specific_model_path=str(exported_onnx(folder).parent),
        threads=options.threads or torch.get_num_threads(),
    )
    model.model.tokenizer.enable_truncation(max_length=options.max_length)

    def encode(texts: list[str], size: int) -> Any:
        return list(model.embed(texts, batch_size=size))

    yield from _at_batch_sizes("fastembed", encode, _BATCH_SIZES, to_csr=_from_fastembed, exact=True)


_PEERS: dict[str, Callable[[str, argparse.Namespace], Iterator[Contestant]]] = {
    "sentence-transformers torch": _torch,
    "sentence-transformers ONNX": _onnx,
    "sentence-transformers ONNX fused": partial(_onnx, fused=True),
    "sentence-transformers ONNX int8": partial(_onnx, int8=True),
    "sentence-transformers ONNX int8 fused": partial(_onnx, int8=True, fused=True),
    "sentence-transformers OpenVINO": _openvino,
    "sentence-transformers OpenVINO f32": partial(_openvino, precision="f32"),
    "milvus-model": _milvus_model,
    "yasem": _yasem,
    "fastembed": _fastembed,
}


def _from_torch(embeddings: Any) -> csr_array:
    coo = embeddings.coalesce()
    return csr_array((coo.values().numpy(), tuple(coo.indices().numpy())), shape=tuple(coo.shape))


def _from_fastembed(embeddings: Any) -> csr_array:
    indptr = np.concatenate([[0], np.cumsum([len(row.indices) for row in embeddings])])
    indices, values = (np.concatenate([getattr(row, name) for row in embeddings]) for name in ("indices", "values"))
    return csr_array((values.astype(np.float32), indices, indptr), shape=(len(embeddings), _FASTEMBED_TERMS))
