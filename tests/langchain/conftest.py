"""Fixtures for the LangChain stores, on a milvus-lite file and, if MILVUS_URI is set, on a server."""

import os

import pytest
from pymilvus import MilvusClient

from tests.support.adapters import server_options


@pytest.fixture(params=["milvus-lite", pytest.param("server", marks=pytest.mark.server)])
def place(request, tmp_path):
    """Return the keyword arguments that open a store: the uri and the name of a new collection."""
    if request.param == "milvus-lite":
        yield {"uri": str(tmp_path / "place.db"), "collection_name": "place"}
        return
    if not os.environ.get("MILVUS_URI"):
        pytest.skip("needs a Milvus server: set MILVUS_URI, and MILVUS_TOKEN if the server needs a token")
    options = server_options()
    yield dict(options)
    client = MilvusClient(uri=options["uri"], token=options["token"])
    for name in client.list_collections():
        if name.startswith(options["collection_name"]):
            client.drop_collection(name)
    client.close()
