"""Set up our encoder in each dtype and backend, and set up its peers with the same model.

The peers are other libraries that encode with SPLADE. `benchmarks/backends.py` has the backends of
sentence-transformers that need exported files.
"""

import argparse
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from scipy.sparse import csr_array

from benchmarks.backends import OnnxModel, OpenVinoModel, exported_onnx
from benchmarks.measuring import timed
from splade_integrations import OptionalDependencyError, SpladeEncoder

__all__ = ["PEERS", "SETTINGS", "Contestant", "UnavailableError", "in_this_process", "our_encoder", "set_up"]

# The settings of our encoder: a dtype for torch, or another backend's name and a dtype.
SETTINGS = ("float32", "bfloat16", "int8", "openvino-float32", "openvino-bfloat16", "openvino-int8")
_BATCH_SIZES = (1, 4, 8)
_DEFAULT_BATCH_SIZE = 32  # the default of sentence-transformers, milvus-model and yasem
_FASTEMBED_TERMS = 30522  # the vocabulary size of the model that `_fastembed` names
# Each measurement starts with this wait, because the previous contestant's threads spin for a while and could slow it.
_SETTLING_SECONDS = 0.05


class UnavailableError(Exception):
    """Raised if an encoder cannot run here. The message says why."""


@dataclass(frozen=True)
class Contestant:
    """One encoder at one setting.

    Args:
        name: The name in the tables.
        backend: The name of its backend. Contestants with the same backend differ only in their batch size, or in how
            their exported file is optimised.
        dtype: The number type of its computation: "float32", "bfloat16", "int8", or "" if its runtime decides.
        seconds: A function of texts and a number of calls. It makes this number of calls with the texts, and returns
            the median seconds of a call.
        rows: A function of texts that returns their term weights. It is not timed.
        exact: Whether its term weights must equal those of our encoder in float32.
        keep: Whether it takes part in the rounds even if another batch size is faster. True for a library's default
            batch size.
    """

    name: str
    backend: str
    dtype: str
    seconds: Callable[[Sequence[str], int], float]
    rows: Callable[[Sequence[str]], csr_array]
    exact: bool = False
    keep: bool = False


def in_this_process(
    name: str,
    encode: Callable[[Sequence[str]], Any],
    to_csr: Callable[[Any], csr_array],
    *,
    backend: str | None = None,
    dtype: str = "float32",
    exact: bool = False,
    keep: bool = False,
) -> Contestant:
    """Return a contestant that runs in this process.

    Args:
        name: As in `Contestant`.
        encode: A function of texts that returns the encoder's own result. It is timed.
        to_csr: Converts this result to a csr_array. It is not timed.
        backend: As in `Contestant`. None uses the name.
        dtype: As in `Contestant`.
        exact: As in `Contestant`.
        keep: As in `Contestant`.
    """

    def seconds(texts: Sequence[str], calls: int) -> float:
        gc.collect()
        time.sleep(_SETTLING_SECONDS)
        return timed(partial(encode, texts), calls)()

    return Contestant(name, backend or name, dtype, seconds, lambda texts: to_csr(encode(texts)), exact, keep)


def set_up(name: str, folder: str, options: argparse.Namespace) -> list[Contestant]:
    """Return the contestants of one library, in this process.

    Args:
        name: "ours " followed by one of `SETTINGS`, or one of `PEERS`.
        folder: A BERT-like checkpoint.
        options: The command's options. Only `max_length` and `threads` are read.
    Raises:
        UnavailableError: The library cannot run here.
    """
    make = partial(_ours, setting=name.removeprefix("ours ")) if name.startswith("ours ") else PEERS[name]
    try:
        made = list(make(folder, options))
        made[0].rows(["one text", "and another"])  # fails here if the encoder cannot encode
        return made
    except UnavailableError:
        raise
    except ImportError as err:
        raise UnavailableError(
            f"{err}. Install the peers with: pip install -r benchmarks/requirements-peers.txt"
        ) from err
    except Exception as err:  # an error in one peer must not end the comparison of the others
        reason = str(err).strip().splitlines()[0] if str(err) else ""
        raise UnavailableError(f"fails with {type(err).__name__}: {reason}") from err


def our_encoder(folder: str, setting: str, max_length: int, device: str = "cpu") -> SpladeEncoder:
    """Return our encoder at a setting such as "int8" or "openvino-int8".

    Raises:
        UnavailableError: The encoder refuses the setting or the device, or the backend is not installed.
    """
    backend, _, dtype = setting.rpartition("-")
    options: dict[str, Any] = {"backend": backend} if backend else {}
    try:
        return SpladeEncoder(folder, device=device, dtype=dtype, max_length=max_length, **options)
    except (ValueError, OptionalDependencyError) as err:
        raise UnavailableError(str(err)) from err


def _ours(folder: str, options: argparse.Namespace, *, setting: str) -> Iterator[Contestant]:
    encoder = our_encoder(folder, setting, options.max_length)
    to_csr, dtype = partial(cast, csr_array), setting.rpartition("-")[2]
    yield in_this_process(f"ours {setting}", encoder.encode_documents, to_csr, dtype=dtype, exact=dtype == "float32")


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
    """Yield a contestant for each batch size of one backend."""

    def at(size: int) -> Callable[[Sequence[str]], Any]:
        return lambda texts: encode(list(texts), size)

    for size in sizes:
        yield in_this_process(
            f"{backend}, batch {size}",
            at(size),
            to_csr or _from_torch,
            backend=backend,
            dtype=dtype,
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
    """Yield the encoder of pymilvus.model, a package that was once called milvus-model.

    `pip install 'pymilvus[model]'` installs the package. The encoder calls the tokenizer's method `batch_encode_plus`.
    transformers 5 lacks this method, so the tokenizer's `__call__` takes its place. The encoder takes the maximum over
    tokens and padding, so the weights of a text depend on the other texts in its batch. Therefore its results do not
    count as exact.
    """
    from transformers import PreTrainedTokenizerBase

    base: Any = PreTrainedTokenizerBase
    if not hasattr(base, "batch_encode_plus"):
        base.batch_encode_plus = base.__call__
    from pymilvus.model.sparse import SpladeEmbeddingFunction

    function: Any = SpladeEmbeddingFunction(model_name=folder, device="cpu")
    function.model.tokenizer.model_max_length = options.max_length
    yield in_this_process(
        f"milvus-model, batch {_DEFAULT_BATCH_SIZE}",
        lambda texts: function.encode_documents(list(texts)),
        csr_array,
        backend="milvus-model",
    )


def _yasem(folder: str, options: argparse.Namespace) -> Iterator[Contestant]:
    from yasem import SpladeEmbedder

    embedder: Any = SpladeEmbedder(folder, device="cpu", use_fp16=False, max_seq_length=options.max_length)

    def encode(texts: list[str], size: int) -> Any:
        return embedder.encode(texts, batch_size=size, convert_to_csr_matrix=True)

    yield from _at_batch_sizes("yasem", encode, (*_BATCH_SIZES, _DEFAULT_BATCH_SIZE), to_csr=csr_array, exact=True)


def _fastembed(folder: str, options: argparse.Namespace) -> Iterator[Contestant]:
    """Yield fastembed's SPLADE encoder. It loads our exported file from a folder that looks like fastembed's model."""
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


PEERS: dict[str, Callable[[str, argparse.Namespace], Iterator[Contestant]]] = {
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
