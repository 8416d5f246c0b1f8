"""Check the tiny model's retrieval quality, and compare each dtype and each pruning with float32.

    python -m checks.quality FOLDER [--model tiny] [--dtypes …] [--prune document.max_active_dims=64 …] [--json OUT]
    python -m checks.quality FOLDER --device cuda --dtypes float16 bfloat16

The tiny model is the demo's SPLADE model. Search is exact, by inner products in float64. On SciFact, nDCG@10 of the
tiny model must be .6436 ± .002 in float32. If it is not, the exit status is 1. The term weights in other dtypes are
compared with the weights in float32. In the output, "top terms changed" is the share of a document's ten heaviest terms
in float32 that are not among its ten heaviest terms in the other dtype.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from scipy.sparse import csr_array

from benchmarks.measuring import describe_environment, format_table, write_json
from benchmarks.peers import SETTINGS, UnavailableError, our_encoder
from benchmarks.workload import Dataset, load_dataset, model_path, quiet
from splade_integrations import Pruning
from splade_integrations.evaluation.measures import per_query
from splade_integrations.evaluation.ranking import postings, rank_sparse

__all__ = ["changed_top_terms", "main", "pruned", "weight_differences"]

_TOP_TERMS = 10
_DEPTH = 100
# {(model, dataset, largest number of tokens): nDCG@10 in float32}, computed directly by the SPLADE formula.
_KNOWN = {("tiny", "scifact", 256): 0.6436}
_TOLERANCE = 0.002
_PRUNINGS = (
    "document.max_active_dims=128",
    "document.max_active_dims=64",
    "document.max_active_dims=32",
    "document.min_weight=0.1",
    "document.min_weight=0.3",
    "document.mass=0.95",
    "document.mass=0.9",
    "document.max_ratio=0.1",
    "query.max_active_dims=32",
    "query.max_active_dims=16",
    "document.max_active_dims=128,query.max_active_dims=32",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status, which is 1 if float32 misses the known figure."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    quiet()
    dataset = load_dataset(options.folder)
    folder = model_path(options.model, dataset)
    print(describe_environment())
    sizes = f"{len(dataset.documents)} documents, {len(dataset.queries)} queries"
    print(f"{options.model} on {dataset.name}, {options.device}: {sizes}")
    report: dict[str, Any] = {}
    exact: tuple[csr_array, csr_array] | None = None
    for setting in dict.fromkeys(["float32", *options.dtypes]):
        try:
            encoder = our_encoder(folder, setting, options.max_length, options.device)
        except UnavailableError as err:
            print(f"  without {setting}: {err}")
            continue
        print(f"  {setting} …", file=sys.stderr, flush=True)
        documents = encoder.encode_documents(dataset.documents, show_progress=sys.stderr.isatty())
        queries = encoder.encode_queries(dataset.queries)
        del encoder
        exact = exact or (documents, queries)
        report[setting] = {
            **_measured(dataset, documents, queries),
            **weight_differences(documents, exact[0]),
            "top_terms_changed": changed_top_terms(documents, exact[0]),
        }
    assert exact is not None
    for pruning in options.prune:
        report[pruning] = _measured(dataset, *pruned(*exact, pruning))
    _print(report)
    write_json(
        options.json,
        {
            "question": "what dtypes and pruning cost",
            "model": options.model,
            "collection": dataset.name,
            "max_length": options.max_length,
            "device": options.device,
            "results": report,
        },
    )
    return _check(options, dataset, report)


def weight_differences(found: csr_array, expected: csr_array) -> dict[str, float]:
    """Return the largest and the mean absolute difference of weights, and the mean of the expected weights.

    The mean difference is over the terms that occur in at least one of the matrices.

    Example:
        >>> found, expected = csr_array([[1.0, 0.0, 2.5]]), csr_array([[1.0, 0.5, 2.0]])
        >>> {name: round(value, 2) for name, value in weight_differences(found, expected).items()}
        {'largest_difference': 0.5, 'mean_difference': 0.33, 'mean_weight': 1.17}
    """
    difference = abs(found - expected)
    terms = max(1, (abs(found) + abs(expected)).count_nonzero())
    return {
        "largest_difference": float(difference.max()),
        "mean_difference": float(difference.sum() / terms),
        "mean_weight": float(expected.sum()) / max(1, expected.nnz),
    }


def changed_top_terms(found: csr_array, expected: csr_array, top: int = _TOP_TERMS) -> float:
    """Compare the `top` heaviest terms of each row. Return the share of those in `expected` that `found` lacks.

    Example:
        >>> changed_top_terms(csr_array([[3.0, 0.0, 2.0]]), csr_array([[3.0, 2.0, 0.0]]), top=2)
        0.5
    """
    kept = Pruning(max_active_dims=top)
    best = kept.apply(expected).astype(bool)
    common = kept.apply(found).astype(bool).multiply(best)
    return 1 - int(common.nnz) / max(1, int(best.nnz))


def pruned(documents: csr_array, queries: csr_array, setting: str) -> tuple[csr_array, csr_array]:
    """Return documents and queries, pruned by a setting.

    A setting is, for instance, "document.max_active_dims=64,query.max_active_dims=16".

    Raises:
        ValueError: A part of the setting lacks the role (document or query), an option of `Pruning`, or the value.
    """
    options: dict[str, dict[str, Any]] = {"document": {}, "query": {}}
    known = {field.name for field in fields(Pruning)}
    for part in setting.split(","):
        name, _, value = part.partition("=")
        role, _, option = name.strip().partition(".")
        if role not in options or option not in known or not value:
            raise ValueError(
                f"--prune must be like document.max_active_dims=64, got {part!r}. Write document or query, a dot, one "
                f"of {', '.join(sorted(known))}, an equals sign and a number."
            )
        options[role][option] = float(value) if "." in value else int(value)
    return Pruning(**options["document"]).apply(documents), Pruning(**options["query"]).apply(queries)


def _measured(dataset: Dataset, documents: csr_array, queries: csr_array) -> dict[str, float]:
    rankings = rank_sparse(queries, postings(documents), _DEPTH)
    return {
        **{name: float(values.mean()) for name, values in per_query(dataset, rankings).items()},
        "terms_a_document": documents.nnz / documents.shape[0],
        "terms_a_query": queries.nnz / queries.shape[0],
        "index_megabytes": (8 * documents.nnz + documents.indptr.nbytes) / 1e6,  # counted as in `splade evaluate`
    }


def _print(report: dict[str, Any]) -> None:
    columns = {
        "nDCG@10": ("nDCG@10", ".4f"),
        "R@100": ("R@100", ".4f"),
        "MRR@10": ("MRR@10", ".4f"),
        "terms per doc.": ("terms_a_document", ".0f"),
        "per query": ("terms_a_query", ".0f"),
        "index MB": ("index_megabytes", ".2f"),
        "largest diff": ("largest_difference", ".2e"),
        "mean diff": ("mean_difference", ".2e"),
        "top terms changed": ("top_terms_changed", ".3%"),
    }
    rows = [
        [setting, *(format(result[key], form) if key in result else "" for key, form in columns.values())]
        for setting, result in report.items()
    ]
    print("\n" + format_table(["setting", *columns], rows))


def _check(options: argparse.Namespace, dataset: Dataset, report: dict[str, Any]) -> int:
    known = _KNOWN.get((options.model, dataset.name, options.max_length))
    if known is None:
        return 0
    found = report["float32"]["nDCG@10"]
    right = abs(found - known) <= _TOLERANCE
    print(f"\nnDCG@10 in float32 must be {known:.4f} ± {_TOLERANCE}, got {found:.4f}: {'right' if right else 'WRONG'}.")
    return 0 if right else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m checks.quality", description="Compare dtypes and prunings by retrieval quality."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a dataset in BEIR layout, such as SciFact")
    parser.add_argument(
        "--model",
        default="tiny",
        help="tiny or a folder; base has random weights, so its quality means nothing (default: %(default)s)",
    )
    parser.add_argument(
        "--max-length", type=int, default=256, help="the largest number of tokens of a text (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--dtypes",
        nargs="+",
        default=list(SETTINGS),
        help="number types to measure (default: all that this machine supports)",
    )
    parser.add_argument(
        "--prune",
        nargs="*",
        default=list(_PRUNINGS),
        metavar="SETTING",
        help="prunings to apply to the float32 weights",
    )
    parser.add_argument("--threads", type=int, help="number of torch threads")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write all figures to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
