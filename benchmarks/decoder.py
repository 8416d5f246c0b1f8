"""Measure SPLADE on a decoder model with a vocabulary of 151 936 terms: the head alone, and the whole encoder.

    python -m benchmarks.decoder [--size small 0.6B] [--dtype float32] [--texts N] [--tokens 256] [--json OUT]

The model has random weights in the layout of naver/splade-code-06B. "0.6B" has the size of that model. "small" has the
same vocabulary, but only 4 layers of width 256. About 1 200 terms of each text are active, as in the trained model.

The first table is about the head, which computes term weights from hidden states. It compares our head with two other
computations. The first one is only the matrix product of the hidden states and the output layer's weight. Every head
has to compute this product in some form. The second one is sentence-transformers' pooling of all logits. The memory of
a computation is its peak, without the model's weights. The second table compares our encoder with
sentence-transformers, on texts of 256 tokens, in the same number type.
"""

import argparse
import inspect
import logging
import sys
import typing
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

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
from benchmarks.resident import PeakMemory
from benchmarks.workload import CACHE, quiet
from splade_integrations import SpladeEncoder
from splade_integrations.engine.compute import resolve_compute
from splade_integrations.engine.heads import choose
from splade_integrations.engine.load import load_language_model
from splade_integrations.engine.products import exact_float32
from splade_integrations.models.repository import Repository
from tests.support.random_checkpoints import decoder_tokenizer, save_decoder

__all__ = ["main", "random_decoder"]

_SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 64, "intermediate_size": 768,
    },
    "0.6B": {
        "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "intermediate_size": 3072,
    },
}  # fmt: skip
_VOCABULARY, _ACTIVE_TERMS = 151_936, 1200
# The number of texts in the batch for the head, and the batch sizes to try with sentence-transformers.
_HEAD_TEXTS, _BATCH_SIZES = 8, (1, 4)
# Weights that differ by less than this count as equal. Rounding in float32 causes much smaller differences.
_TOLERANCE = 1e-3
_MIB = 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    quiet()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    print(describe_environment())
    reports = {}
    for size in options.size:
        folder = random_decoder(size)
        texts = _texts(options.texts, options.tokens)
        reports[size] = {
            "head": _report_head(folder, size, texts, options),
            "encoder": _report_encoder(folder, size, texts, options),
        }
    write_json(options.json, {"question": "a decoder", "dtype": options.dtype, "sizes": reports})
    return 0


def random_decoder(size: str) -> Path:
    """Return the folder of a random decoder. The decoder is made once and then reused.

    One dimension of every embedding is 1, and no layer changes it. In this dimension, the last norm's weight is chosen
    so that it lowers all logits, and about 1 200 terms of each text are active.

    Args:
        size: "small" or "0.6B".
    """
    folder = CACHE / f"random-decoder-{size}"
    if not (folder / "complete").is_file():
        print(f"Making a random decoder in {folder} (once) …", file=sys.stderr, flush=True)
        save_decoder(
            folder, vocab_size=_VOCABULARY, initializer_range=0.02, max_position_embeddings=40_960, **_SIZES[size]
        )
        _lower_the_logits(folder)
        (folder / "complete").touch()  # the last step, so a folder without this file is incomplete and is made again
    return folder


@torch.inference_mode()
def _lower_the_logits(folder: Path) -> None:
    from transformers import Qwen3ForCausalLM

    model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    backbone = model.model
    backbone.embed_tokens.weight[:, 0] = 1.0
    for layer in backbone.layers:
        layer.self_attn.o_proj.weight[0] = 0.0
        layer.mlp.down_proj.weight[0] = 0.0
    ids = decoder_tokenizer()(_texts(2, 256), truncation=True, max_length=256, return_tensors="pt")["input_ids"]
    hidden = backbone(input_ids=ids).last_hidden_state  # (B, L, H); the norm's weight is still 1
    pushed = hidden[..., 0].mean()
    hidden[..., 0] = 0.0
    maxima = torch.stack([linear(text, backbone.embed_tokens.weight).amax(dim=0) for text in hidden])  # (B, V)
    threshold = np.quantile(maxima.numpy(), 1 - _ACTIVE_TERMS / _VOCABULARY)
    backbone.norm.weight[0] = -float(threshold) / pushed
    config = (folder / "config.json").read_text()
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "config.json").write_text(config)  # because save_pretrained drops entries that it does not know


def _texts(number: int, tokens: int) -> list[str]:
    """Return texts from Python's own library. Each text has at least `tokens` tokens, and hardly more."""
    words = inspect.getsource(typing).split()
    return [" ".join(words[start : start + tokens]) for start in range(0, 40 * number, 40)]


@torch.inference_mode()
def _report_head(folder: Path, size: str, texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    compute = resolve_compute("cpu", options.dtype)
    model = load_language_model(Repository(str(folder)), "", compute, "bidirectional")
    assert model.decoder is not None
    decoder = model.decoder
    encoded = decoder_tokenizer()(
        (texts * _HEAD_TEXTS)[:_HEAD_TEXTS], truncation=True, max_length=options.tokens, padding=True,
        return_tensors="pt",
    )  # fmt: skip
    with exact_float32(model.device):
        hidden = model.hidden(encoded["input_ids"], encoded["attention_mask"])  # (B, L, H)
    lengths = encoded["attention_mask"].sum(dim=1)

    def theirs() -> Tensor:
        from sentence_transformers.sparse_encoder.modules import SpladePooling

        logits = linear(hidden, decoder.weight)
        features = {"token_embeddings": logits, "attention_mask": encoded["attention_mask"]}
        pooled: Tensor = SpladePooling()(features)["sentence_embedding"]
        return pooled

    memory = PeakMemory()
    head = choose(decoder, "max", "relu")
    found = head(hidden, lengths)
    name_of_ours = f"ours ({type(head).__name__})"
    calls: dict[str, Callable[[], Tensor]] = {
        name_of_ours: lambda: head(hidden, lengths),
        "the bare product": lambda: linear(hidden, decoder.weight),
        "sentence-transformers": theirs,
    }
    peaks = {name_of_ours: memory.grown()}
    difference = float((found - theirs().float()).abs().max())
    for name in list(calls)[1:]:
        memory = PeakMemory()
        calls[name]()
        peaks[name] = memory.grown()
    seconds = interleave({name: timed(call) for name, call in calls.items()}, options.rounds)
    bare, stock = seconds["the bare product"], peaks["sentence-transformers"]
    print(f"\n{size}, {options.dtype}, the head alone: {len(hidden)} texts of {hidden.shape[1]} tokens")
    rows = [
        [
            name,
            spread(1000 * second for second in values),
            ratio(values, bare),
            f"{peaks[name] / _MIB:.0f}",
            f"{peaks[name] / stock:.3f}",
        ]
        for name, values in seconds.items()
    ]
    print(format_table(["head", "ms", "x the bare product's", "peak MiB", "of sentence-transformers'"], rows))
    active = float((found > 0).sum(dim=1).float().mean())
    print(f"Active terms per text: {active:.0f}. Largest difference of a weight: {difference:.1e}")
    return {"seconds": seconds, "peak_bytes": peaks, "active": active, "difference": difference}


def _report_encoder(folder: Path, size: str, texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    from sentence_transformers import SparseEncoder

    ours = SpladeEncoder(folder, device="cpu", dtype=options.dtype, max_length=options.tokens)
    theirs = SparseEncoder(
        str(folder), device="cpu", trust_remote_code=True, model_kwargs={"dtype": getattr(torch, options.dtype)}
    )
    theirs.max_seq_length = options.tokens
    expected = theirs.encode_document(texts[:2], batch_size=1, convert_to_sparse_tensor=False).float().numpy()
    difference = float(np.abs(ours.encode_documents(texts[:2]).toarray() - expected).max())
    if options.dtype == "float32" and difference > _TOLERANCE:
        raise SystemExit(
            f"Both encoders must give equal weights, got a difference of {difference:.1e}. Find out which encoder is "
            "wrong before you compare times."
        )
    encode = {
        f"sentence-transformers, batches of {n}": partial(theirs.encode_document, batch_size=n) for n in _BATCH_SIZES
    }
    tried = {name: timed(partial(call, texts[:4]))() for name, call in encode.items()}
    best = min(tried, key=lambda name: tried[name])
    seconds = interleave(
        {"ours": timed(partial(ours.encode_documents, texts)), best: timed(partial(encode[best], texts))},
        options.rounds,
    )
    print(f"\n{size}, {options.dtype}, end to end: {len(texts)} texts of {options.tokens} tokens")
    rows = [
        [name, spread(len(texts) / second for second in values), ratio(seconds[best], values)]
        for name, values in seconds.items()
    ]
    print(format_table(["encoder", "texts/s", "x sentence-transformers"], rows))
    print(f"Largest difference of a weight: {difference:.1e}")
    return {"seconds": seconds, "tried": tried, "difference": difference}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoder", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", nargs="+", choices=list(_SIZES), default=["small"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=256)
    add_common_options(parser)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
