"""Fixtures for the LangChain stores, on a milvus-lite file and, if MILVUS_URI is set, on a server."""

import pytest

from tests.support.places import PLACES, new_place


@pytest.fixture(params=PLACES)
def place(request, tmp_path):
    """Return the keyword arguments that open a store: the uri and the name of a new collection."""
    with new_place(request.param, tmp_path) as options:
        yield options
