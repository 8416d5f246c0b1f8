"""Copy a collection row by row, unchanged or with new SPLADE vectors, while other programs write to the original."""

from splade_integrations.milvus.copying.add_sparse import add_sparse, estimate_sparse, sample_row
from splade_integrations.milvus.copying.compact import compact
from splade_integrations.milvus.copying.copy import copy_collection, estimate_copy
from splade_integrations.milvus.copying.in_place import add_sparse_in_place
from splade_integrations.milvus.copying.passes import ROWS_AT_ONCE
from splade_integrations.milvus.copying.report import Estimate, Report

__all__ = [
    "ROWS_AT_ONCE",
    "Estimate",
    "Report",
    "add_sparse",
    "add_sparse_in_place",
    "compact",
    "copy_collection",
    "estimate_copy",
    "estimate_sparse",
    "sample_row",
]
