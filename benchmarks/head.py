"""Measure the time and memory of three forms of the vocabulary head, which turns hidden states into term weights.

    python -m benchmarks.head FOLDER [--models tiny base] [--texts N] [--json OUT]

The three forms are:

- the two-pass head
- the plain head, which computes the logits tile by tile
- a head that holds all logits in memory

All three get the same hidden states. The model computes the hidden states from FOLDER's documents, cut at 256 tokens,
in the same batches as in the encoder. There is one table for the trained tiny model and one for a random BERT-base. A
table shows:

- the time
- the memory that the head needs at its peak, in addition to the model
- the head's speed, as a share of the peak rate of float32 matrix products

Below the table are the numbers of active terms and of candidates per text. A term is active if its weight is above 0.
The first pass of the two-pass head rules out terms that cannot be active. The remaining terms are the candidates, and
the second pass computes their weights.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import AutoTokenizer

from benchmarks.measuring import (
    Spread,
    add_common_options,
    describe_environment,
    format_table,
    interleave,
    matrix_product_rate,
    ratio,
    spread,
    timed,
    write_json,
)
from benchmarks.resident import PeakMemory
from benchmarks.workload import evenly_spaced, load_dataset, model_path, quiet
from splade_integrations.engine.batch_budget import BatchBudget
from splade_integrations.engine.compute import resolve_compute
from splade_integrations.engine.heads import Decoder, MaxPoolHead, TwoPassHead
from splade_integrations.engine.heads.tiled import repeat_first_token, splade_pool
from splade_integrations.engine.load import load_masked_lm
from splade_integrations.engine.model import MaskedLM
from splade_integrations.models.repository import Repository

__all__ = ["main", "measure_head"]

_MAX_BATCH_TOKENS = 1024  # as in the encoder on a CPU
_DEFAULT_TEXTS = 32
_MIB = 2**20
Head = Callable[[Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]  # hidden states (B, L, H), lengths (B,)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    quiet()
    dataset = load_dataset(options.folder)
    texts = evenly_spaced(dataset.documents, options.texts)
    print(describe_environment())
    reports = {}
    for name in options.models:
        report = measure_head(model_path(name, dataset), texts, options.max_length, options.rounds)
        reports[name] = report
        print(f"\n{name}: {report['texts']} texts, {report['tokens']} tokens, H = {report['hidden']}")
        header = ["head", "ms", "× the two-pass head's", "of float32 peak", "peak MiB", "weight diff"]
        rows = [
            [
                head,
                spread(1000 * second for second in report["seconds"][head]),
                report["ratios"][head],
                report["share_of_peak"][head],
                f"{report['peak_bytes'][head] / _MIB:.0f}",
                f"{report['differences'][head]:.1e}",
            ]
            for head in report["seconds"]
        ]
        print(format_table(header, rows))
        print(
            f"Per text: {report['active']:.0f} active terms and {report['candidates']:.0f} candidates, or "
            f"{report['candidates'] / report['active']:.2f} candidates per active term"
        )
    write_json(options.json, {"question": "the head alone", "max_length": options.max_length, "models": reports})
    return 0


@torch.inference_mode()
def measure_head(folder: str, texts: list[str], max_length: int, rounds: int) -> dict[str, Any]:
    """Measure the three heads on a checkpoint's hidden states: time, memory, share of the peak, and candidates."""
    loaded = load_masked_lm(Repository(folder), "", resolve_compute("cpu"))
    if loaded.decoder is None:
        raise ValueError(f"{folder} must have a head that ends in a linear decoder, but has none. Use a BERT.")
    weight, bias, _ = loaded.decoder
    batches = list(_hidden_states(loaded, folder, texts, max_length))
    two_pass = TwoPassHead(loaded.decoder)

    def written_out(hidden: Tensor, lengths: Tensor) -> Tensor:
        mask = torch.arange(hidden.shape[1]) < lengths.unsqueeze(1)
        return splade_pool(linear(hidden, weight, bias), mask)

    heads: dict[str, Head] = {
        "two passes": two_pass,
        "plain tiles": MaxPoolHead(Decoder(weight, bias)),
        "logits written out": written_out,
    }
    reference = [written_out(*batch) for batch in batches]
    differences, peaks = {}, {}
    for name, head in heads.items():
        head(*batches[-1])  # to warm up
        memory = PeakMemory()
        found = 0.0
        for batch, expected in zip(batches, reference, strict=True):
            found = max(found, float((head(*batch) - expected).abs().max()))
        peaks[name], differences[name] = memory.grown(), found
    rates: list[float] = []
    seconds = interleave(
        {name: timed(partial(_pool_all, head, batches)) for name, head in heads.items()},
        rounds,
        before_round=lambda _: rates.append(matrix_product_rate(torch.float32)),
    )
    tokens = sum(int(lengths.sum()) for _, lengths in batches)
    flops = 2 * tokens * weight.numel()
    candidates = sum(int(two_pass.candidates(repeat_first_token(*batch)).sum()) for batch in batches)
    shares: dict[str, Spread] = {
        name: ratio([flops / second for second in values], rates) for name, values in seconds.items()
    }
    return {
        "texts": len(texts),
        "tokens": tokens,
        "hidden": weight.shape[1],
        "seconds": seconds,
        "ratios": {name: ratio(values, seconds["two passes"]) for name, values in seconds.items()},
        "share_of_peak": shares,
        "peak_flops_per_second": rates,
        "peak_bytes": peaks,
        "differences": differences,
        "active": sum(int((weights > 0).sum()) for weights in reference) / len(texts),
        "candidates": candidates / len(texts),
    }


def _pool_all(head: Head, batches: list[Batch]) -> None:
    for batch in batches:
        head(*batch)


def _hidden_states(model: MaskedLM, folder: str, texts: list[str], max_length: int) -> Iterator[Batch]:
    """Yield the hidden states that enter the head's last layer, in the batches that the encoder would make."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    lengths = [len(text_ids) for text_ids in ids]
    for rows in BatchBudget(_MAX_BATCH_TOKENS, len(texts)).batches(lengths):
        inputs = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
        yield model.hidden(inputs["input_ids"], inputs["attention_mask"]), torch.tensor([lengths[row] for row in rows])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="head", description="Measure the time, memory and candidates of the head alone."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a dataset in BEIR layout, such as SciFact")
    parser.add_argument(
        "--models", nargs="+", default=["tiny", "base"], help="tiny, base or folders (default: tiny base)"
    )
    parser.add_argument("--texts", type=int, default=_DEFAULT_TEXTS, help="number of texts (default: %(default)s)")
    parser.add_argument(
        "--max-length", type=int, default=256, help="the largest number of tokens of a text (default: %(default)s)"
    )
    add_common_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
