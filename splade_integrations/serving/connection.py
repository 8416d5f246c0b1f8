"""Sends requests to a server. Keeps connections open, sets timeouts, and sends a request again after a failure.

Encoding changes nothing on the server. So a request may be sent again even if the server has already received it.
"""

import asyncio
import os
import random
import time
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from splade_integrations.dependencies import require_extra

with require_extra("remote", module="splade_integrations.RemoteEncoder"):
    import httpx

__all__ = ["Connection"]

# After these HTTP statuses, a request is sent again. 408 means that the body arrived too slowly. 429 means that the
# server is overloaded. Proxies answer with the other statuses while a server restarts.
_AGAIN = {408, 429, 502, 503, 504}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Connection:
    """Connections to one server, for any number of threads, event loops and forked processes.

    Args:
        url: The server's address.
        headers: Headers that every request has, such as a header with a token.
        timeout: The number of seconds that the server may take to answer.
        connect_timeout: The number of seconds that connecting may take.
        retries: How many times a request is sent again if the server is not reached, is overloaded or breaks the
            connection. The pause between attempts begins at 0.1 seconds and doubles each time, up to 5 seconds.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str], timeout: float, connect_timeout: float, retries: int
    ) -> None:
        self._url = url
        self._retries = retries
        self._timeout = timeout
        self._options: dict[str, Any] = {
            "base_url": url,
            "headers": dict(headers),
            "timeout": httpx.Timeout(timeout, connect=connect_timeout),
            # Each thread or coroutine may have its own connection, so none of them has to wait for another.
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=64),
        }
        self._lock = Lock()
        self._process = os.getpid()
        self._client: httpx.Client | None = None
        # An async client works only in the event loop that it was first used in.
        self._async_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    def get(self, path: str) -> httpx.Response:
        """Send a GET request. The errors are those of `post`."""
        return self._send("GET", path, None)

    def post(self, path: str, body: Any) -> httpx.Response:
        """Send a POST request with a JSON body, and return the answer, whatever its status is.

        Raises:
            ConnectionError: At the last attempt, the server was not reached or broke the connection.
            TimeoutError: At the last attempt, the server took too long to answer.
        """
        return self._send("POST", path, body)

    async def apost(self, path: str, body: Any) -> httpx.Response:
        """Do the same as `post`, without blocking the event loop."""
        for pause in self._pauses():
            try:
                response = await self._async_client().request("POST", path, json=body)
            except httpx.TransportError as err:
                if pause is None:
                    raise self._failure(err) from err
                await asyncio.sleep(pause)
                continue
            if response.status_code not in _AGAIN or pause is None:
                return response
            await asyncio.sleep(max(pause, _stated_pause(response)))
        raise AssertionError("the last pause is None")  # pragma: no cover

    def _send(self, method: str, path: str, body: Any) -> httpx.Response:
        for pause in self._pauses():
            try:
                response = self._sync_client().request(method, path, json=body)
            except httpx.TransportError as err:
                if pause is None:
                    raise self._failure(err) from err
                time.sleep(pause)
                continue
            if response.status_code not in _AGAIN or pause is None:
                return response
            time.sleep(max(pause, _stated_pause(response)))
        raise AssertionError("the last pause is None")  # pragma: no cover

    def _pauses(self) -> Iterator[float | None]:
        """Yield the pause in seconds after each attempt, and None after the last attempt."""
        for attempt in range(self._retries):
            # The pause is partly random. So clients that were refused at the same time try again at different times.
            yield min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1)
        yield None

    def _failure(self, err: httpx.TransportError) -> OSError:
        attempts = f"after {self._retries + 1} attempts"
        if isinstance(err, httpx.TimeoutException) and not isinstance(err, httpx.ConnectTimeout):
            return TimeoutError(
                f"{self._url} must answer within {self._timeout:g} seconds, got no answer {attempts}. Send fewer "
                "texts at a time, pass a larger timeout, or use a faster server."
            )
        return ConnectionError(
            f"{self._url} must be the address of a running server, but it could not be reached {attempts} "
            f"({type(err).__name__}: {err}). Check the address, and start the server with: splade serve -m MODEL."
        )

    def _sync_client(self) -> httpx.Client:
        with self._lock_of_this_process():
            if self._client is None:
                self._client = httpx.Client(**self._options)
            return self._client

    def _async_client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        with self._lock_of_this_process():
            client = self._async_clients.get(loop)
            if client is None:
                client = self._async_clients[loop] = httpx.AsyncClient(**self._options)
            return client

    def _lock_of_this_process(self) -> Lock:
        if self._process != os.getpid():  # after a fork, parent and child must not share connections
            self._process = os.getpid()
            self._lock = Lock()
            self._client = None
            self._async_clients = WeakKeyDictionary()
        return self._lock


def _stated_pause(response: httpx.Response) -> float:
    """Return the pause that the header `retry-after` states, in seconds and at most 5. Without it, return 0."""
    stated = response.headers.get("retry-after", "")
    return min(float(stated), _LONGEST_PAUSE) if stated.isdecimal() else 0.0
