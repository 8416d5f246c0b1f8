"""Retrieval quality and its cost on test collections: what `splade evaluate` runs, for use from Python and notebooks.

Importing it needs no extra; measures, BM25, a dense model, Milvus and pictures each say what they lack.
"""

from splade_integrations.evaluation.compare import Comparison, evaluate
from splade_integrations.evaluation.dataset import Collection, CollectionError, load_collection
from splade_integrations.evaluation.retrievers import Bm25, Dense, Splade, load_dense
from splade_integrations.evaluation.sweep import SweepPoint, sweep

__all__ = [
    "Bm25",
    "Collection",
    "CollectionError",
    "Comparison",
    "Dense",
    "Splade",
    "SweepPoint",
    "evaluate",
    "load_collection",
    "load_dense",
    "sweep",
]
