"""Retrieval quality and its cost on test datasets: what `splade evaluate` runs, for use from Python and notebooks.

Importing it needs no extra and loads no torch; measures, BM25, a dense model, Milvus and plots each say what they lack.
"""

from splade_integrations.evaluation.compare import evaluate
from splade_integrations.evaluation.dataset import Dataset, DatasetError, load_dataset
from splade_integrations.evaluation.results import Comparison
from splade_integrations.evaluation.retrievers import Bm25, Dense, Splade, load_dense
from splade_integrations.evaluation.sweep import SweepPoint, sweep

__all__ = [
    "Bm25",
    "Comparison",
    "Dataset",
    "DatasetError",
    "Dense",
    "Splade",
    "SweepPoint",
    "evaluate",
    "load_dataset",
    "load_dense",
    "sweep",
]
