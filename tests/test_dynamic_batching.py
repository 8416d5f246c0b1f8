"""Queries from many coroutines, event loops, threads and processes are encoded together."""

import asyncio
import gc
import os
import re
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.sparse import csr_array

from splade_integrations import to_dicts
from splade_integrations.adapter import AdaptedEncoder
from splade_integrations.dynamic_batching import QueryBatcher, query_batcher


class Gate:
    """An encoder whose row for a text such as "7" has one term, 7.

    It records its calls. Each call waits until the event `leave` is set.
    """

    def __init__(self):
        self.calls, self.entered, self.leave = [], threading.Event(), threading.Event()
        self.leave.set()

    def encode_queries(self, texts):
        self.calls.append(texts)
        self.entered.set()
        assert self.leave.wait(20)
        if "bad" in texts:
            raise ValueError("a bad text")
        return csr_array(
            (np.ones(len(texts), np.float32), (range(len(texts)), [int(t) for t in texts])), (len(texts), 999)
        )

    encode_documents = encode_queries


def run(coroutine):
    """Run a coroutine in a new event loop. If it never ends, this fails after 30 seconds instead of hanging."""
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def row(number):
    return {number: 1.0}


@pytest.fixture
def gate():
    return Gate()


async def one(batcher, text):
    [found] = await batcher.encode([text])
    return found


async def behind(gate, batcher, *texts):
    """Return the task of "0", which keeps the encoder busy, and the tasks of `texts`, which wait for the encoder."""
    gate.leave.clear()
    gate.entered.clear()
    first = asyncio.create_task(one(batcher, "0"))
    assert await asyncio.to_thread(gate.entered.wait, 20)
    tasks = [asyncio.create_task(one(batcher, text)) for text in texts]
    await asyncio.sleep(0)
    return first, tasks


def test_clients_that_ask_again_at_once_share_a_call(gate):
    """After a call with many requests, the next call does not start with the first client that asks again."""
    encode = gate.encode_queries

    def slow(texts):
        time.sleep(0.4)
        return encode(texts)

    async def client(batcher, number):
        return [await one(batcher, str(number)) for _ in range(3)]

    async def ask():
        batcher = QueryBatcher(gate)
        return await asyncio.gather(*(client(batcher, number) for number in range(8)))

    gate.encode_queries = slow
    assert run(ask()) == [[row(number)] * 3 for number in range(8)]
    assert len(gate.calls) <= 5  # 1, 7, 8 and 8 requests, instead of 1 and 7 again and again


def test_a_request_does_not_wait_long_for_clients_that_have_gone(gate):
    async def ask():
        batcher = QueryBatcher(gate)
        first, rest = await behind(gate, batcher, "1", "2", "3")
        gate.leave.set()
        await asyncio.gather(first, *rest)
        return [await one(batcher, "4"), await one(batcher, "5")]

    assert run(ask()) == [row(4), row(5)]
    assert gate.calls[2:] == [["4"], ["5"]]


def test_what_waits_while_the_encoder_is_busy_is_encoded_next_in_one_call(gate):
    async def ask():
        first, rest = await behind(gate, QueryBatcher(gate), *map(str, range(1, 64)))
        gate.leave.set()
        return await asyncio.gather(first, *rest)

    assert run(ask()) == [row(number) for number in range(64)]
    assert gate.calls == [["0"], [str(number) for number in range(1, 64)]]


def test_a_lone_query_is_encoded_alone_again_and_again(gate):
    batcher = QueryBatcher(gate)
    for number in range(3):  # three event loops
        assert run(one(batcher, str(number))) == row(number)
    assert gate.calls == [["0"], ["1"], ["2"]]


def test_two_event_loops_share_a_call(gate):
    batcher = QueryBatcher(gate)
    both_wait = threading.Barrier(2)

    async def first_loop():
        first, [second] = await behind(gate, batcher, "1")
        await asyncio.to_thread(both_wait.wait, 20)
        return await asyncio.gather(first, second)

    async def second_loop():
        task = asyncio.create_task(one(batcher, "2"))
        await asyncio.sleep(0)
        await asyncio.to_thread(both_wait.wait, 20)
        gate.leave.set()
        return await task

    async def second_loop_when_busy():
        assert await asyncio.to_thread(gate.entered.wait, 20)
        return await second_loop()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(run, first_loop()), pool.submit(run, second_loop_when_busy())
        assert (first.result(30), second.result(30)) == ([row(0), row(1)], row(2))
    assert [sorted(call) for call in gate.calls] == [["0"], ["1", "2"]]


def test_cancelling_a_request_harms_no_other(gate):
    async def ask():
        batcher = QueryBatcher(gate)
        first, (second, third) = await behind(gate, batcher, "1", "2")
        first.cancel()  # the encoder is working on it
        second.cancel()  # it is still waiting for the encoder
        await asyncio.sleep(0)
        gate.leave.set()
        assert await third == row(2)
        assert first.cancelled()
        assert second.cancelled()
        return await one(batcher, "3")

    assert run(ask()) == row(3)
    assert gate.calls == [["0"], ["2"], ["3"]]  # "1" was cancelled in time, so it was not encoded


def test_a_loop_that_ends_in_the_middle_harms_no_other(gate):
    batcher = QueryBatcher(gate)

    async def leave_early():
        await behind(gate, batcher, "1", "2")

    run(leave_early())
    gate.leave.set()
    assert run(one(batcher, "3")) == row(3)


def test_a_bad_text_fails_its_own_caller_alone(gate):
    async def ask():
        first, rest = await behind(gate, QueryBatcher(gate), "1", "bad", "2")
        gate.leave.set()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    zero, one, error, two = run(ask())
    assert (zero, one, two) == (row(0), row(1), row(2))
    assert isinstance(error, ValueError)
    assert gate.calls[2:] == [["1"], ["bad"], ["2"]]
    with pytest.raises(TypeError, match=r"texts\[0\] must be a str, got NoneType"):
        run(QueryBatcher(gate).encode([None]))


def test_lists_of_queries_keep_their_order_and_join_others(gate):
    async def ask():
        batcher = QueryBatcher(gate)
        first, [lone] = await behind(gate, batcher, "9")
        some = asyncio.create_task(batcher.encode(["3", "1", "3"]))
        await asyncio.sleep(0)
        gate.leave.set()
        assert await batcher.encode([]) == []
        return await asyncio.gather(first, lone, some)

    assert run(ask()) == [row(0), row(9), [row(3), row(1), row(3)]]
    assert gate.calls == [["0"], ["9", "3", "1", "3"]]
    gate.calls.clear()
    run(QueryBatcher(gate).encode([str(number) for number in range(9)]))
    assert len(gate.calls) == 1


def test_all_adapters_over_an_encoder_share_a_batcher_which_goes_with_them():
    class Unhashable(Gate):
        __hash__ = None

    encoder = Unhashable()
    others = set(threading.enumerate())
    batcher = query_batcher(encoder)
    assert query_batcher(encoder) is batcher
    assert query_batcher(Gate()) is not batcher
    run(one(batcher, "1"))
    [thread] = set(threading.enumerate()) - others
    gone = weakref.ref(encoder)
    del batcher, encoder
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()
    assert gone() is None


def test_real_queries_are_the_encoders_own(encoder, texts):
    batcher = query_batcher(encoder)
    texts = [text for text in texts if len(text) < 500][:40]

    async def ask():
        return await asyncio.gather(*(one(batcher, text) for text in texts))

    for found, alone in zip(run(ask()), to_dicts(encoder.encode_queries(texts)), strict=True):
        assert found == pytest.approx(alone, abs=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_call_in_a_forked_process_answers(random_bert_folder):
    script = f"""
import asyncio, os, sys
from splade_integrations import SpladeEncoder
from splade_integrations.adapter import AdaptedEncoder
from splade_integrations.dynamic_batching import query_batcher
batcher = query_batcher(SpladeEncoder({random_bert_folder!r}, device="cpu"))  # CUDA does not survive a fork
async def ask(*texts):
    return await asyncio.gather(*(batcher.encode([text]) for text in texts))
before = asyncio.run(ask("abc"))
async def fork_while_busy():
    busy = [asyncio.create_task(batcher.encode(["x" * 100])) for _ in range(8)]
    await asyncio.sleep(0)
    child = os.fork()
    if child == 0:
        return None, None
    await asyncio.gather(*busy)
    return child, await batcher.encode(["abc"])
loop = asyncio.new_event_loop()
child, after = loop.run_until_complete(fork_while_busy())
if child is None:
    os._exit(0 if asyncio.run(ask("abc", "abc")) == before * 2 else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), [after] == before)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.stdout == "0 True\n", result.stderr


def test_the_end_of_the_process_is_not_held_up():
    script = """
import asyncio, threading, time
from scipy.sparse import csr_array
from splade_integrations.adapter import AdaptedEncoder
from splade_integrations.dynamic_batching import QueryBatcher
class Slow:
    def encode_queries(self, texts):
        time.sleep(0.3)
        print(len(texts), flush=True)
        return csr_array((len(texts), 9))
batcher = QueryBatcher(Slow())
async def leave_early():
    for _ in range(50):
        asyncio.create_task(batcher.encode(["a"]))
        await asyncio.sleep(0.001)
asyncio.run(leave_early())
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "1\n"  # only the running call ends: waiting requests were cancelled with their loop


class Wrong:
    """An encoder that raises StopIteration for "stop", and returns too few rows for "few"."""

    def encode_queries(self, texts):
        if "stop" in texts:
            next(iter(()))
        return csr_array((len(texts) - ("few" in texts), 5), dtype=np.float32)

    encode_documents = encode_queries


@pytest.mark.parametrize("dynamic_batching", [True, False])
@pytest.mark.parametrize(("text", "error", "message"), [
    ("stop", RuntimeError, "other than StopIteration.*Wrong.encode_queries"),
    ("few", ValueError, "got 0 rows for 1 texts.*Wrong.encode_queries"),
])  # fmt: skip
def test_a_wrong_encoder_gives_each_caller_a_clear_error(dynamic_batching, text, error, message):
    adapted = AdaptedEncoder(Wrong(), dynamic_batching=dynamic_batching)

    async def ask():
        asked = [adapted.aencode_queries([text]) for text in ("a", text, "b")]
        documents = adapted.aencode_documents([text])
        return await asyncio.gather(*asked, documents, return_exceptions=True)

    first, wrong, last, documents = run(ask())
    assert (first, last) == ([{}], [{}])
    for err in (wrong, documents):
        assert isinstance(err, error)
        assert re.search(message, str(err))
    with pytest.raises(error, match=message):
        adapted.encode_queries([text])
