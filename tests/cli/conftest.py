"""Fixtures: a place for a collection (a milvus-lite file or a server), and models that are loaded only once."""

import os
import uuid

import pytest
from pymilvus import MilvusClient

from splade_integrations import SpladeEncoder
from splade_integrations.cli import loading
from tests.support.places import PLACES, server_or_skip

MODELS = {}


class Place:
    """A file or a server, and a name for a collection there."""

    def __init__(self, uri):
        self.uri, self.name = uri, f"splade_{uuid.uuid4().hex}"
        self.options = ["--uri", uri, "-c", self.name]

    def ask(self, method, *arguments, db_name=""):
        """Call a method of a new `MilvusClient`, because commands close the connection that pymilvus 2 shares."""
        client = MilvusClient(uri=self.uri, token=os.environ.get("MILVUS_TOKEN", ""), db_name=db_name)
        try:
            return getattr(client, method)(*arguments)
        finally:
            client.close()


@pytest.fixture(params=PLACES)
def place(request, tmp_path):
    if request.param == "milvus-lite":
        yield Place(str(tmp_path / "a.db"))
        return
    place = Place(server_or_skip()["uri"])
    yield place
    place.ask("drop_collection", place.name)


@pytest.fixture
def models_load_once(monkeypatch):
    """Let commands share the SPLADE models that they load."""

    def load(name, options, *, itself=False):
        key = (name, repr(options))
        if key not in MODELS:
            MODELS[key] = SpladeEncoder(name, **options)
        return MODELS[key]

    monkeypatch.setattr(loading, "load_encoder", load)
