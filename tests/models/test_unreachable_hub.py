"""If a hub does not answer, models in the cache load, and other models end in one clear error, without retries."""

import time
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from splade_integrations import SpladeEncoder, to_dicts
from splade_integrations.models import repository as repository_module
from splade_integrations.models.repository import Repository
from tests.support.hub import hub_at, model_hub

NAME = "nobody/small"
CLOSED = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """Forget that a hub has answered, as a new process does."""
    monkeypatch.setattr(repository_module, "_answered", [])


def retries(caplog):
    return [record for record in caplog.records if "Retry" in record.getMessage()]


def test_a_hub_that_does_not_answer(monkeypatch, tmp_path, caplog):
    hub_at(CLOSED, monkeypatch)
    with pytest.raises(FileNotFoundError, match=r"must be a folder, or a model repository.*the hub does not answer: "):
        SpladeEncoder("nobody/nothing", cache_dir=str(tmp_path))
    assert not retries(caplog)


def test_a_model_that_was_loaded_before(monkeypatch, tmp_path, caplog, random_bert_folder):
    with model_hub(NAME, Path(random_bert_folder)) as address:
        hub_at(address, monkeypatch)
        rows = SpladeEncoder(NAME, cache_dir=str(tmp_path)).encode_documents(["a cat"])
    hub_at(CLOSED, monkeypatch)
    monkeypatch.setattr(repository_module, "_answered", [])
    again = SpladeEncoder(NAME, cache_dir=str(tmp_path))
    assert to_dicts(again.encode_documents(["a cat"])) == to_dicts(rows)
    assert not retries(caplog)


def test_a_model_that_was_downloaded_whole(monkeypatch, tmp_path, caplog, random_bert_folder):
    """Such a cache does not say which files the repository lacks. Some of these files decide the weights."""
    with model_hub(NAME, Path(random_bert_folder)) as address:
        hub_at(address, monkeypatch)
        snapshot_download(NAME, cache_dir=tmp_path)
    hub_at(CLOSED, monkeypatch)
    with pytest.raises(FileNotFoundError, match=r"whether the model has \S+\. .*pass local_files_only=True or set HF_"):
        SpladeEncoder(NAME, cache_dir=str(tmp_path))
    found = SpladeEncoder(NAME, cache_dir=str(tmp_path), local_files_only=True).encode_documents(["a cat"])
    assert to_dicts(found) == to_dicts(SpladeEncoder(random_bert_folder).encode_documents(["a cat"]))
    assert not retries(caplog)


def test_a_hub_that_goes_away_hides_no_file(monkeypatch, tmp_path, random_bert_folder):
    repository = Repository(NAME, {"cache_dir": str(tmp_path)})
    with model_hub(NAME, Path(random_bert_folder)) as address:
        hub_at(address, monkeypatch)
        assert repository.path("config.json") is not None
        assert repository.path("modules.json") is None
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # huggingface_hub waits between five retries
    with pytest.raises(FileNotFoundError, match=r"does not say whether the model has router_config\.json"):
        repository.path("router_config.json")
    assert repository.path("modules.json") is None  # this is still known
    assert repository.path("config.json") is not None
