"""Async clients for Milvus, one for each event loop."""

import asyncio
import importlib.metadata
import uuid
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.lite import AsyncLiteClient, LiteClient

with require_extra("milvus", module=__name__):
    from pymilvus import AsyncMilvusClient, MilvusClient
    from pymilvus.orm.connections import connections

__all__ = ["AsyncClients"]


class AsyncClients:
    """Makes one `AsyncMilvusClient` for each event loop.

    An async client works only in the event loop in which it was made. pymilvus looks up connections by the memory
    address of the loop. After a loop is closed, the next `asyncio.run` may create its loop at the same address. The new
    loop would then get the closed loop's connection, and each call would fail with "Event loop is closed". So this
    class opens a separate connection for each loop. When a new loop needs a client, the connections of closed loops are
    dropped.

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
            arguments = self._connection_args | {"dedicated": True}  # pymilvus 3 uses this instead of an alias
        if isinstance(self._client, LiteClient):
            return AsyncLiteClient(self._client, **arguments), alias
        return AsyncMilvusClient(**arguments), alias

    def _drop_closed(self) -> None:
        """Drop the clients of closed loops, and their entries in pymilvus's list of connections.

        If they were not dropped, they would keep the closed loops in memory.
        """
        for loop in [loop for loop in self._clients if loop.is_closed()]:
            _, alias = self._clients.pop(loop)
            # The entries are removed directly. pymilvus's `remove_connection` would also try to close the connection,
            # which is possible only while the loop is open.
            getattr(connections, "_alias_handlers", {}).pop(alias, None)
            getattr(connections, "_alias_config", {}).pop(alias, None)
