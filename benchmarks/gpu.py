"""Check the Triton head, and measure how near the head, the encoder and sentence-transformers come to a GPU's peak.

    python -m benchmarks.gpu FOLDER [--texts N] [--json OUT]

The model has BERT-base's size and random weights, in 16 bits. Its head computes the term weights from the hidden
states, here in a Triton kernel. The texts are FOLDER's documents of 128 tokens or more, cut at 128 tokens. The peak is
the FLOP/s of products of two 8192 x 8192 matrices. In each round, it is measured in turn with the others, because a
GPU's clock depends on its load. A share of the peak counts the operations for real tokens, not those for padding.

The peer is sentence-transformers. It is tried with several number types, batch sizes and chunk sizes, with and without
torch.compile, and with flash attention if that is installed. Only its fastest settings take part in the rounds.
"""

import argparse
import gc
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.contestants import largest_difference
from benchmarks.measuring import (
    add_common_options,
    describe_environment,
    format_table,
    interleave,
    ratio,
    spread,
    timed,
    write_json,
)
from benchmarks.workload import load_dataset, model_flops_per_token, model_path, quiet
from splade_integrations import SpladeEncoder
from splade_integrations.encoding.tokenizer import TextTokenizer
from splade_integrations.engine.compute import resolve_compute
from splade_integrations.engine.heads import Decoder, MaxPoolHead, TritonHead
from splade_integrations.engine.heads.tiled import splade_pool
from splade_integrations.engine.load import load_masked_lm
from splade_integrations.engine.model import SpladeModel
from splade_integrations.engine.products import exact_float32
from splade_integrations.models.repository import Repository

__all__ = ["check_head", "main", "measure_encoders", "measure_head", "peak_product"]

_TOKENS = 128
_DTYPES = (torch.float16, torch.bfloat16)
_BATCH, _HIDDEN, _VOCABULARY = 32, 768, 30522
_HEAD_CALLS = 100
_RAGGED = ([1], [128] * 32, [512, 300, 129, 128, 127, 17, 16, 1], [20] * 63 + [3], [130] * 32)
_PEAK_SIDE, _PEAK_PRODUCTS = 8192, 200
_PEAK_FLOPS = 2 * _PEAK_SIDE**3 * _PEAK_PRODUCTS
_BATCH_SIZES = (32, 128, 512)
_CHUNK_SIZES = (None, 32)
_TRIAL_TEXTS = 1024
_FINALISTS = 3
_PEER = "sentence-transformers"
# In 16 bits, rounding in twelve layers may change a term weight by this much. If a difference is larger, the peer does
# not compute the same model.
_LARGEST_DIFFERENCE = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status, which is 2 if there is no GPU."""
    options = _parser().parse_args(arguments)
    if not torch.cuda.is_available():
        print("benchmarks.gpu must have a CUDA device, got none. Run it on a machine with a GPU.", file=sys.stderr)
        return 2
    quiet()
    print(f"{torch.cuda.get_device_name()}, {describe_environment()}")
    report: dict[str, Any] = {"question": "a GPU's limit", "gpu": torch.cuda.get_device_name()}
    report["differences"] = check_head()
    print(
        "The Triton head's term weights differ from the plain head's by at most "
        f"{max(report['differences'].values()):.1e} of the largest term weight."
    )
    report["head"] = measure_head(options.rounds)
    _print_head(report["head"])
    dataset = load_dataset(options.folder)
    folder = model_path("base", dataset)
    report["encoders"] = measure_encoders(folder, dataset.documents, options.texts, options.rounds)
    _print_encoders(report["encoders"])
    write_json(options.json, report)
    return 0


def check_head() -> dict[str, float]:
    """Return the largest differences between the Triton head, in 16 bits, and the plain head, in float32.

    A difference is a share of the plain head's largest weight.

    Raises:
        SystemExit: The Triton head does not run on this machine, or the two heads differ.
    """
    differences = {}
    for dtype, lengths in itertools.product(_DTYPES, _RAGGED):
        hidden, weight = _random_states(lengths, dtype)
        if not TritonHead.suits(weight):
            raise SystemExit(
                f"the Triton head must run in {dtype}, but does not. On a GPU that Triton supports, a warning gives "
                "the reason, but quiet() hides it. To see it, take quiet() out of benchmarks.gpu.main."
            )
        counts = torch.tensor(lengths, device="cuda")
        with exact_float32(hidden.device):
            found = TritonHead(Decoder(weight))(hidden, counts)
            expected = MaxPoolHead(Decoder(weight.float()))(hidden.float(), counts)
        difference = ((found - expected).abs().amax() / expected.amax()).item()
        if not difference < 1e-4:
            raise SystemExit(
                f"the Triton head must equal the plain one, got a difference of {difference:.1e} in {dtype} for texts "
                f"of {lengths} tokens. Mend the kernel before you measure its speed."
            )
        differences[f"{dtype}, {len(lengths)} texts of up to {max(lengths)}"] = difference
    return differences


def peak_product(dtype: torch.dtype) -> Callable[[], None]:
    """Return a function that multiplies two 8192 x 8192 matrices repeatedly, for some tenths of a second."""
    left, right = (torch.randn(_PEAK_SIDE, _PEAK_SIDE, device="cuda", dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)

    return _repeated(lambda: torch.mm(left, right, out=out), _PEAK_PRODUCTS)


@torch.inference_mode()
def measure_head(rounds: int) -> dict[str, Any]:
    """Return the seconds and peak bytes of each head, and of the matrix product that every head contains.

    The input is 32 texts of 128 tokens in float16.
    """
    hidden, weight = _random_states([_TOKENS] * _BATCH, torch.float16)
    lengths = torch.full((_BATCH,), _TOKENS, device="cuda")
    mask = torch.ones(_BATCH, _TOKENS, device="cuda", dtype=torch.long)
    heads: dict[str, Callable[[], object]] = {
        "Triton": lambda: TritonHead(Decoder(weight))(hidden, lengths),
        "plain tiles": lambda: MaxPoolHead(Decoder(weight))(hidden, lengths),
        "logits written out": lambda: splade_pool(linear(hidden, weight), mask),
        "the product alone": lambda: linear(hidden, weight),
    }
    peaks = {name: _peak_bytes(head) for name, head in heads.items()}
    calls = {_peak_name(torch.float16): peak_product(torch.float16)}
    calls |= {name: _repeated(head, _HEAD_CALLS) for name, head in heads.items()}
    seconds = interleave({name: timed(call) for name, call in calls.items()}, rounds)
    flops = _HEAD_CALLS * 2 * _BATCH * _TOKENS * _HIDDEN * _VOCABULARY
    return {"seconds": seconds, "peak_bytes": peaks, "calls": _HEAD_CALLS, "flops": flops}


def measure_encoders(folder: str, documents: Sequence[str], number: int, rounds: int) -> dict[str, Any]:
    """Return the seconds of our encoder (from token ids and from texts) and of the peer's fastest settings."""
    encoders = {dtype: SpladeEncoder(folder, device="cuda", dtype=dtype, max_length=_TOKENS) for dtype in _DTYPES}
    tokenizer = encoders[torch.float16].tokenizer
    long = (text for text in documents if len(tokenizer(text, truncation=True, max_length=_TOKENS)["input_ids"]) == 128)
    texts = list(itertools.islice(itertools.cycle(list(long)), number))
    expected = encoders[torch.float16].encode_documents(texts[:256])
    calls: dict[str, Callable[[], object]] = {_peak_name(dtype): peak_product(dtype) for dtype in _DTYPES}
    for dtype, encoder in encoders.items():
        name = str(dtype).removeprefix("torch.")
        model = SpladeModel(
            load_masked_lm(Repository(folder), "", resolve_compute("cuda", dtype)),
            pooling_strategy="max",
            activation_function="relu",
            padding_id=tokenizer.pad_token_id,
        )
        ids = TextTokenizer(tokenizer, _TOKENS)(texts).ids
        calls[f"ours {name}, from token ids"] = partial(model.encode, ids, lambda _: None)
        calls[f"ours {name}, from texts"] = partial(encoder.encode_documents, texts)
    trials, skipped, best = _try_peers(folder, texts, expected)
    calls |= {f"{_PEER} {name}": call for name, call in best.items()}
    for call in calls.values():
        call()
    return {
        "texts": len(texts),
        "active_terms": expected.nnz / expected.shape[0],
        "flops": len(texts) * _TOKENS * model_flops_per_token(folder),
        "trials": trials,
        "skipped": skipped,
        "seconds": interleave({name: timed(call) for name, call in calls.items()}, rounds),
    }


def _try_peers(
    folder: str, texts: list[str], expected: csr_array
) -> tuple[dict[str, float], dict[str, str], dict[str, Callable[[], object]]]:
    """Try the settings of sentence-transformers on some of the texts.

    Returns:
        {setting: its seconds}, {setting that does not run: reason}, and {fast setting: function that encodes all
        texts}. The last dict has several settings, because a short trial may not find the fastest setting.
    """
    trials: dict[str, float] = {}
    skipped: dict[str, str] = {}
    best: dict[str, Callable[[], object]] = {}
    some = texts[:_TRIAL_TEXTS]
    for setting, load in _peer_settings(folder):
        try:
            encoder = load()
            for chunk, size in itertools.product(_CHUNK_SIZES, _BATCH_SIZES):
                name = f"{setting}, chunk size {chunk}, batch {size}"
                rows = _rows(_encode_by_peer(encoder, some, chunk, size))  # the first call also compiles
                difference = largest_difference(rows[: expected.shape[0]], expected)
                if not difference < _LARGEST_DIFFERENCE:
                    raise RuntimeError(f"its weights differ from ours by {difference:.2g}")
                trials[name] = timed(partial(_encode_by_peer, encoder, some, chunk, size), calls=3)()
                best[name] = partial(_encode_by_peer, encoder, texts, chunk, size)
                best = {name: best[name] for name in sorted(best, key=trials.__getitem__)[:_FINALISTS]}
        except Exception as err:  # a setting that does not run must not end the comparison of the others
            skipped[setting] = f"{type(err).__name__}: {str(err).strip().splitlines()[0] if str(err) else ''}"
        encoder = None
        gc.collect()
        torch.cuda.empty_cache()
    return trials, skipped, best


def _peer_settings(folder: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    for dtype in _DTYPES:
        name = str(dtype).removeprefix("torch.")
        yield name, partial(_load_peer, folder, dtype)
        yield f"{name}, torch.compile", partial(_load_peer, folder, dtype, compiled=True)
        yield f"{name}, flash attention", partial(_load_peer, folder, dtype, attn_implementation="flash_attention_2")


def _load_peer(folder: str, dtype: torch.dtype, *, compiled: bool = False, **model_options: Any) -> Any:
    from sentence_transformers import SparseEncoder

    encoder: Any = SparseEncoder(folder, device="cuda", model_kwargs={"dtype": dtype, **model_options})
    encoder.max_seq_length = _TOKENS
    if compiled:
        encoder.transformers_model.compile()
    return encoder


def _encode_by_peer(encoder: Any, texts: list[str], chunk: int | None, size: int) -> Any:
    encoder.splade_pooling_chunk_size = chunk
    return encoder.encode(texts, batch_size=size, show_progress_bar=False, save_to_cpu=True)


def _rows(embeddings: Tensor) -> csr_array:
    coo = embeddings.coalesce()
    return csr_array((coo.values().float().numpy(), tuple(coo.indices().numpy())), shape=(coo.shape[0], coo.shape[1]))


def _random_states(lengths: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return hidden states (B, L, H) and a weight (V, H). Values at padding are large, to reveal a missing mask."""
    generator = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(len(lengths), max(lengths), _HIDDEN, generator=generator, device="cuda")
    for text, length in enumerate(lengths):
        hidden[text, length:] = 1e3
    weight = torch.randn(_VOCABULARY, _HIDDEN, generator=generator, device="cuda") / _HIDDEN**0.5
    return hidden.to(dtype), weight.to(dtype)


def _repeated(call: Callable[[], object], times: int) -> Callable[[], None]:
    """Return a function that makes `times` calls and then waits until the GPU has finished all of them."""

    def calling() -> None:
        for _ in range(times):
            call()
        torch.cuda.synchronize()

    return calling


def _peak_bytes(call: Callable[[], object]) -> int:
    """Return the peak bytes of a warmed-up call, without the memory that was allocated before the call."""
    call()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _peak_name(dtype: torch.dtype) -> str:
    return f"peak {str(dtype).removeprefix('torch.')}"


def _print_head(head: dict[str, Any]) -> None:
    seconds, written = head["seconds"], head["peak_bytes"]["logits written out"]
    rates = _rates(seconds, head["flops"])
    rows = [
        [
            name,
            spread(1000 * second / head["calls"] for second in seconds[name]),
            ratio(rates[name], rates[_peak_name(torch.float16)]),
            ratio(seconds[name], seconds["the product alone"]),
            f"{peak_bytes / 2**20:.0f}",
            f"{peak_bytes / written:.3f}",
        ]
        for name, peak_bytes in head["peak_bytes"].items()
    ]
    print(f"\nThe head alone, {_BATCH} texts of {_TOKENS} tokens, float16")
    print(format_table(["head", "ms", "of peak", "× the product's time", "peak MiB", "MiB ÷ written out"], rows))


def _print_encoders(found: dict[str, Any]) -> None:
    seconds, rates = found["seconds"], _rates(found["seconds"], found["flops"])
    peaks = {dtype: rates[_peak_name(dtype)] for dtype in _DTYPES}
    peers = [times for name, times in seconds.items() if name.startswith(_PEER)]
    peer = min(peers, key=median, default=None)
    rows = [
        [
            name,
            spread(found["texts"] / second for second in times),
            ratio(rates[name], peaks[torch.bfloat16 if "bfloat16" in name else torch.float16]),
            # A call that starts from token ids does less work than the peer, so the two are not compared.
            "" if peer is None or "token ids" in name else ratio(peer, times),
        ]
        for name, times in seconds.items()
        if not name.startswith("peak")
    ]
    print(
        "\n8192³ products, TFLOP/s: "
        + ", ".join(f"{dtype} {spread(r / 1e12 for r in peaks[dtype])}" for dtype in peaks)
    )
    print(f"{found['texts']} texts of {_TOKENS} tokens, with {found['active_terms']:.0f} active terms each")
    print(format_table(["encoder", "texts/s", "of peak", f"× {_PEER}"], rows))
    for setting, reason in found["skipped"].items():
        print(f"{_PEER} {setting}: left out, {reason}")


def _rates(seconds: dict[str, list[float]], flops: float) -> dict[str, list[float]]:
    """Return the FLOP/s of each call in each round."""
    return {
        name: [(_PEAK_FLOPS if name.startswith("peak") else flops) / second for second in times]
        for name, times in seconds.items()
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="Measure a GPU's peak, and the encoder's share of it."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a dataset in BEIR layout, such as SciFact")
    parser.add_argument("--texts", type=int, default=8192, help="number of texts to encode (default: %(default)s)")
    add_common_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
