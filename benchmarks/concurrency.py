"""Measure how much faster many async queries are encoded together than one by one, and how long a lone query takes.

With dynamic batching, async queries that wait at the same time are encoded in one call. A lone query gains nothing from
this, so the benchmark also measures how much dynamic batching delays a lone query.

    python -m benchmarks.concurrency [--queries 64] [--repeats 5] [--model MODEL] [--json OUT]

The default model has BERT-base's size and random weights. All compared methods take turns in one process. Figures are
medians over the repeats.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import describe_environment, write_json
from benchmarks.workload import made_up_queries, random_bert_base
from splade_integrations import SpladeEncoder
from splade_integrations.langchain import SpladeSparseEmbedding

__all__ = ["compare", "format_report", "main"]

_BLOCK = 12


def compare(encoder: SpladeEncoder, texts: list[str], repeats: int) -> dict[str, Any]:
    """Return the median seconds to encode `texts` together and one by one, and a lone query's median milliseconds."""
    sparse = SpladeSparseEmbedding(encoder=encoder)
    calls: list[int] = []
    _count_calls(encoder, calls)

    async def together() -> list[dict[int, float]]:
        return list(await asyncio.gather(*map(sparse.aembed_query, texts)))

    def one_by_one() -> list[dict[int, float]]:
        return [sparse.embed_query(text) for text in texts]

    asyncio.run(together())
    one_by_one()
    rows: dict[str, list[float]] = {"together": [], "one_by_one": [], "lone_async": [], "lone_sync": []}
    sizes: list[list[int]] = []
    for _ in range(repeats):
        calls.clear()
        rows["together"].append(_seconds(lambda: asyncio.run(together())))
        sizes.append(list(calls))
        rows["one_by_one"].append(_seconds(one_by_one))
    lone = _lone(encoder, texts, repeats)
    medians = {name: statistics.median(rows[name]) for name in ("together", "one_by_one")}
    return {
        "dtype": str(encoder.dtype).removeprefix("torch."),
        "seconds_together": medians["together"],
        "seconds_one_by_one": medians["one_by_one"],
        "ratio": medians["together"] / medians["one_by_one"],
        "calls_of_the_encoder": sizes[-1],
        "lone_query_ms": lone,
        "lone_query_growth_ms": lone["batched"] - lone["sync"],
    }


def _lone(encoder: SpladeEncoder, texts: list[str], blocks: int) -> dict[str, float]:
    """Return the median milliseconds of a lone query: sync, async in a thread, and async with dynamic batching.

    The three methods take turns. In its turn, a method makes a block of calls. After each call, torch's threads spin
    for a while, and this can slow the next call. In a block, nearly every call follows a call of the same method, so
    the methods hardly slow each other.
    """
    plain, batched = (SpladeSparseEmbedding(encoder=encoder, dynamic_batching=on) for on in (False, True))
    times: dict[str, list[float]] = {"sync": [], "thread": [], "batched": []}

    async def one(name: str, text: str) -> None:
        start = time.perf_counter()
        if name == "sync":
            plain.embed_query(text)
        else:
            await (plain if name == "thread" else batched).aembed_query(text)
        times[name].append(time.perf_counter() - start)

    async def all_blocks() -> None:
        for _ in range(blocks):
            for name in times:
                for text in texts[:_BLOCK]:
                    await one(name, text)

    asyncio.run(all_blocks())
    # The first two calls of each block are left out, because calls are slower just after a change of method.
    kept = {name: [t for n, t in enumerate(values) if n % _BLOCK >= 2] for name, values in times.items()}
    return {name: 1000 * statistics.median(values) for name, values in kept.items()}


def _count_calls(encoder: SpladeEncoder, calls: list[int]) -> None:
    encode = encoder.encode_queries

    def counted(texts: list[str], **options: Any) -> Any:
        calls.append(len(texts))
        return encode(texts, **options)

    encoder.encode_queries = counted  # type: ignore[method-assign, assignment]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def format_report(results: list[dict[str, Any]], count: int) -> str:
    """Return the results as a table of at most 80 columns."""
    lines = [f"{count} queries at once   one by one  ratio  lone query: sync  thread  batched"]
    lines += [
        f"{result['dtype']:<10}{result['seconds_together']:8.3f} s {result['seconds_one_by_one']:11.3f} s "
        f"{result['ratio']:6.3f} "
        + "".join(f"{result['lone_query_ms'][name]:9.2f} ms" for name in ("sync", "thread", "batched"))
        for result in results
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="concurrency", description="Compare concurrent queries with one query at a time."
    )
    parser.add_argument("--queries", type=int, default=64, help="number of queries at once (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="number of repeats of each measurement (default: %(default)s)"
    )
    parser.add_argument("--model", help="SPLADE checkpoint (default: random weights, BERT-base's size)")
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "bfloat16"], help="number types (default: float32 bfloat16)"
    )
    parser.add_argument("--device", default="auto", help="where the model runs (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    options = parser.parse_args(arguments)
    results = []
    queries = made_up_queries(options.queries)
    model = options.model or random_bert_base("queries", made_up_queries(40, seed=1))
    for dtype in options.dtypes:
        encoder = SpladeEncoder(model, dtype=dtype, device=options.device)
        results.append(compare(encoder, queries, options.repeats))
    settings = {
        "device": options.device,
        "model": options.model or "random BERT-base",
        "repeats": options.repeats,
    }
    print(describe_environment())
    print(", ".join(f"{name} {value}" for name, value in settings.items()))
    print(format_report(results, options.queries))
    write_json(options.json, {"question": "concurrent queries", "settings": settings, "results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
