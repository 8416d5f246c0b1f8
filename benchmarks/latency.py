"""Measure how long our encoder and its peers (other libraries with SPLADE encoders) take for one short query.

    python -m benchmarks.latency FOLDER [--model tiny|base] [--query TEXT] [--only NAME …] [--json OUT]

The query is FOLDER's query of median length. In a round, each encoder is called several times in a row, as a server
would call it. The encoder's figure for the round is the median time of these calls. Over all rounds, the table shows
the median, the smallest and the largest figure.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from benchmarks.contestants import (
    add_contestant_options,
    check_results,
    contest,
    format_headlines,
    headlines,
)
from benchmarks.measuring import (
    add_common_options,
    describe_environment,
    format_table,
    interleave,
    ratio,
    spread,
    write_json,
)
from benchmarks.peers import Contestant
from benchmarks.workload import load_dataset, model_path, quiet, token_lengths

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    quiet()
    dataset = load_dataset(options.folder)
    folder = model_path(options.model, dataset)
    queries = sorted(dataset.queries, key=len)
    query = options.query or queries[len(queries) // 2]
    tokens = token_lengths(folder, [query], options.max_length)[0]
    print(describe_environment())
    print(f"{options.model}: {query!r}, {tokens} tokens; {options.rounds} rounds of {options.calls} calls")
    with contest(folder, options) as field:
        found = _at_one_batch_size(field.contestants)
        for name, reason in field.skipped.items():
            print(f"  without {name}: {reason}")
        differences = check_results(found, [query])
        calls = {peer.name: partial(peer.seconds, [query], options.calls) for peer in found}
        interleave(calls, 2)  # to warm up
        seconds = interleave(calls, options.rounds)
    milliseconds = {name: spread(1000 * second for second in values) for name, values in seconds.items()}
    mine = [peer.name for peer in found if peer.name.startswith("ours")]
    ratios = {our: {name: ratio(seconds[our], seconds[name]) for name in seconds if name not in mine} for our in mine}
    rows = [
        [name, time, f"{differences[name]:.1e}", *(str(ratios[our].get(name, "")) for our in mine)]
        for name, time in milliseconds.items()
    ]
    print("\n" + format_table(["encoder", "ms", "weight diff", *(f"{our} takes ×" for our in mine)], rows))
    print(
        "\nFigures are medians of the rounds (smallest–largest). A ratio divides two medians (smallest–largest ratio "
        "within one round)."
    )
    print("If a ratio is below 1, our encoder is faster.")
    lines = headlines(found, seconds)
    print("\n" + format_headlines(lines))
    write_json(
        options.json,
        {
            "question": "time of one short query",
            "settings": {name: value for name, value in vars(options).items() if name != "json"},
            "query": query,
            "tokens": tokens,
            "skipped": field.skipped,
            "seconds": seconds,
            "milliseconds": milliseconds,
            "largest_weight_difference_from_ours_in_float32": differences,
            "ratios_of_times": ratios,
            "headlines": lines,
        },
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="latency", description="Measure the time of one short query, for our encoder and its peers."
    )
    add_contestant_options(parser)
    parser.add_argument(
        "--query", metavar="TEXT", help="the query to time (default: the dataset's query of median length)"
    )
    parser.add_argument("--calls", type=int, default=10, help="calls in a row within a round (default: %(default)s)")
    add_common_options(parser, rounds=15)
    return parser


def _at_one_batch_size(found: list[Contestant]) -> list[Contestant]:
    """Return each encoder once, under a name without its batch size, because a single text is always one batch."""
    first: dict[str, Contestant] = {}
    for peer in found:
        first.setdefault(peer.name.partition(", batch")[0], peer)
    return [replace(peer, name=name) for name, peer in first.items()]


if __name__ == "__main__":
    sys.exit(main())
