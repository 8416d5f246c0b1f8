"""After a Ctrl-C, nothing waits for ever for a client that no longer answers."""

import numpy as np
import pytest

from splade_integrations.cli.copying import connect
from splade_integrations.cli.milvus_store import Store
from splade_integrations.evaluation.milvus import MilvusCollection
from splade_integrations.milvus import interrupted
from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.interrupted import clean_up
from splade_integrations.milvus.schema import Schema
from tests.support.stuck import wait_for_ever


@pytest.fixture
def stuck(monkeypatch):
    """Let every client that is opened from now on wait for ever when it is closed or drops a collection."""
    called = []

    def wait(*arguments, **options):
        called.append(arguments)
        wait_for_ever()

    monkeypatch.setattr(interrupted, "LONGEST_WAIT", 0.1)
    for method in ("close", "drop_collection"):
        monkeypatch.setattr(f"pymilvus.MilvusClient.{method}", wait)
    yield
    assert called


def test_a_collection(stuck, tmp_path):
    Collection("c", Schema(), Connection(str(tmp_path / "a.db"))).close()


def test_the_store_of_the_command_line(stuck, tmp_path):
    Store(str(tmp_path / "a.db"), "c", "", "").close()


def test_a_copy(stuck, tmp_path):
    with connect(str(tmp_path / "a.db"), "", "", must_exist=False):
        pass


def test_a_collection_that_is_filled_only_for_an_evaluation(stuck, tmp_path):
    def interrupt(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MilvusCollection(str(tmp_path / "a.db"), "c", ["a text"], np.ones((1, 2), np.float32), None, interrupt)


def test_an_error_is_raised():
    with pytest.raises(OSError, match="the disk is full"):
        clean_up(lambda: (_ for _ in ()).throw(OSError("the disk is full")))
