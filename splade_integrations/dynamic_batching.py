"""Dynamic batching: texts that are waiting at the same time are encoded in one call.

This module works with any encoder. It does not need torch, LangChain or LlamaIndex.

How it works: Each encoder has one `QueryBatcher`, which all adapters of that encoder share. (The HTTP server has a
second `QueryBatcher`, for documents.) A batcher has one thread and one queue. A request puts its texts into the queue,
and gives the thread one job: "encode everything in the queue". If the thread is idle, it starts the job at once, or
after a short wait (see below). If the thread is busy, the texts that arrive in the meantime wait, and the next job
encodes them all in one call. The other requests' jobs then find the queue empty, and end. So there is no fixed batch
size. Batches grow with the load, up to `max_texts` texts if this limit is set. (The encoder itself limits the memory
that a large call takes.)

Clients that ask one query after another ask again as soon as they have their answers. If the next job started with the
first of these requests, it would encode a single text, and all other clients would wait for it. So a job that follows a
call for several requests waits until as many texts have arrived, but not longer than a small share of the time of that
call. A request that arrives after that time never waits.
"""

import asyncio
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from threading import Lock
from weakref import WeakSet, WeakValueDictionary

from splade_integrations.encoding.roles import Role
from splade_integrations.encoding.texts import check_texts
from splade_integrations.sparse import SparseTextEncoder, encoded

__all__ = ["QueryBatcher", "query_batcher"]

# The longest time that a job waits for further requests, as a share of the time of the previous call, and in seconds.
# With a model of BERT-base's size on 2 cores, this is long enough for 64 clients to ask again.
_WAIT, _LONGEST_WAIT = 1 / 20, 0.05
_LOOK_AGAIN = 2e-4  # seconds

_Rows = asyncio.Future[list[dict[int, float]]]  # belongs to the caller's event loop
_Request = tuple[list[str], _Rows]
_Answer = tuple[_Rows, list[dict[int, float]] | BaseException]


class QueryBatcher:
    """Encodes queries for any number of coroutines, event loops and threads. Waiting queries are encoded in one call.

    Cancelling a request does not affect other requests. A request that is cancelled before its encoding starts is
    dropped. If a request is cancelled later, its rows are discarded. If a call of the encoder fails, its requests are
    encoded again one by one. So each caller gets its own rows or its own exception. A forked process starts with an
    empty queue and a new thread. Before a process ends, it waits until the thread has encoded all waiting queries.

    Args:
        encoder: The encoder. Its `encode_queries` is called in one thread, with one or more texts.
        role: "query", or "document" to call `encode_documents` instead.
        max_texts: The largest number of texts in one call of the encoder. A request with more texts gets a separate
            call. None means no limit.

    Example:
        >>> from splade_integrations import SpladeEncoder
        >>> queries = QueryBatcher(SpladeEncoder(model_folder))
        >>> async def ask():
        ...     return await asyncio.gather(queries.encode(["Where was Turing born?"]), queries.encode(["a cat"]))
        >>> [len(row) for [row] in asyncio.run(ask())]
        [17, 10]
    """

    def __init__(self, encoder: SparseTextEncoder, *, role: Role = "query", max_texts: int | None = None) -> None:
        self._encoder = encoder
        self._role = role
        self._max_texts = max_texts
        self._start()
        _batchers.add(self)

    async def encode(self, texts: list[str]) -> list[dict[int, float]]:
        """Encode the queries of one caller, together with waiting queries of other callers.

        Args:
            texts: N queries, usually one.
        Returns:
            N dicts {token id: weight} of plain Python numbers, as `to_dicts` returns them.
        Raises:
            TypeError: `texts` is a bare str, or one of its items is not a str. The message names the item's position.
            ValueError: The encoder does not return one row for each text.
        """
        texts = check_texts(texts)
        if not texts:
            return []
        rows: _Rows = asyncio.get_running_loop().create_future()
        self._waiting.append((texts, rows))
        self._thread.submit(self._encode_waiting)
        return await rows

    def _start(self) -> None:
        self._waiting: deque[_Request] = deque()  # append and popleft are atomic, so the queue needs no lock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="splade-queries")  # the first job starts the thread
        # How many texts the next call waits for, and until when.
        self._expected_texts, self._wait_until = 0, 0.0

    def _wait_for_further_requests(self) -> None:
        while time.monotonic() < self._wait_until and 0 < self._waiting_texts() < self._expected_texts:
            time.sleep(_LOOK_AGAIN)

    def _waiting_texts(self) -> int:
        waiting = self._waiting.copy()  # other threads may append to the queue meanwhile
        return sum(len(texts) for texts, rows in waiting if not rows.cancelled())

    def _encode_waiting(self) -> None:
        self._wait_for_further_requests()
        requests: list[_Request] = []
        texts = 0
        for _ in range(len(self._waiting)):  # only this thread removes requests, so there are at least this many
            if requests and self._max_texts is not None and texts + len(self._waiting[0][0]) > self._max_texts:
                break  # each request has submitted a job, so later jobs encode the requests that are left
            request = self._waiting.popleft()
            if not request[1].cancelled():
                requests.append(request)
                texts += len(request[0])
        if requests:
            start = time.monotonic()
            answers = self._answers(requests)
            end = time.monotonic()
            failed = any(isinstance(answer, BaseException) for _, answer in answers)
            self._expected_texts = texts if len(requests) > 1 and not failed else 0
            self._wait_until = end + min(_WAIT * (end - start), _LONGEST_WAIT)
            _deliver(answers)

    def _answers(self, requests: list[_Request]) -> list[_Answer]:
        """Encode the texts of these requests in one call, and return the rows or the exception of each request."""
        try:
            encode = self._encoder.encode_queries if self._role == "query" else self._encoder.encode_documents
            rows = iter(encoded(encode, [text for texts, _ in requests for text in texts]))
        except BaseException as err:
            if len(requests) == 1:
                return [(requests[0][1], err)]
            return [answer for request in requests for answer in self._answers([request])]
        return [(future, list(islice(rows, len(texts)))) for texts, future in requests]


def _deliver(answers: list[_Answer]) -> None:
    """Give the callers their rows or exceptions. Each event loop is woken only once, because waking takes long."""
    of_loops: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
    for answer in answers:
        of_loops.setdefault(answer[0].get_loop(), []).append(answer)
    for loop, some in of_loops.items():
        with suppress(RuntimeError):  # the loop is closed, so nobody waits for these answers
            loop.call_soon_threadsafe(_settle, some)


def _settle(answers: list[_Answer]) -> None:
    for future, answer in answers:
        if future.done():  # it was cancelled while its texts were being encoded
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)


_batchers: WeakSet[QueryBatcher] = WeakSet()
# The keys are the values of id(encoder), because some encoders are not hashable or allow no weak references. A batcher
# keeps its encoder alive, so no other encoder gets the same id. A batcher is freed together with the last adapter that
# holds it.
_batcher_of: WeakValueDictionary[int, QueryBatcher] = WeakValueDictionary()
_finding = Lock()


def query_batcher(encoder: SparseTextEncoder) -> QueryBatcher:
    """Return the batcher of this encoder. All callers get the same batcher, as long as any of them holds it."""
    with _finding:
        batcher = _batcher_of.get(id(encoder))
        if batcher is None:
            batcher = _batcher_of[id(encoder)] = QueryBatcher(encoder)
        return batcher


def _start_again_after_fork() -> None:
    """Replace the threads and locks, which do not survive a fork, and drop the requests of the parent process."""
    global _finding
    _finding = Lock()
    for batcher in list(_batchers):
        batcher._start()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_start_again_after_fork)
