"""Clients of Milvus that explain why a file does not open, take turns to write to it, and outlive an event loop.

This module needs pymilvus, but neither LangChain, nor LlamaIndex, nor an encoder.
"""

import asyncio
import importlib.metadata
import os
import uuid
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

from splade_integrations.dependencies import check_installed, require_extra
from splade_integrations.errors import OptionalDependencyError
from splade_integrations.milvus.defaults import READ_TIMEOUT
from splade_integrations.milvus.filters import Engine

with require_extra("milvus", module=__name__):
    import grpc
    from pymilvus import AsyncMilvusClient, MilvusClient
    from pymilvus.exceptions import ConnectionConfigException, MilvusException
    from pymilvus.orm.connections import connections

__all__ = ["AsyncClients", "Connection", "is_lite", "lite_version", "open_client", "write_lock"]

_write_locks: dict[str, Any] = {}
_client_locks: WeakKeyDictionary[MilvusClient, Any] = WeakKeyDictionary()


def lite_version(uri: str) -> str:
    """Return the version of milvus-lite if `uri` names one of its files, "" if it names a server.

    Raises:
        OptionalDependencyError: milvus-lite is not installed, or the installed version is known to score wrongly.
    """
    if "://" in uri and not uri.startswith("file:"):
        return ""
    try:
        version = importlib.metadata.version("milvus-lite")
    except importlib.metadata.PackageNotFoundError as err:
        raise OptionalDependencyError(
            f"The database file {uri!r} needs milvus-lite. Install it with: pip install 'splade-integrations[milvus]'."
        ) from err
    check_installed("milvus-lite")
    return version


def is_lite(uri: str) -> bool:
    """Return whether `uri` names a milvus-lite file rather than a server. Raises as `lite_version`."""
    return lite_version(uri) != ""


def write_lock(uri: str) -> Any:
    """Return the reentrant lock to hold while writing to this milvus-lite file or creating collections on this server.

    milvus-lite numbers its rows without a lock, and its flush fails during another write. Only one process can open a
    file, so a lock inside this process is enough for any number of stores and clients.
    """
    key = os.path.realpath(uri.removeprefix("file:")) if is_lite(uri) else uri
    return _write_locks.setdefault(key, RLock())


def _in_turn(name: str) -> Callable[..., Any]:
    method = getattr(MilvusClient, name)

    @wraps(method)
    def call(self: "LiteClient", *args: Any, **kwargs: Any) -> Any:
        with self.writing:
            return method(self, *args, **kwargs)

    return call


def _in_thread(name: str) -> Callable[..., Any]:
    async def call(self: "AsyncLiteClient", *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(getattr(self.in_turn, name), *args, **kwargs)

    return wraps(getattr(AsyncMilvusClient, name))(call)


class LiteClient(MilvusClient):  # type: ignore[misc]  # pymilvus is untyped
    """A `MilvusClient` of a milvus-lite file that waits for its turn to write.

    Args:
        **connection_args: The arguments of `MilvusClient`.
    """

    def __init__(self, **connection_args: Any) -> None:
        self.writing = write_lock(connection_args["uri"])
        super().__init__(**connection_args)

    insert, upsert, delete, flush = map(_in_turn, ("insert", "upsert", "delete", "flush"))
    create_collection, drop_collection = map(_in_turn, ("create_collection", "drop_collection"))


class AsyncLiteClient(AsyncMilvusClient):  # type: ignore[misc]  # pymilvus is untyped
    """An `AsyncMilvusClient` of a milvus-lite file that writes in a thread and waits for its turn.

    Args:
        in_turn: The sync client that does the writing.
        **connection_args: The arguments of `AsyncMilvusClient`.
    """

    def __init__(self, in_turn: LiteClient, **connection_args: Any) -> None:
        self.in_turn = in_turn
        super().__init__(**connection_args)

    insert, upsert, delete, flush = map(_in_thread, ("insert", "upsert", "delete", "flush"))


def open_client(**connection_args: Any) -> MilvusClient:
    """Return a `MilvusClient`; for a milvus-lite file, one that takes turns to write.

    Args:
        **connection_args: The arguments of `MilvusClient`: uri, token, db_name, …
    Raises:
        OSError: The milvus-lite file cannot be opened. The message says why; pymilvus's message does not.
        TimeoutError: The server does not answer. This takes two attempts of pymilvus, 10 seconds each.
    """
    uri = connection_args.get("uri", "")
    if not uri or not is_lite(uri):
        try:
            return MilvusClient(**connection_args)
        except MilvusException as err:
            if "server unavailable" not in str(err):
                raise
        try:  # pymilvus 3 shares connections, and fails once if the server has just closed the shared one
            return MilvusClient(**connection_args)
        except MilvusException as err:
            if "server unavailable" not in str(err):
                raise
            raise TimeoutError(
                f"Milvus at {uri or 'http://localhost:19530'} must answer, got no answer. Check that the server runs "
                "and can be reached, and that user and token are right."
            ) from err
    try:
        return LiteClient(**connection_args)
    except ConnectionConfigException as err:
        path = Path(uri)
        if path.suffix != ".db":
            found = "another name"
        elif not path.parent.is_dir():
            found = "a folder that does not exist"
        elif path.is_file():
            found = "a file, but milvus-lite 3 keeps its database in a folder of that name"
        elif not os.access(path if path.is_dir() else path.parent, os.W_OK):
            found = "a folder that is not writable"
        else:
            found = "one that cannot be opened, most likely because another process has it open"
        raise OSError(
            f"The milvus-lite database {uri!r} must be a path that ends in .db, in a writable folder, and not open in "
            f"another process, got {found}. Name another path, end the other process, or share one Milvus server."
        ) from err


class AsyncClients:
    """One `AsyncMilvusClient` for each event loop that asks.

    A client belongs to the loop that it was made in. pymilvus finds its connections by the loop's memory address, which
    the next `asyncio.run` may reuse; the call then fails with "Event loop is closed". So each loop gets a separate
    connection, made when the loop first asks. After a loop has closed, the next new loop drops its connection.

    Args:
        client: The sync client; it does the writing if it is a milvus-lite client.
        **connection_args: The arguments of `MilvusClient`: uri, token, db_name, …
    """

    def __init__(self, client: MilvusClient, **connection_args: Any) -> None:
        self._client = client
        self._connection_args = {key: value for key, value in connection_args.items() if key != "alias"}
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[AsyncMilvusClient, str]] = WeakKeyDictionary()
        self._connecting = Lock()  # loops may run in different threads

    def current(self) -> AsyncMilvusClient:
        """Return the client of the running loop.

        Raises:
            RuntimeError: No event loop is running.
        """
        loop = asyncio.get_running_loop()
        with self._connecting:
            if loop not in self._clients:
                self._drop_closed()
                self._clients[loop] = self._connect()
            return self._clients[loop][0]

    def _connect(self) -> tuple[AsyncMilvusClient, str]:
        alias = f"splade-{uuid.uuid4().hex}"
        arguments = self._connection_args | {"alias": alias}
        if not importlib.metadata.version("pymilvus").startswith("2."):  # pymilvus 2 needs the alias alone
            arguments = self._connection_args | {"dedicated": True}
        if isinstance(self._client, LiteClient):
            return AsyncLiteClient(self._client, **arguments), alias
        return AsyncMilvusClient(**arguments), alias

    def _drop_closed(self) -> None:
        """Drop the clients of closed loops: each client, and pymilvus's list of connections, keeps its loop alive."""
        for loop in [loop for loop in self._clients if loop.is_closed()]:
            _, alias = self._clients.pop(loop)
            # `remove_connection` will not do: it closes the connection, and that needs a running loop.
            getattr(connections, "_alias_handlers", {}).pop(alias, None)
            getattr(connections, "_alias_config", {}).pop(alias, None)


class Connection:
    """A Milvus server or file: its clients, the engine that answers, and the lock for writers.

    Args:
        uri: A milvus-lite file or a server. Has no effect if `client` is given.
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
        self._aclient = aclient
        # A client that the caller made does not show how to connect, so async methods run sync ones in a thread.
        self._aclients = AsyncClients(self.client, **arguments) if client is None else None

    @property
    def lite(self) -> bool:
        """Whether milvus-lite answers, from a file or as a server."""
        return self.engine is not Engine.SERVER

    @property
    def aclient(self) -> AsyncMilvusClient | None:
        """The async client of the running event loop, or None if the caller gave a sync client alone.

        Raises:
            RuntimeError: No event loop is running.
        """
        if self._aclient is not None or self._aclients is None:
            return self._aclient
        return self._aclients.current()


def _engine(client: MilvusClient, uri: str) -> Engine:
    """Return the engine that answers. For a file, ask the package: milvus-lite 2 has no call that gives its version."""
    if uri and (version := lite_version(uri)):
        return Engine.LITE2 if version.startswith("2.") else Engine.LITE3
    try:
        version = client.get_server_version(timeout=READ_TIMEOUT)
    except grpc.RpcError as err:
        if err.code() is grpc.StatusCode.UNIMPLEMENTED:  # milvus-lite 2, behind a client that the caller made
            return Engine.LITE2
        raise
    return Engine.of(version)


def _lock_of(client: MilvusClient) -> Any:
    return _client_locks.setdefault(client, RLock())
