"""`RemoteEncoder` returns the server's rows, can replace encoders, and recognises Text Embeddings Inference (TEI)."""

import asyncio
import copy
import os
import pickle
import socket

import orjson
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from typer.testing import CliRunner

from splade_integrations import RemoteEncoder, to_dicts
from splade_integrations.cli.app import app as cli
from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
from splade_integrations.serving.application import make_app
from splade_integrations.serving.requests import Limits
from tests.support.adapters import HashEmbeddings
from tests.support.serving import in_thread

TEXTS = [
    "Alan Turing broke the Enigma cipher.",
    "",
    "naïve \ud800 café",
    "word " * 400,
    "Grace Hopper made a compiler.",
]


@pytest.fixture(scope="module")
def url(encoder):
    with in_thread(encoder, Limits(max_client_batch_size=3)) as address:
        yield address


@pytest.fixture(scope="module")
def remote(url):
    return RemoteEncoder(url)


def equal(left, right):
    return left.shape == right.shape and abs(left - right).max() < 1e-5


@pytest.mark.parametrize("name", ["encode_documents", "encode_queries"])
def test_it_gives_the_rows_of_the_server(remote, encoder, name, caplog):
    texts = TEXTS * 3
    ours, theirs = getattr(remote, name), getattr(encoder, name)
    assert equal(ours(texts), theirs(texts))
    assert "3 of 15 texts are longer than max_length=256 tokens and were truncated by http" in caplog.text
    for _ in range(2):  # two event loops
        assert equal(asyncio.run(getattr(remote, f"a{name}")(texts)), theirs(texts))
    assert ours([]).shape == (0, encoder.dim)
    assert ours(["a"]).indices.dtype == encoder.encode_queries(["a"]).indices.dtype
    with pytest.raises(TypeError, match=r"texts\[1\] must be a str, got int"):
        ours(["a", 1])
    counted = []
    ours(texts, show_progress=counted.append)
    assert sum(counted) == len(texts)


def test_it_streams_and_tells_what_it_is(remote, encoder):
    blocks = list(remote.stream_documents(iter(TEXTS), block_rows=2))
    assert [block.shape[0] for block in blocks] == [2, 2, 1]
    assert equal(blocks[0], encoder.encode_documents(TEXTS[:2]))
    assert (remote.dim, remote.max_length, remote.fingerprint) == (encoder.dim, 256, encoder.fingerprint)
    assert encoder.model_name in repr(remote)


def test_it_survives_pickling_copying_and_forks(remote, encoder):
    other = pickle.loads(pickle.dumps(remote))
    assert equal(other.encode_queries(["a cat"]), encoder.encode_queries(["a cat"]))
    assert copy.deepcopy(remote) is remote
    asked = to_dicts(remote.encode_queries(["a cat"]))  # the parent has an open connection
    child = os.fork()
    if child == 0:
        os._exit(0 if to_dicts(remote.encode_queries(["a cat"])) == asked else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert to_dicts(remote.encode_queries(["a cat"])) == asked


async def test_adapters_await_it(remote, encoder):
    embedding = SpladeSparseEmbedding(encoder=remote)
    found = await asyncio.gather(*(embedding.aembed_query(f"cat {number}") for number in range(9)))
    alone = SpladeSparseEmbedding(encoder=encoder)
    for number, row in enumerate(found):
        assert row == pytest.approx(alone.embed_query(f"cat {number}"), abs=1e-5)
    assert await embedding.aembed_documents(["a cat"]) == embedding.embed_documents(["a cat"])


def test_a_collection_refuses_a_server_of_another_encoder(remote, encoder, random_encoder, tmp_path):
    uri = f"{tmp_path}/remote.db"
    store = hybrid_milvus(HashEmbeddings(), SpladeSparseEmbedding(encoder=remote), uri=uri)
    store.add_texts(TEXTS[::4], ids=["turing", "hopper"])
    [found] = store.similarity_search("Who cracked Enigma?", k=1, mode="sparse")
    assert found.id == "turing"
    hybrid_milvus(HashEmbeddings(), SpladeSparseEmbedding(encoder=encoder), client=store.client)  # the same encoder
    with in_thread(random_encoder) as other:
        embedding = SpladeSparseEmbedding(encoder=RemoteEncoder(other))
        with pytest.raises(ValueError, match="must be used with the encoder that it was made with"):
            hybrid_milvus(HashEmbeddings(), embedding, client=store.client).similarity_search("a")


def test_a_server_that_changes_its_encoder_is_refused(encoder, random_encoder):
    apps = [make_app(encoder), make_app(random_encoder)]

    async def changing(scope, receive, send):
        await apps[0](scope, receive, send)

    with in_thread(changing) as url:
        remote = RemoteEncoder(url)
        remote.encode_queries(["a"])
        apps.pop(0)
        with pytest.raises(ValueError, match="must keep serving the encoder of its first answer"):
            remote.encode_queries(["a"])


def test_commands_take_the_address(url, encoder, tmp_path):
    (tmp_path / "texts.txt").write_text("a cat\nAlan Turing\n")
    arguments = ["encode", str(tmp_path / "texts.txt"), "-m", url, "-o", str(tmp_path / "rows.jsonl")]
    arguments += ["--input-format", "lines"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    rows = [orjson.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for more, message in ((["--max-length", "7"], "max_length must be"), (["--dtype", "bfloat16"], "dtype must be")):
        with pytest.raises(ValueError, match=f"{message} given to the server"):
            CliRunner().invoke(cli, [*arguments, *more], catch_exceptions=False)
    with pytest.raises(ValueError, match="must be a folder or a name on the hub for this"):
        CliRunner().invoke(cli, ["explain", "a", "b", "-m", url], catch_exceptions=False)


class Tei:
    """A server with the schemas of TEI 1.7.1 around a random encoder. It refuses what TEI refuses."""

    def __init__(self, encoder, pooling="splade"):
        self._encoder, self._pooling, self.asked = encoder, pooling, []
        self.app = Starlette(
            routes=[Route("/info", self.info), Route("/embed_sparse", self.embed_sparse, methods=["POST"])]
        )

    async def info(self, request):
        return JSONResponse({
            "model_id": "org/x", "model_dtype": "float16", "model_type": {"embedding": {"pooling": self._pooling}},
            "max_concurrent_requests": 512, "max_input_length": 256, "max_batch_tokens": 16384, "auto_truncate": False,
            "max_client_batch_size": 2, "tokenization_workers": 4, "version": "1.7.1",
        })  # fmt: skip

    async def embed_sparse(self, request):
        body = await request.json()
        self.asked.append(body)
        texts = body["inputs"]
        if not all(texts) or len(texts) > 2:
            return JSONResponse({"error": "`inputs` cannot be empty", "error_type": "Empty"}, 400)
        rows = to_dicts(self._encoder.encode_documents(texts))
        return JSONResponse([[{"index": i, "value": v} for i, v in reversed(row.items())] for row in rows])


def test_servers_of_tei(random_encoder):
    tei = Tei(random_encoder)
    texts = ["a cat", "", "b", "c d", "e"]
    with in_thread(tei.app) as url:
        with pytest.raises(ValueError, match="dim must be given"):
            RemoteEncoder(url)
        remote = RemoteEncoder(url, dim=random_encoder.dim, query_prompt_name="query")
        assert remote.fingerprint is None
        rows = remote.encode_documents(texts)
        expected = random_encoder.encode_documents(texts).toarray()
        expected[1] = 0  # TEI does not accept an empty text
        assert abs(rows.toarray() - expected).max() < 1e-5
        assert rows.has_sorted_indices
        assert equal(asyncio.run(remote.aencode_documents(texts)), rows)
        assert all("prompt_name" not in body for body in tei.asked)
        remote.encode_queries(["a"])
        assert tei.asked[-1] == {"inputs": ["a"], "truncate": True, "prompt_name": "query"}
        with pytest.raises(ValueError, match="rows of term ids from 0 to 9"):
            RemoteEncoder(url, dim=10).encode_documents(["a cat"])
    with in_thread(Tei(random_encoder, pooling="cls").app) as url, pytest.raises(ValueError, match="SPLADE pooling"):
        RemoteEncoder(url, dim=9)


def test_what_the_user_states_must_fit(url):
    with pytest.raises(ValueError, match="dim must be 30522"):
        RemoteEncoder(url, dim=9)
    with pytest.raises(ValueError, match="must be left out"):
        RemoteEncoder(url, query_prompt_name="query")
    with pytest.raises(ValueError, match="url must begin with http"):
        RemoteEncoder("localhost:8080")
    with pytest.raises(ValueError, match="retries must be an int"):
        RemoteEncoder(url, retries=-1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TimeoutError, match=r"must answer within 0.1 seconds, got no answer after 2 attempts"):
            RemoteEncoder(address, timeout=0.1, retries=1)
    with pytest.raises(
        ConnectionError, match="must be the address of a running server, but it could not be reached after 1 attempts"
    ):
        RemoteEncoder(address, retries=0)
