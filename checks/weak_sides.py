"""Check that a fusion never gets worse if it leaves out the retrievers that are far behind on made-up queries.

    python -m checks.weak_sides FOLDER [FOLDER …]

FOLDER is a dataset in BEIR layout with judged queries. The retrievers are called sides: dense, SPLADE and BM25. The
check makes 27 variants of each dataset. In a variant, each side is unchanged, spoiled a little, or spoiled a lot. For
each variant, `splade_integrations.evaluation.made_queries` makes queries from the documents. A side is far behind if
its MRR@10 on these queries is less than a given share of the best side's. This share is the threshold. The judged
queries then show how reciprocal rank fusion changes without the sides that are far behind. The change is nDCG@10 of the
fusion without these sides, minus nDCG@10 of the fusion of all three sides. The table shows the changes for several
thresholds. The exit status is 1 if the package's own threshold makes a variant worse.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from benchmarks.measuring import format_table
from benchmarks.workload import quiet
from checks.frameworks import Embeddings, embeddings_of
from splade_integrations.evaluation import Bm25, Dataset, load_dataset
from splade_integrations.evaluation.made_queries import FAR_BEHIND, MADE_MEASURE, far_behind, made_queries
from splade_integrations.evaluation.measures import per_query
from splade_integrations.evaluation.ranking import Ranking, fuse_rrf, postings, rank_dense, rank_sparse, unit_rows
from splade_integrations.fusion import RRF_K

__all__ = ["main"]

_DEPTH = 100
_SIDES = ("dense", "SPLADE", "BM25")
_THRESHOLDS = (0.3, FAR_BEHIND, 0.5, 0.6, 0.7)
_NOISE = (0.0, 1.0, 2.0)  # the length of the random vector that is added to each dense vector of length 1
_LOSS = (0.0, 0.5, 0.8)  # share of the terms or words that a document loses
_WORSE = -0.0005  # smaller losses do not count, because they may come from rounding


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="checks.weak_sides", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="dataset in BEIR layout")
    folders = parser.parse_args(arguments).folders
    quiet()
    variants = [variant for folder in folders for variant in _variants(folder)]
    print(f"{len(folders)} datasets, {len(variants)} variants, sides {', '.join(_SIDES)}")
    print(_table(variants))
    worst = min(change for change in _changes(variants, FAR_BEHIND))
    print(
        f"The package uses the threshold {FAR_BEHIND}. Its worst change must be at least {_WORSE:+.4f}, "
        f"got {worst:+.4f}."
    )
    return 1 if worst < _WORSE else 0


# A variant: {side: MRR@10 on queries made from the documents}, and {sides: nDCG@10 of their fusion on judged queries}.
_Variant = tuple[dict[str, float], dict[tuple[str, ...], float]]


def _variants(folder: str) -> list[_Variant]:
    judged, made = load_dataset(folder), made_queries(folder)
    changed = [row for row, (old, new) in enumerate(zip(judged.documents, made.documents, strict=True)) if old != new]
    documents, queries = embeddings_of(judged)
    new_documents, made_query_rows = embeddings_of(replace(made, documents=[made.documents[row] for row in changed]))
    made_documents = Embeddings(documents.dense.copy(), _with_rows(documents.sparse, changed, new_documents.sparse))
    made_documents.dense[changed] = new_documents.dense
    variants = []
    for number, levels in enumerate(product(_NOISE, _LOSS, _LOSS)):
        print(f"  {judged.name}: variant {number + 1} of 27 …", file=sys.stderr, flush=True)
        found = _rankings(made, made_documents, made_query_rows, levels)
        of_made = {side: _mean(made, rankings, MADE_MEASURE) for side, rankings in found.items()}
        found = _rankings(judged, documents, queries, levels)
        fused = {
            sides: _mean(judged, _fused([found[side] for side in sides]), "nDCG@10")
            for count in (1, 2, 3)
            for sides in combinations(_SIDES, count)
        }
        variants.append((of_made, fused))
    return variants


def _with_rows(matrix: csr_array, places: Sequence[int], rows: csr_array) -> csr_array:
    """Return a matrix in which `rows` replace the rows of `matrix` at `places`."""
    order = np.arange(matrix.shape[0])
    order[list(places)] = matrix.shape[0] + np.arange(len(places))
    return csr_array(vstack([matrix, rows], format="csr")[order])


def _rankings(
    dataset: Dataset, documents: Embeddings, queries: Embeddings, levels: tuple[float, float, float]
) -> dict[str, list[Ranking]]:
    """Spoil the documents' vectors and words by `levels`, and return the rankings of each side."""
    noise, term_loss, word_loss = levels
    chance = np.random.default_rng(0)
    dense = unit_rows(documents.dense)
    random = unit_rows(chance.standard_normal(dense.shape).astype(np.float32))
    sparse = documents.sparse.copy()
    sparse.data = sparse.data * (chance.random(sparse.nnz) >= term_loss)
    words = [
        " ".join(word for word in text.split() if chance.random() >= word_loss) or text for text in dataset.documents
    ]
    bm25 = Bm25(words, stemmed=True)
    return {
        "dense": rank_dense(queries.dense, unit_rows((dense + noise * random).astype(np.float32)), _DEPTH),
        "SPLADE": rank_sparse(queries.sparse, postings(sparse), _DEPTH),
        "BM25": bm25.rank(bm25.encode(dataset.queries), _DEPTH),
    }


def _fused(found: Sequence[list[Ranking]]) -> list[Ranking]:
    return found[0] if len(found) == 1 else [fuse_rrf(rankings, RRF_K) for rankings in zip(*found, strict=True)]


def _mean(dataset: Dataset, rankings: Sequence[Ranking], measure: str) -> float:
    return float(per_query(dataset, rankings, [measure])[measure].mean())


def _changes(variants: Sequence[_Variant], threshold: float) -> list[float]:
    """For each variant, return how nDCG@10 changes if the fusion leaves out the sides that are far behind."""
    changes = []
    for of_made, fused in variants:
        kept = tuple(side for side in _SIDES if side not in far_behind(of_made, threshold))
        changes.append(fused[kept] - fused[_SIDES])
    return changes


def _table(variants: Sequence[_Variant]) -> str:
    rows = []
    for threshold in _THRESHOLDS:
        changes: NDArray[np.float64] = np.array(_changes(variants, threshold))
        lost = changes[changes != 0]
        rows.append(
            [
                f"{threshold:.1f}",
                str(len(lost)),
                str(int((changes < _WORSE).sum())),
                f"{changes.min():+.4f}",
                f"{lost.mean():+.4f}" if len(lost) else "",
            ]
        )
    return format_table(["threshold", "variants that lose a side", "worse", "worst change", "mean change"], rows)


if __name__ == "__main__":
    sys.exit(main())
