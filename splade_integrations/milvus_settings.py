"""What a Milvus collection needs for hybrid retrieval to be right, in one place for both frameworks' stores.

Index and search parameters, candidates a side, reciprocal rank fusion, and async clients that outlive an event loop.
Needs pymilvus; knows neither LangChain, nor LlamaIndex, nor an encoder.
"""

import asyncio
import importlib.metadata
import os
import uuid
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from splade_integrations.errors import OptionalDependencyError, require_extra

with require_extra("milvus", module=__name__):
    from pymilvus import AsyncMilvusClient, Function, FunctionType, MilvusClient
    from pymilvus.exceptions import ConnectionConfigException

__all__ = [
    "RRF_K",
    "AsyncClients",
    "candidates",
    "dense_index",
    "insert_replaces",
    "is_lite",
    "open_client",
    "rrf_reranker",
    "searchable",
    "sparse_index",
    "storable",
]

RRF_K = 60
# milvus-lite of these versions scores a sparse inner product with BM25: a wrong order, in silence.
_LITE_THAT_MISSCORES = ("3.1.", "3.2.0", "3.2.1")
# Milvus takes ids up to 2^32 - 2, far above any vocabulary. Two, so that an empty query finds no empty document.
_EMPTY_DOCUMENT = {2**32 - 2: 1e-6}
_EMPTY_QUERY = {2**32 - 3: 1e-6}


def is_lite(uri: str) -> bool:
    """Whether `uri` names a milvus-lite file rather than a server.

    Raises:
        OptionalDependencyError: It does, and the milvus-lite installed is missing or known to score wrongly.
    """
    if "://" in uri and not uri.startswith("file:"):
        return False
    try:
        version = importlib.metadata.version("milvus-lite")
    except importlib.metadata.PackageNotFoundError as err:
        raise OptionalDependencyError(
            f"The database file {uri!r} needs milvus-lite. Install it with: pip install 'splade-integrations[milvus]'."
        ) from err
    if version.startswith(_LITE_THAT_MISSCORES):
        raise OptionalDependencyError(
            f"milvus-lite {version} ranks sparse vectors wrongly (by BM25, not by inner product). "
            "Install one that does not: pip install 'milvus-lite>=3.2.2,<4'."
        )
    return True


def insert_replaces(uri: str) -> bool:
    """Whether to replace rows by `insert`, not `upsert`: on milvus-lite 3.

    Its insert replaces the row that has the same id; its upsert keeps that row's dynamic fields, such as metadata keys
    that the new row lacks, and filters go on finding it by them.
    """
    return is_lite(uri) and not importlib.metadata.version("milvus-lite").startswith("2.")


def open_client(**connection_args: Any) -> MilvusClient:
    """A `MilvusClient`, which pymilvus would open for a milvus-lite file, too, but without saying what is wrong.

    Args:
        **connection_args: What `MilvusClient` takes: uri, token, db_name, …
    Raises:
        OSError: The milvus-lite file cannot be opened; the message says why.
    """
    uri = connection_args.get("uri", "")
    try:
        return MilvusClient(**connection_args)
    except ConnectionConfigException as err:
        if not uri or not is_lite(uri):
            raise
        path = Path(uri)
        if path.suffix != ".db":
            found = "another name"
        elif not path.parent.is_dir():
            found = "a folder that does not exist"
        elif path.is_file():
            found = "a file that is not milvus-lite 3's, which keeps a folder of that name"
        elif not os.access(path if path.is_dir() else path.parent, os.W_OK):
            found = "a folder that is not writable"
        else:
            found = "one that cannot be opened, most likely because another process has it open"
        raise OSError(
            f"The milvus-lite database {uri!r} must be a path that ends in .db, in a writable folder, open in no other "
            f"process, got {found}. Name another path, end the other process, or share one Milvus server."
        ) from err


def dense_index(uri: str, metric_type: str = "COSINE") -> dict[str, Any]:
    """Index of the dense field: exact on milvus-lite, whose collections are small; the server's own choice there."""
    return {"index_type": "FLAT" if is_lite(uri) else "AUTOINDEX", "metric_type": metric_type, "params": {}}


def sparse_index(uri: str) -> dict[str, Any]:
    """Index of the sparse field: every term kept, inner product, the one metric that SPLADE is trained for."""
    params = {} if is_lite(uri) else {"inverted_index_algo": "DAAT_MAXSCORE"}
    return {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP", "params": params}


def candidates(k: int) -> int:
    """Hits to fetch from each side before fusion, for `k` results.

    Fewer than 100 costs quality: on Cranfield nDCG@10 is .4073 with 20 a side, .4200 with 100 and with 1000.
    More than 16 384 a server refuses.
    """
    return max(k, min(max(100, 10 * k), 16_384))


def rrf_reranker() -> Function:
    """Reciprocal rank fusion: each side adds 1 / (60 + rank). Milvus's default, a weighted sum, flattens SPLADE scores.

    Source:
        Cormack et al., Reciprocal Rank Fusion outperforms Condorcet, SIGIR 2009.
    """
    return Function(
        name="rrf",
        input_field_names=[],
        function_type=FunctionType.RERANK,
        params={"reranker": "rrf", "k": RRF_K},
    )


def storable(row: dict[int, float]) -> dict[int, float]:
    """`row`, or where it has no term a placeholder that Milvus stores and no query finds.

    milvus-lite 3 refuses a whole insert batch that holds an empty vector.
    """
    return row or dict(_EMPTY_DOCUMENT)


def searchable(row: dict[int, float]) -> dict[int, float]:
    """`row`, or where it has no term a placeholder that finds nothing: a hybrid search then ranks as its dense side."""
    return row or dict(_EMPTY_QUERY)


class AsyncClients:
    """One `AsyncMilvusClient` for each event loop that asks.

    A client belongs to the loop that it was made in, and pymilvus finds its connections by the loop's address, which
    the next `asyncio.run` may use again: then the call fails with "Event loop is closed". So each loop gets a
    connection under a name of its own, made when it is first wanted.

    Args:
        **connection_args: What `MilvusClient` takes: uri, token, db_name, …
    """

    def __init__(self, **connection_args: Any) -> None:
        self._connection_args = {key: value for key, value in connection_args.items() if key != "alias"}
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncMilvusClient] = WeakKeyDictionary()

    def current(self) -> AsyncMilvusClient:
        """The client of the running loop.

        Raises:
            RuntimeError: No event loop is running.
        """
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            alias = f"splade-{uuid.uuid4().hex}"
            self._clients[loop] = AsyncMilvusClient(**self._connection_args, alias=alias)
        return self._clients[loop]
