"""Encodes corpora with Ray Data on many cores, GPUs and machines.

The encoded corpora are written into Milvus, or into files for Milvus's bulk import. This module needs the extra "ray".
The module's full name is `splade_integrations.ray`, so `import ray` still imports Ray itself.
"""

from splade_integrations.dependencies import MILVUS, check_installed, require_extra

check_installed(*MILVUS)

with require_extra("ray", module=__name__):
    import pyarrow  # noqa: F401
    import pymilvus  # noqa: F401
    import ray.data  # noqa: F401

    from splade_integrations.ray.bulk import write_bulk_files
    from splade_integrations.ray.encoder import RayEncoder
    from splade_integrations.ray.encoding import Actors, encode_dataset
    from splade_integrations.ray.indexing import BadRows, Writers, index_dataset
    from splade_integrations.ray.local import connected
    from splade_integrations.ray.report import RunReport, TooManyBadRowsError
    from splade_integrations.ray.rows import Columns

__all__ = [
    "Actors",
    "BadRows",
    "Columns",
    "RayEncoder",
    "RunReport",
    "TooManyBadRowsError",
    "Writers",
    "connected",
    "encode_dataset",
    "index_dataset",
    "write_bulk_files",
]
