"""Connections to Milvus servers and to milvus-lite files.

A connection holds the clients, the locks and the engine. The engine is the kind of Milvus: milvus-lite 2, milvus-lite 3
or a Milvus server.

This module needs pymilvus, but not LangChain, LlamaIndex or an encoder.
"""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.async_clients import AsyncClients
from splade_integrations.milvus.defaults import READ_TIMEOUT
from splade_integrations.milvus.filters import Engine
from splade_integrations.milvus.interrupted import clean_up
from splade_integrations.milvus.lite import LiteClient, cannot_open, is_lite, lite_version, write_lock

with require_extra("milvus", module=__name__):
    import grpc
    from pymilvus import AsyncMilvusClient, MilvusClient
    from pymilvus.exceptions import ConnectionConfigException, MilvusException

__all__ = ["Connection", "open_client"]

_client_locks: WeakKeyDictionary[MilvusClient, Any] = WeakKeyDictionary()


def open_client(**connection_args: Any) -> MilvusClient:
    """Return a `MilvusClient` for a server, or a `LiteClient` for a milvus-lite file.

    Args:
        **connection_args: The arguments of `MilvusClient`: uri, token, db_name, …
    Raises:
        OSError: The milvus-lite file cannot be opened. The message says why.
        TimeoutError: The server has not answered two attempts to connect. Each attempt takes up to 10 seconds.
    """
    uri = connection_args.get("uri", "")
    lite = bool(uri) and is_lite(uri)
    try:
        return _connected(LiteClient if lite else MilvusClient, connection_args)
    except ConnectionConfigException as err:
        if not lite:
            raise
        raise cannot_open(uri) from err


def _connected(kind: type[MilvusClient], connection_args: Mapping[str, Any]) -> MilvusClient:
    """Return a connected client. If connecting fails, try again.

    In pymilvus 3, all clients of a server share one connection. If the server has closed this connection, the first
    attempt fails and the next attempt succeeds.
    """
    pauses = iter((0.0, 1.0) if kind is LiteClient else (0.0,))
    while True:
        try:
            return kind(**connection_args)
        except MilvusException as err:
            if "server unavailable" not in str(err):
                raise
            if (pause := next(pauses, None)) is None:
                raise TimeoutError(
                    f"Milvus at {connection_args.get('uri') or 'http://localhost:19530'} must answer, got no answer. "
                    "Check that the server runs and can be reached, and that user and token are right."
                ) from err
            time.sleep(pause)


class Connection:
    """A connection to a Milvus server or file: the clients, the engine, and the locks.

    The attribute `lock` is held during each call that writes, and `turn` during each call that reads. On milvus-lite 2,
    `turn` is the same lock as `lock`. On the other engines, `turn` does nothing.

    Args:
        uri: The path of a milvus-lite file, or the address of a server. If `client` is given, `uri` is used only in
            messages.
        connection_args: Further arguments of `MilvusClient`.
        client: A client to use instead of opening one.
        aclient: An async client to use instead of opening one for each event loop.
    Raises:
        OSError: The milvus-lite file cannot be opened.
    """

    def __init__(
        self,
        uri: str = "",
        connection_args: Mapping[str, Any] | None = None,
        *,
        client: MilvusClient | None = None,
        aclient: AsyncMilvusClient | None = None,
    ) -> None:
        self.uri = uri
        arguments = {**(connection_args or {}), "uri": uri}
        self.client = open_client(**arguments) if client is None else client
        self.engine = _engine(self.client, "" if client is not None else uri)
        self.lock = _lock_of(client) if client is not None else write_lock(uri)
        # milvus-lite 2 crashed when one thread searched while another thread wrote. So on milvus-lite 2, calls that
        # read use the same lock as calls that write.
        self.turn = self.lock if self.engine is Engine.LITE2 else nullcontext()
        self._aclient = aclient
        # If the caller gives a client, its connection arguments are unknown, so no async client can be opened for its
        # server. If the caller gives no `aclient` either, async searches run the sync methods in a thread.
        self._aclients = AsyncClients(self.client, **arguments) if client is None else None

    @property
    def lite(self) -> bool:
        """Whether the engine is milvus-lite, which may run from a file or as a server."""
        return self.engine is not Engine.SERVER

    def write_method(self, *, auto_id: bool) -> str:
        """Return the method of `MilvusClient` that writes rows and replaces the stored rows with the same keys.

        On milvus-lite 3, an upsert keeps the dynamic keys of the stored row (its keys in Milvus's dynamic field).
        Filters would then find the new row by the dynamic keys of the row that it replaced. So milvus-lite 3 needs an
        insert, which replaces the whole row. A server needs an upsert, because an insert on a server keeps both the
        stored row and the new row.

        Args:
            auto_id: Whether Milvus numbers the rows. Numbered rows are inserted, because an upsert on a server would
                give them new numbers.
        """
        return "insert" if auto_id or self.engine is Engine.LITE3 else "upsert"

    @property
    def aclient(self) -> AsyncMilvusClient | None:
        """The async client of the running event loop, or None if the caller gave only a sync client.

        Raises:
            RuntimeError: No event loop is running.
        """
        if self._aclient is not None or self._aclients is None:
            return self._aclient
        return self._aclients.current()

    def close(self) -> None:
        """Close the sync client. If the client hangs, for example after a Ctrl-C, give up after ten seconds."""
        clean_up(self.client.close)


def _engine(client: MilvusClient, uri: str) -> Engine:
    """Return the engine. For a file, use the installed version, because milvus-lite 2 cannot report its version."""
    if uri and (version := lite_version(uri)):
        return Engine.LITE2 if version.startswith("2.") else Engine.LITE3
    try:
        version = client.get_server_version(timeout=READ_TIMEOUT)
    except grpc.RpcError as err:
        if err.code() is grpc.StatusCode.UNIMPLEMENTED:  # milvus-lite 2, used through a client from the caller
            return Engine.LITE2
        raise
    return Engine.of(version)


def _lock_of(client: MilvusClient) -> Any:
    return _client_locks.setdefault(client, RLock())
