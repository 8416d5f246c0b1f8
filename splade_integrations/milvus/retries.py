"""Hold a conversation with Milvus: load a released collection, and report a server that is down.

This module does not know what the calls ask for.
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

_NOT_LOADED = (101, 201)  # Milvus's error codes for a collection and for a partition
_SILENCE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def ask(client: MilvusClient, name: str, conversation: Conversation[T], where: str) -> T:
    """Hold a conversation with Milvus and return its result.

    If the collection is not loaded, as after a restart of milvus-lite, load it and repeat the call once.

    Args:
        client: The client that makes the calls.
        name: The collection's name.
        conversation: The calls to make.
        where: The server's address, for messages.
    Raises:
        TimeoutError: The server does not answer within the call's timeout.
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
    """Make one call and return the answer. `client` and `where` are those of `ask`.

    Raises:
        TimeoutError: The server does not answer within the call's timeout.
    """
    try:
        return getattr(client, call.method)(**call.arguments)
    except (grpc.RpcError, MilvusException) as err:
        _raise_if_silent(err, call, where)
        raise


async def aask(client: AsyncMilvusClient, name: str, conversation: Conversation[T], where: str) -> T:
    """Hold a conversation like `ask`, with an async client."""
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
    """Wait no longer than the call's timeout: pymilvus's async client would wait for ever for its first connection."""
    async with asyncio.timeout(call.arguments.get("timeout")):
        return await waiting


def _raise_if_silent(err: BaseException, call: Call, where: str) -> None:
    """Raise a TimeoutError if an error means that the server does not answer.

    If a server is down, pymilvus retries until the call's timeout has passed, and then raises "Retry timeout".
    """
    silent = isinstance(err, grpc.RpcError) and getattr(err, "code", lambda: None)() in _SILENCE
    if silent or isinstance(err, TimeoutError) or _disconnected(err) or "Retry timeout" in str(err):
        seconds = call.arguments.get("timeout")
        raise TimeoutError(
            f"Milvus at {where or 'its address'} must answer within {seconds} s, got no answer to {call.method}. Check "
            "that the server runs and can be reached, or give a longer timeout."
        ) from err


def _disconnected(err: BaseException) -> bool:
    """Return whether pymilvus 3 has lost its connection and could not reconnect, perhaps only for a moment."""
    return isinstance(err, MilvusException) and "server unavailable" in str(err)
