"""Holding a conversation with Milvus: a released collection is loaded, and a server that is down is called so.

Knows no collection but its name, and nothing of what is asked.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.searching import Call, Conversation

with require_extra("milvus", module=__name__):
    import grpc
    from pymilvus import AsyncMilvusClient, MilvusClient
    from pymilvus.exceptions import MilvusException

__all__ = ["aask", "ask", "perform"]

T = TypeVar("T")

_NOT_LOADED = (101, 201)  # a collection, a partition
_SILENCE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def ask(client: MilvusClient, name: str, conversation: Conversation[T], where: str) -> T:
    """Return what a conversation comes to.

    Args:
        client: Who is asked. A collection that is not loaded, as after a restart of milvus-lite, is loaded once.
        name: The collection.
        conversation: What is asked.
        where: The server's address, for messages.
    Raises:
        TimeoutError: It does not answer within the call's own time.
    """
    answer: Any = None
    while True:
        try:
            call = conversation.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        method = getattr(client, call.method)
        try:
            try:
                answer = method(**call.arguments)
            except MilvusException as err:
                if err.code in _NOT_LOADED:
                    client.load_collection(name, timeout=call.arguments.get("timeout"))
                elif not _disconnected(err):
                    raise
                answer = method(**call.arguments)
        except (grpc.RpcError, MilvusException) as err:
            _raise_if_silent(err, call, where)
            raise


def perform(client: MilvusClient, call: Call, where: str) -> Any:
    """Return what one call answers. Arguments as `ask`.

    Raises:
        TimeoutError: The server does not answer within the call's time.
    """
    try:
        return getattr(client, call.method)(**call.arguments)
    except (grpc.RpcError, MilvusException) as err:
        _raise_if_silent(err, call, where)
        raise


async def aask(client: AsyncMilvusClient, name: str, conversation: Conversation[T], where: str) -> T:
    """Return what a conversation comes to. As `ask`."""
    answer: Any = None
    while True:
        try:
            call = conversation.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        try:
            try:
                answer = await _within(call, getattr(client, call.method)(**call.arguments))
            except MilvusException as err:
                if err.code in _NOT_LOADED:
                    await client.load_collection(name, timeout=call.arguments.get("timeout"))
                elif not _disconnected(err):
                    raise
                answer = await _within(call, getattr(client, call.method)(**call.arguments))
        except (grpc.RpcError, MilvusException, TimeoutError) as err:
            _raise_if_silent(err, call, where)
            raise


async def _within(call: Call, waiting: Awaitable[Any]) -> Any:
    """Wait no longer than the call's timeout: pymilvus's async client waits for its first connection for ever."""
    async with asyncio.timeout(call.arguments.get("timeout")):
        return await waiting


def _raise_if_silent(err: BaseException, call: Call, where: str) -> None:
    """Raise a TimeoutError if an error says that the server does not answer.

    pymilvus tries a server that is down again for as long as the call's timeout, and then says "Retry timeout".
    """
    silent = isinstance(err, grpc.RpcError) and getattr(err, "code", lambda: None)() in _SILENCE
    if silent or isinstance(err, TimeoutError) or _disconnected(err) or "Retry timeout" in str(err):
        seconds = call.arguments.get("timeout")
        raise TimeoutError(
            f"Milvus at {where or 'its address'} must answer within {seconds} s, got no answer to {call.method}. Look "
            "whether the server runs and can be reached, or give a longer timeout."
        ) from err


def _disconnected(err: BaseException) -> bool:
    """Return whether pymilvus 3 has lost a connection and not got another; that may be for a moment alone."""
    return isinstance(err, MilvusException) and "server unavailable" in str(err)
