"""Clients for Milvus servers and for milvus-lite files.

If a file cannot be opened, the error says why. Clients of one file take turns to write. Each event loop gets its own
async client. This module needs pymilvus, but not LangChain, LlamaIndex or an encoder.
"""

import asyncio
import importlib.metadata
import os
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import nullcontext
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

# In pymilvus 3, clients of the same address share a connection unless `dedicated` is true. pymilvus 2 does not have
# this option. There, clients share a connection if they use the same alias.
_DEDICATED: dict[str, Any] = {} if importlib.metadata.version("pymilvus").startswith("2.") else {"dedicated": True}
# Options of gRPC for milvus-lite files. gRPC remembers for up to two minutes that an address did not answer. A new
# database may get the port of a closed database, and would then seem not to answer. A connection with its own pool does
# not share that memory. pymilvus 3 sends a ping every 10 seconds. After two minutes without a call, milvus-lite takes
# these pings for abuse: it closes the connection, and gRPC logs an error. So no pings are sent.
_LITE_OPTIONS = (
    {"grpc_options": {"grpc.use_local_subchannel_pool": 1, "grpc.keepalive_time_ms": 2**31 - 1}} if _DEDICATED else {}
)
_write_locks: dict[str, Any] = {}
_client_locks: WeakKeyDictionary[MilvusClient, Any] = WeakKeyDictionary()


def lite_version(uri: str) -> str:
    """Return the version of milvus-lite if `uri` names a milvus-lite file, or "" if `uri` names a server.

    Raises:
        OptionalDependencyError: milvus-lite is not installed, or its version is known to compute wrong scores.
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
    """Return whether `uri` names a milvus-lite file rather than a server. Raises the errors of `lite_version`."""
    return lite_version(uri) != ""


def write_lock(uri: str) -> Any:
    """Return the reentrant lock for writing to a milvus-lite file or to a server.

    milvus-lite numbers its rows but does not lock the counter, so two threads that write could get the same number. A
    flush of milvus-lite fails while another thread writes. Only one process can open a file, so a lock inside that
    process is enough. On a server, the lock keeps two threads of a process from creating the same collection.
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
    """A `MilvusClient` for a milvus-lite file. Before it writes, it waits until no other client writes to the file.

    Args:
        **connection_args: The arguments of `MilvusClient`.
    """

    def __init__(self, **connection_args: Any) -> None:
        self.writing = write_lock(connection_args["uri"])
        super().__init__(**{**_LITE_OPTIONS, **connection_args, **_DEDICATED})

    insert, upsert, delete, flush = map(_in_turn, ("insert", "upsert", "delete", "flush"))
    create_collection, drop_collection = map(_in_turn, ("create_collection", "drop_collection"))


class AsyncLiteClient(AsyncMilvusClient):  # type: ignore[misc]  # pymilvus is untyped
    """An `AsyncMilvusClient` for a milvus-lite file. It writes in a thread, through a `LiteClient`.

    Args:
        in_turn: The sync client that writes.
        **connection_args: The arguments of `AsyncMilvusClient`.
    """

    def __init__(self, in_turn: LiteClient, **connection_args: Any) -> None:
        self.in_turn = in_turn
        super().__init__(**{**_LITE_OPTIONS, **connection_args})

    insert, upsert, delete, flush = map(_in_thread, ("insert", "upsert", "delete", "flush"))


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
        raise _cannot_open(uri) from err


def _connected(kind: type[MilvusClient], connection_args: Mapping[str, Any]) -> MilvusClient:
    """Return a connected client. If connecting fails, try again.

    pymilvus 3 shares a connection between the clients of a server. If the server has closed it, the first attempt
    fails and the next one succeeds.
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


def _cannot_open(uri: str) -> OSError:
    """Return an error that says why a milvus-lite file cannot be opened."""
    path = Path(uri)
    if path.suffix != ".db":
        found, advice = "a path with another ending", "Give a path that ends in .db"
    elif not path.parent.is_dir():
        found, advice = "a folder that does not exist", "Create the folder"
    elif path.is_file():
        found = "a file, but milvus-lite 3 keeps its database in a folder of that name"
        advice = "Give another path, or move the file away"
    elif not os.access(path if path.is_dir() else path.parent, os.W_OK):
        found, advice = "a folder that is not writable", "Give a path in a writable folder"
    else:
        found = "a path that cannot be opened, most likely because another process has it open"
        advice = "End the other process, or use a Milvus server, which several processes can share"
    return OSError(
        f"The milvus-lite database {uri!r} must be a path that ends in .db, in a writable folder, and not open in "
        f"another process, got {found}. {advice}."
    )


class AsyncClients:
    """Makes one `AsyncMilvusClient` for each event loop.

    An async client works only in the loop in which it was made. pymilvus looks up connections by the memory address of
    the loop. After a loop is closed, the next `asyncio.run` may make its loop at the same address. It would then get
    the closed loop's connection, and each call would fail with "Event loop is closed". So this class opens a separate
    connection for each loop that asks for a client. When a new loop asks, the connections of closed loops are dropped.

    Args:
        client: The sync client. If it is a `LiteClient`, the async clients write through it.
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
        if not importlib.metadata.version("pymilvus").startswith("2."):
            arguments = self._connection_args | {"dedicated": True}  # pymilvus 3 takes this instead of an alias
        if isinstance(self._client, LiteClient):
            return AsyncLiteClient(self._client, **arguments), alias
        return AsyncMilvusClient(**arguments), alias

    def _drop_closed(self) -> None:
        """Drop the clients of closed loops, and their entries in pymilvus's list of connections.

        Both would keep the closed loops in memory.
        """
        for loop in [loop for loop in self._clients if loop.is_closed()]:
            _, alias = self._clients.pop(loop)
            # pymilvus's `remove_connection` would also close the connection, but this needs the loop to be still open.
            getattr(connections, "_alias_handlers", {}).pop(alias, None)
            getattr(connections, "_alias_config", {}).pop(alias, None)


class Connection:
    """A connection to a Milvus server or file: the clients, the engine, and the locks.

    A call that writes holds `lock`. Every call holds `turn`, which is the same lock on milvus-lite 2. On other engines
    `turn` does nothing.

    Args:
        uri: A milvus-lite file or a server. If `client` is given, `uri` is used only in messages.
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
        # milvus-lite 2 crashed when one thread searched while another wrote, so its readers take turns with writers.
        self.turn = self.lock if self.engine is Engine.LITE2 else nullcontext()
        self._aclient = aclient
        # A client that the caller gives does not tell its connection arguments. So no async client can be opened for
        # the same server, and async searches run the sync methods in a thread, unless the caller also gives `aclient`.
        self._aclients = AsyncClients(self.client, **arguments) if client is None else None

    @property
    def lite(self) -> bool:
        """Whether the engine is milvus-lite, which may run from a file or as a server."""
        return self.engine is not Engine.SERVER

    def write_method(self, *, auto_id: bool) -> str:
        """Return the method of `MilvusClient` that writes rows, and replaces stored rows with the same keys.

        milvus-lite 3 needs an insert for this, because its upsert keeps the stored row's dynamic keys, and filters
        would still find the new row by them. A server needs an upsert, because its insert keeps both rows.

        Args:
            auto_id: Whether Milvus numbers the rows. No stored row then has the same key, and an upsert on a server
                would change the keys.
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


def _engine(client: MilvusClient, uri: str) -> Engine:
    """Return the engine. For a file, read the version of the installed package: milvus-lite 2 cannot report its own."""
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
