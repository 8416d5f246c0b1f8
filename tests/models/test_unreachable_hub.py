"""If a hub does not answer, there is one clear error, without a minute of retries."""

import pytest
from huggingface_hub import constants

from splade_integrations import SpladeEncoder


def test_a_hub_that_does_not_answer(monkeypatch, tmp_path, caplog):
    closed = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", closed + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(FileNotFoundError, match=r"must be a folder, or a model repository.*the hub does not answer: "):
        SpladeEncoder("nobody/nothing", cache_dir=str(tmp_path))
    assert not [record for record in caplog.records if "Retry" in record.getMessage()]
