"""The server keeps to the schema of Text Embeddings Inference, and refuses bad requests without harm to others."""

import asyncio
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from scipy.sparse import csr_array

from splade_integrations import RemoteEncoder, SpladeEncoder, to_dicts
from splade_integrations.models.fingerprint import Fingerprint
from splade_integrations.serving.requests import BodyReader, Limits, Refusal, parse
from tests.support.serving import in_thread, raw_request, start_process

TEXTS = ["Who cracked Enigma?", "", "naïve café", "Alan Turing broke the Enigma cipher."]


@pytest.fixture(scope="module")
def url(encoder):
    with in_thread(encoder) as address:
        yield address


class Asked:
    """A client written from the schemas EmbedSparseRequest, EmbedSparseResponse and ErrorResponse of TEI 1.7.1."""

    def __init__(self, url):
        self._url = url

    def embed_sparse(self, inputs, **options):
        response = httpx.post(f"{self._url}/embed_sparse", json={"inputs": inputs, **options}, timeout=60)
        answer = response.json()
        if response.status_code != 200:
            assert answer.keys() == {"error", "error_type"}
            types = {
                "Unhealthy": 503,
                "Backend": 424,
                "Overloaded": 429,
                "Validation": 413,
                "Tokenizer": 422,
                "Empty": 400,
            }
            assert answer["error_type"] in types
            return response.status_code, answer["error_type"], answer["error"]
        for row in answer:
            assert all(value.keys() == {"index", "value"} and isinstance(value["index"], int) for value in row)
        return [{value["index"]: value["value"] for value in row} for row in answer]


# The required fields of the schema Info in TEI's OpenAPI document 1.9.3, and their types. A client that is generated
# from this document refuses an answer that lacks one of them.
REQUIRED_FACTS = {
    **dict.fromkeys(["model_id", "model_dtype", "served_model_name", "version"], str),
    **dict.fromkeys(["max_concurrent_requests", "max_input_length", "max_batch_tokens"], int),
    **dict.fromkeys(["max_client_batch_size", "tokenization_workers"], int),
    "model_type": dict,
    "auto_truncate": bool,
}


def same_rows(answer, expected):
    """Compare rows within 1e-5, because how a processor adds up a product depends on the other texts of its batch."""
    expected = to_dicts(expected)
    assert [row.keys() for row in answer] == [row.keys() for row in expected]
    for row, other in zip(answer, expected, strict=True):
        assert row == pytest.approx(other, abs=1e-5)


def test_a_client_of_tei_gets_the_encoders_rows(url, encoder):
    client = Asked(url)
    documents, queries = encoder.encode_documents(TEXTS), encoder.encode_queries(TEXTS)
    same_rows(client.embed_sparse(TEXTS), documents)
    same_rows(client.embed_sparse(TEXTS, prompt_name=None, truncate=None, truncation_direction="Right"), documents)
    same_rows(client.embed_sparse(TEXTS[0], prompt_name="document"), documents[[0]])
    same_rows(client.embed_sparse(TEXTS, prompt_name="query"), queries)
    long = "word " * 1000
    same_rows(client.embed_sparse(long, truncate=True), encoder.encode_documents([long]))
    info = httpx.get(f"{url}/info").json()
    assert {name: type(info[name]) for name in REQUIRED_FACTS} == REQUIRED_FACTS
    assert info["model_type"] == {"embedding": {"pooling": "splade"}}
    assert (info["max_input_length"], info["max_client_batch_size"], info["auto_truncate"]) == (256, 32, False)
    assert set(info["prompts"]) == {"query", "document"}
    assert Fingerprint.from_json(json.dumps(info["fingerprint"])) == encoder.fingerprint
    assert httpx.get(f"{url}/health").status_code == 200
    metrics = httpx.get(f"{url}/metrics").text
    assert "te_request_success_total 5.0" in metrics
    assert "te_queue_size 0.0" in metrics
    answer = httpx.post(f"{url}/embed_sparse", json={"inputs": "a"})
    assert Fingerprint.from_json(answer.headers["x-splade-fingerprint"]) == encoder.fingerprint


@pytest.mark.parametrize(
    ("inputs", "options", "status", "kind", "message"),
    [
        ("word " * 1000, {}, 413, "Validation", "inputs must have at most 256 tokens, got 1002."),
        (["a", "word " * 1000], {}, 413, "Validation", r"inputs\[1\] must have at most 256 tokens"),
        (["é " * 300], {}, 413, "Validation", "inputs must have at most 256 tokens"),
        (["a"] * 33, {}, 413, "Validation", "inputs must have at most 32 texts, got 33. Send several requests."),
        ([], {}, 400, "Empty", "at least one text"),
        (["a", 1], {}, 422, "Validation", r"inputs\[1\] must be a text, got a number"),
        ([[1, 2]], {}, 422, "Validation", "takes no token ids"),
        (None, {}, 422, "Validation", "inputs must be a text or a list of texts, got null"),
        ("a", {"prompt_name": "passage"}, 413, "Validation", "must be query or document, got 'passage'"),
        ("a", {"prompt_name": 1}, 413, "Validation", "must be query or document, got a number"),
        ("a", {"truncate": "yes"}, 422, "Validation", "truncate must be true or false, got a string"),
        ("a", {"truncation_direction": "Left"}, 422, "Validation", "cuts only at the end"),
        ("a", {"truncation_direction": 0}, 422, "Validation", "cuts only at the end"),
        ("a", {"truncation_direction": ""}, 422, "Validation", "cuts only at the end"),
        ("a", {"normalize": True}, 422, "Validation", "got 'normalize'. Leave this key out."),
    ],
)
def test_what_is_refused(url, inputs, options, status, kind, message):
    import re

    found = Asked(url).embed_sparse(inputs, **options)
    assert found[:2] == (status, kind)
    assert re.search(message, found[2])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"inputs": "\xff"}', 400),
        (b"[" * 50_000, 400),
        (b"[]", 422),
        (b"{}", 422),
        (b"3", 422),
    ],
)
def test_damaged_bodies(url, body, status):
    response = httpx.post(f"{url}/embed_sparse", content=body)
    assert response.status_code == status
    assert response.json()["error_type"] == "Validation"


def test_unknown_routes(url):
    assert httpx.get(f"{url}/embed_sparse").status_code == 405
    response = httpx.post(f"{url}/embed", json={"inputs": "a"})
    assert response.status_code == 404
    assert "/embed_sparse (POST), /info, /health and /metrics" in response.json()["error"]


def test_large_and_slow_bodies_are_refused_while_others_are_answered(encoder):
    head = b"POST /embed_sparse HTTP/1.1\r\nhost: x\r\n"
    part = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with in_thread(encoder, Limits(max_body_bytes=100_000, body_seconds=3)) as url:
        large = raw_request(url, head + b"content-length: 100000000\r\n\r\n")
        endless = raw_request(url, head + b"transfer-encoding: chunked\r\n\r\n", part, part)
        slow = raw_request(url, head + b"content-length: 20\r\n\r\n", b'{"inp')
        vanishing = raw_request(url, head + b"content-length: 20\r\n\r\n", b'{"inp')
        vanishing.close()
        same_rows(Asked(url).embed_sparse("a cat"), encoder.encode_documents(["a cat"]))
        for connection, status in ((large, b"413"), (endless, b"413"), (slow, b"408")):
            assert connection.recv(1000).split(b" ")[1] == status
            connection.close()


def test_all_bodies_together_are_limited():
    async def ask():
        reader, release = BodyReader(Limits(max_bytes_being_read=100)), asyncio.Event()

        async def slow():
            yield b"x" * 60
            await release.wait()

        first = asyncio.create_task(reader.read(slow(), None))
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="reading too many bodies") as refused:
            await reader.read(slow(), None)
        assert refused.value.status == 429
        release.set()
        assert await first == b"x" * 60
        assert await reader.read(slow(), None) == b"x" * 60  # a body no longer counts once it has been read

    asyncio.run(asyncio.wait_for(ask(), 30))


def test_parse_keeps_every_text():
    asked = parse(json.dumps({"inputs": TEXTS, "truncate": True}).encode(), Limits())
    assert (asked.texts, asked.role, asked.truncate) == (TEXTS, "document", True)


class Gate:
    """An encoder that waits until `leave` is set. It stands between the server and a real encoder."""

    def __init__(self, encoder):
        self._encoder, self.entered, self.leave, self.calls = encoder, threading.Event(), threading.Event(), []

    def __getattr__(self, name):
        return getattr(self._encoder, name)

    def encode_documents(self, texts):
        self.calls.append(list(texts))
        self.entered.set()
        assert self.leave.wait(30)
        if "fails" in texts:
            raise RuntimeError("secret path")
        return self._encoder.encode_documents(texts)


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def waiting(url):
    [line] = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith("te_queue_size ")]
    return float(line.split()[1])


def test_overload_and_vanishing_clients(encoder):
    gate = Gate(encoder)
    texts = [f"text number {number}" for number in range(4)]
    with in_thread(gate, Limits(max_concurrent_requests=4)) as url, ThreadPoolExecutor(8) as pool:
        client = Asked(url)
        first = pool.submit(client.embed_sparse, texts[0])
        assert gate.entered.wait(20)
        body = b'{"inputs": "gone"}'
        head = b"POST /embed_sparse HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        vanishing = raw_request(url, head, body)
        until(lambda: waiting(url) == 2)
        vanishing.close()  # its text waits, and must not be encoded
        until(lambda: waiting(url) == 1)
        others = [pool.submit(client.embed_sparse, text) for text in texts[1:]]
        until(lambda: waiting(url) == 4)
        response = httpx.post(f"{url}/embed_sparse", json={"inputs": "one too many"})
        assert (response.status_code, response.json()["error_type"]) == (429, "Overloaded")
        assert response.headers["retry-after"] == "1"
        retried = pool.submit(RemoteEncoder(url).encode_documents, ["comes again"])
        gate.leave.set()
        rows = to_dicts(encoder.encode_documents(texts))
        for future, row in zip([first, *others], rows, strict=True):
            [found] = future.result(30)
            assert found == pytest.approx(row, abs=1e-5)
        assert retried.result(30).nnz > 0
        assert waiting(url) == 0
    assert sorted(text for call in gate.calls[1:] for text in call) == sorted([*texts[1:], "comes again"])


def test_a_failing_text_harms_no_other(encoder, caplog):
    gate = Gate(encoder)
    with in_thread(gate) as url, ThreadPoolExecutor(3) as pool:
        first = pool.submit(Asked(url).embed_sparse, "a")
        assert gate.entered.wait(20)
        bad, good = (pool.submit(Asked(url).embed_sparse, text) for text in ("fails", "a cat"))
        until(lambda: waiting(url) == 3)
        gate.leave.set()
        assert bad.result(30) == (424, "Backend", "The encoder failed: RuntimeError. The server's log says more.")
        same_rows(good.result(30), encoder.encode_documents(["a cat"]))
        same_rows(first.result(30), encoder.encode_documents(["a"]))


def test_a_call_takes_at_most_max_batch_texts(encoder):
    gate = Gate(encoder)
    with in_thread(gate, Limits(max_batch_texts=3)) as url, ThreadPoolExecutor(6) as pool:
        first = pool.submit(Asked(url).embed_sparse, ["0"] * 5)  # a request is never divided
        assert gate.entered.wait(20)
        rest = [pool.submit(Asked(url).embed_sparse, ["1", "2"]) for _ in range(3)]
        until(lambda: waiting(url) == 4)
        gate.leave.set()
        assert [len(future.result(30)) for future in (first, *rest)] == [5, 2, 2, 2]
    assert [len(call) for call in gate.calls] == [5, 2, 2, 2]


def test_weights_are_read_as_they_were_written():
    """Every float32 number survives JSON, even if it lies between two decimal numbers of nine digits."""
    from splade_integrations.serving.answers import read_rows
    from splade_integrations.serving.application import rows_as_json

    bits = np.random.default_rng(5).integers(1, 0x7F800000, 20_000, dtype=np.uint32)
    matrix = csr_array(bits.view(np.float32).reshape(40, 500))
    back = read_rows("url", rows_as_json(to_dicts(matrix)), 40, 500)
    assert (back.data.view(np.uint32) == matrix.data.view(np.uint32)).all()
    assert (back.indices == matrix.indices).all()


def test_kill_and_restart_under_load(random_bert_folder):
    """While a server is killed and started again, callers wait for their rows. SIGTERM ends it without an error."""
    texts = [f"text {number}" for number in range(30)]
    process, url = start_process(random_bert_folder)
    remote = RemoteEncoder(url, retries=30)
    alone = dict(zip(texts, to_dicts(remote.encode_queries(texts)), strict=True))

    def ask(worker):
        for text in texts[worker::3]:
            assert to_dicts(remote.encode_queries([text])) == [pytest.approx(alone[text], abs=1e-5)]

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, worker) for worker in range(3)]
        process.kill()
        process.wait(20)
        process.stderr.close()
        process, _ = start_process(random_bert_folder, port=int(url.rpartition(":")[2]))
        for future in asked:
            future.result(120)
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    assert process.stderr.read() == ""
    process.stderr.close()
    assert isinstance(remote.fingerprint, Fingerprint)
    assert SpladeEncoder(random_bert_folder).fingerprint == remote.fingerprint
