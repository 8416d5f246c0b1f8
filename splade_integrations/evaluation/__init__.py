"""Measures the retrieval quality and the cost of retrievers on test datasets.

`splade evaluate` runs this code, and scripts and notebooks can use it as well. The import of this package does not load
torch, and needs none of the optional extras of splade-integrations. Measures, BM25, dense models, Milvus and plots need
some of these extras. If an extra is missing, the error says what to install.
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
