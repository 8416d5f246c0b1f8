"""Every layout that the package loads can be served, and the rows arrive exactly as the server computed them."""

import pytest

from splade_integrations import RemoteEncoder, SpladeEncoder
from tests.support.layouts import LAYOUTS
from tests.support.random_checkpoints import save_bge_m3, save_decoder
from tests.support.serving import in_thread

TEXTS = ["Alan Turing broke the Enigma cipher.", "", "naïve café", "word " * 200, "[SEP] [MASK] x", "a"]
OTHER_FAMILIES = {"BGE-M3": save_bge_m3, "decoder": save_decoder}


@pytest.fixture(params=[*LAYOUTS, *OTHER_FAMILIES])
def folder(request, plain, tmp_path):
    """Return the folder of a small random model of each layout."""
    if (save := OTHER_FAMILIES.get(request.param)) is not None:
        save(tmp_path)
    else:
        LAYOUTS[request.param](plain, "bert").save_pretrained(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("method", ["encode_documents", "encode_queries"])
def test_rows_arrive_as_they_were_computed(folder, method, monkeypatch):
    in_process, served = SpladeEncoder(folder, device="cpu"), SpladeEncoder(folder, device="cpu")
    encode, computed = getattr(served, method), []

    def noted(*args, **options):
        computed.append(encode(*args, **options))
        return computed[-1]

    monkeypatch.setattr(served, method, noted)
    with in_thread(served) as url:
        arrived = getattr(RemoteEncoder(url), method)(TEXTS)
    [on_server] = computed  # one request, so one call
    assert arrived.shape == on_server.shape == (len(TEXTS), in_process.dim)
    assert (arrived != on_server).nnz == 0
    assert abs(arrived - getattr(in_process, method)(TEXTS)).max() < 1e-5
