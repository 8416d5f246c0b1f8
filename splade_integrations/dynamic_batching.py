"""Dynamic batching: queries that wait at the same time are encoded together, in one call.

Knows an encoder and futures; knows neither a framework nor torch.

How it works. Each encoder has one `QueryBatcher`, which all adapters over it share. A batcher has one thread and one
queue. A request puts its texts into the queue and gives the thread one job: "encode whatever waits". If the thread is
idle, a lone query starts at once. If it is busy, the texts that arrive meanwhile wait, and the next job takes them all
in one call. The jobs of the texts that it took find nothing and end. So there is neither a timer nor a batch size:
batches grow with the load. (The encoder bounds the memory of a call.)
"""

import asyncio
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Lock
from weakref import WeakSet, WeakValueDictionary

from splade_integrations.encoding.tokenizer import check_texts
from splade_integrations.sparse import SparseTextEncoder, to_dicts

__all__ = ["QueryBatcher", "query_batcher"]

_Rows = Future[list[dict[int, float]]]
_Request = tuple[list[str], _Rows]


class QueryBatcher:
    """Encodes queries for any number of coroutines, event loops and threads; what waits is encoded in one call.

    Cancelling a request leaves the others alone: if it has not started it is dropped, otherwise its rows are discarded.
    If a call fails, each caller's texts are encoded again on their own, so that each caller gets its own rows or its
    own exception. A forked process starts with an empty queue and a thread of its own. When the process ends, the
    thread finishes its current call and whatever waits then, and is joined.

    Args:
        encoder: Its `encode_queries` is called in one thread, with one or more texts.

    Example:
        >>> from splade_integrations import SpladeEncoder
        >>> queries = QueryBatcher(SpladeEncoder(model_folder))
        >>> async def ask():
        ...     return await asyncio.gather(queries.encode(["Where was Turing born?"]), queries.encode(["a cat"]))
        >>> [len(row) for [row] in asyncio.run(ask())]
        [17, 10]
    """

    def __init__(self, encoder: SparseTextEncoder) -> None:
        self._encoder = encoder
        self._start()
        _batchers.add(self)

    async def encode(self, texts: list[str]) -> list[dict[int, float]]:
        """Encode the queries of one caller, together with those of others.

        Args:
            texts: N queries, usually one.
        Returns:
            N dicts of {token id: weight}, plain Python numbers, as `to_dicts` gives them.
        Raises:
            TypeError: A bare str, or an item that is not a str (its position is named).
        """
        texts = check_texts(texts)
        if not texts:
            return []
        rows: _Rows = Future()
        self._waiting.append((texts, rows))
        self._thread.submit(self._encode_waiting)
        return await asyncio.wrap_future(rows)

    def _start(self) -> None:
        self._waiting: deque[_Request] = deque()  # append and popleft are atomic: no lock to survive a fork
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="splade-queries")  # started by the first job

    def _encode_waiting(self) -> None:
        requests = [self._waiting.popleft() for _ in range(len(self._waiting))]  # only this thread removes any
        requests = [request for request in requests if request[1].set_running_or_notify_cancel()]
        if requests:
            self._answer(requests)

    def _answer(self, requests: list[_Request]) -> None:
        """Encode these in one call and give each caller its rows or its exception."""
        try:
            rows = iter(to_dicts(self._encoder.encode_queries([text for texts, _ in requests for text in texts])))
        except BaseException as err:
            if len(requests) == 1:
                requests[0][1].set_exception(err)
            else:
                for request in requests:
                    self._answer([request])
            return
        for texts, future in requests:
            future.set_result(list(islice(rows, len(texts))))


_batchers: WeakSet[QueryBatcher] = WeakSet()
# Keyed by the encoder's id, because an encoder need be neither hashable nor weakly referable. The id stays unique while
# the batcher holds the encoder. A batcher is freed with the last adapter that holds it.
_batcher_of: WeakValueDictionary[int, QueryBatcher] = WeakValueDictionary()
_finding = Lock()


def query_batcher(encoder: SparseTextEncoder) -> QueryBatcher:
    """Return the batcher of this encoder: the same one for every caller, while any of them holds it."""
    with _finding:
        batcher = _batcher_of.get(id(encoder))
        if batcher is None:
            batcher = _batcher_of[id(encoder)] = QueryBatcher(encoder)
        return batcher


def _start_again_after_fork() -> None:
    """Replace threads and locks, which do not survive a fork, and drop the requests, which are the parent's."""
    global _finding
    _finding = Lock()
    for batcher in list(_batchers):
        batcher._start()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_start_again_after_fork)
