"""Where tests store collections: a milvus-lite file and, if MILVUS_URI is set, a server."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymilvus import MilvusClient

__all__ = ["PLACES", "new_place", "server_or_skip"]

# The parameters of a fixture that runs its tests in both places.
PLACES = ["milvus-lite", pytest.param("server", marks=pytest.mark.server)]


def server_or_skip() -> dict[str, str]:
    """Return the uri and the token of the server. Skip the test if there is none."""
    if not os.environ.get("MILVUS_URI"):
        pytest.skip("needs a Milvus server: set MILVUS_URI, and MILVUS_TOKEN if the server needs a token")
    return {"uri": os.environ["MILVUS_URI"], "token": os.environ.get("MILVUS_TOKEN", "")}


@contextmanager
def new_place(kind: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the keyword arguments that open a store with a new collection, and drop the collection at the end.

    Args:
        kind: One of `PLACES`.
        folder: The folder of the milvus-lite file.
    """
    if kind == "milvus-lite":
        yield {"uri": str(folder / "test.db"), "collection_name": "place"}
        return
    where, name = server_or_skip(), f"splade_{uuid.uuid4().hex}"
    # With the default consistency level, "Session", a client sees only its own writes.
    yield {**where, "collection_name": name, "consistency_level": "Strong"}
    client = MilvusClient(**where)
    for made in client.list_collections():
        if made.startswith(name):
            client.drop_collection(made)
    client.close()
