"""Measure how many texts per second our encoder and its peers encode, with the same model and the same texts.

    python -m benchmarks.throughput FOLDER [--model tiny|base] [--short] [--texts N] [--only NAME …] [--json OUT]

FOLDER is a dataset in BEIR layout. The texts are an evenly spaced selection of its documents, at their real lengths,
cut at 256 tokens. With --short, the texts are FOLDER's queries. The peers are other libraries with SPLADE encoders.
First, each peer tries its batch sizes on some of the texts. The peer's fastest batch size and its default batch size
take part in the rounds. A contestant is one library at one setting. In a round, each contestant in turn encodes all
texts. A contestant's time ends when it returns its result, which is a csr_array for our encoder. Results are checked
before times are compared. Each library runs in its own process.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.contestants import (
    add_contestant_options,
    best_batch_sizes,
    check_results,
    contest,
    format_headlines,
    headlines,
)
from benchmarks.measuring import (
    Spread,
    add_common_options,
    describe_environment,
    format_table,
    interleave,
    ratio,
    spread,
    write_json,
)
from benchmarks.peers import Contestant
from benchmarks.workload import (
    evenly_spaced,
    load_dataset,
    model_flops_per_token,
    model_path,
    quiet,
    token_lengths,
)

__all__ = ["main"]

_DEFAULT_TEXTS = {"tiny": 192, "base": 32}
_TEXTS_TRIED = {"tiny": 48, "base": 8}
_PEAKS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    quiet()
    dataset = load_dataset(options.folder)
    folder = model_path(options.model, dataset)
    source = dataset.queries if options.short else dataset.documents
    texts = evenly_spaced(source, options.texts or _DEFAULT_TEXTS.get(options.model, 64))
    lengths = token_lengths(folder, texts, options.max_length)
    trials: dict[str, float] = {}
    with contest(folder, options) as field:
        found = field.contestants
        _describe(options, texts, lengths, field.skipped)
        if not options.all_batch_sizes:
            found, trials = best_batch_sizes(found, evenly_spaced(texts, _TEXTS_TRIED.get(options.model, 16)))
        rates: dict[str, list[float]] = {name: [] for name in _PEAKS if any(peer.dtype == name for peer in found)}
        differences = check_results(found, texts)
        calls = {peer.name: partial(peer.seconds, texts, 1) for peer in found}

        def measure_peaks(message: str) -> None:
            print(f"  {message} …", file=sys.stderr, flush=True)
            for name in rates:
                rates[name].append(field.matrix_product_rate(_PEAKS[name]))

        seconds = interleave(calls, options.rounds, before_round=measure_peaks)
    flops = sum(lengths) * model_flops_per_token(folder)
    report = _report(found, seconds, differences, len(texts))
    shares = {
        peer.name: {
            peak: ratio([flops / second for second in seconds[peer.name]], rates[peak])
            for peak in dict.fromkeys(["float32", peer.dtype])
        }
        for peer in found
        if peer.dtype in _PEAKS
    }
    _print(report, shares, rates)
    lines = headlines(found, seconds)
    print("\n" + format_headlines(lines))
    write_json(
        options.json,
        {
            "question": "texts a second",
            "settings": {name: value for name, value in vars(options).items() if name != "json"},
            "texts": {"number": len(texts), "tokens": sum(lengths), "lengths": lengths},
            "flops_per_token": model_flops_per_token(folder),
            "skipped": field.skipped,
            "seconds_in_trials_of_batch_sizes": trials,
            "seconds": seconds,
            "texts_per_second": report["texts_per_second"],
            "largest_weight_difference_from_ours_in_float32": differences,
            "ratios": report["ratios"],
            "headlines": lines,
            "peak_flops_per_second": {name: spread(values) for name, values in rates.items()},
            "peak_flops_per_second_in_rounds": rates,
            "share_of_peak": shares,
        },
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="throughput", description="Measure texts per second, for our encoder and its peers."
    )
    add_contestant_options(parser)
    parser.add_argument("--short", action="store_true", help="encode the dataset's queries instead of its documents")
    parser.add_argument(
        "--texts", type=int, help="number of texts (default: 192 for tiny, 32 for base, 64 for a folder)"
    )
    parser.add_argument("--all-batch-sizes", action="store_true", help="time every batch size, not only the fastest")
    add_common_options(parser)
    return parser


def _describe(options: argparse.Namespace, texts: list[str], lengths: list[int], skipped: dict[str, str]) -> None:
    print(describe_environment())
    print(
        f"{options.model}: {len(texts)} texts of {min(lengths)} to {max(lengths)} tokens (mean "
        f"{sum(lengths) / len(lengths):.0f}), cut at {options.max_length}; {options.rounds} rounds"
    )
    for name, reason in skipped.items():
        print(f"  without {name}: {reason}")


def _report(
    found: list[Contestant], seconds: dict[str, list[float]], differences: dict[str, float], texts: int
) -> dict[str, Any]:
    """Return the texts/s of each contestant, and the ratios of each peer's time to the time of each of our settings."""
    ours = [peer for peer in found if peer.name.startswith("ours")]
    return {
        "texts_per_second": {name: spread(texts / second for second in values) for name, values in seconds.items()},
        "differences": differences,
        "ratios": {
            mine.name: {peer.name: ratio(seconds[peer.name], seconds[mine.name]) for peer in found if peer not in ours}
            for mine in ours
        },
    }


def _print(report: dict[str, Any], shares: dict[str, dict[str, Spread]], rates: dict[str, list[float]]) -> None:
    mine = list(report["ratios"])
    header = ["encoder", "texts/s", "weight diff", *(f"{name} is × faster" for name in mine)]
    rows = [
        [name, rate, f"{report['differences'][name]:.1e}", *(str(report["ratios"][our].get(name, "")) for our in mine)]
        for name, rate in report["texts_per_second"].items()
    ]
    print("\n" + format_table(header, rows))
    print(
        "\nFigures are medians of the rounds (smallest–largest). A ratio divides two medians (smallest–largest ratio "
        "within one round)."
    )
    print("Weight diff: the largest difference between the encoder's term weights and ours in float32.\n")
    peaks = ", ".join(f"{name} {spread(values).median / 1e9:.0f}" for name, values in rates.items())
    print(
        f"Peak of plain matrix products in our process, GFLOP/s: {peaks}. The table shows which share of the peak each "
        "encoder reaches from texts to rows. A share counts the operations for real tokens, not those for padding. It "
        "counts the full head, even if an encoder skips part of it."
    )
    columns = [peak for peak in rates if any(peak in share for share in shares.values())]
    table = [[name, *(str(share.get(peak, "")) for peak in columns)] for name, share in shares.items()]
    print(format_table(["encoder", *(f"of {peak} peak" for peak in columns)], table))


if __name__ == "__main__":
    sys.exit(main())
