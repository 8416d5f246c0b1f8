"""Make the calls of a conversation, load a collection that is not loaded, and report a server that does not answer.

A conversation is a generator. It yields the calls to make, and receives the answer to each call.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.calls import Call, Conversation

with require_extra("milvus", module=__name__):
    import grpc
    from pymilvus import AsyncMilvusClient, MilvusClient
    from pymilvus.exceptions import MilvusException

__all__ = ["aask", "ask", "perform"]

T = TypeVar("T")

_NOT_LOADED = (101, 201)  # Milvus's error codes for an unloaded collection and for an unloaded partition
_SILENCE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def ask(client: MilvusClient, name: str, conversation: Conversation[T], where: str) -> T:
    """Make the calls of a conversation, and return its result.

    If the collection is not loaded, for example after a restart of milvus-lite, load it and repeat the call once. If
    the connection was lost, repeat the call once as well.

    Args:
        client: The client that makes the calls.
        name: The collection's name.
        conversation: The generator that yields the calls.
        where: The server's address, for messages. "" means that the address is unknown.
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
    """Make one call, and return the answer. `client` and `where` are as in `ask`.

    Raises:
        TimeoutError: The server does not answer within the call's timeout.
    """
    try:
        return getattr(client, call.method)(**call.arguments)
    except (grpc.RpcError, MilvusException) as err:
        _raise_if_silent(err, call, where)
        raise


async def aask(client: AsyncMilvusClient, name: str, conversation: Conversation[T], where: str) -> T:
    """Do the same as `ask`, with an async client."""
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
    """Wait for an answer until the call's timeout.

    pymilvus's async client does not apply the timeout while it first connects, so this function applies it.
    """
    async with asyncio.timeout(call.arguments.get("timeout")):
        return await waiting


def _raise_if_silent(err: BaseException, call: Call, where: str) -> None:
    """Raise a TimeoutError if an error means that the server does not answer.

    If a server is down, pymilvus retries until the call's timeout has passed. pymilvus then raises an error that says
    "Retry timeout".
    """
    silent = isinstance(err, grpc.RpcError) and getattr(err, "code", lambda: None)() in _SILENCE
    if silent or isinstance(err, TimeoutError) or _disconnected(err) or "Retry timeout" in str(err):
        seconds = call.arguments.get("timeout")
        at = f" at {where}" if where else ""
        raise TimeoutError(
            f"Milvus{at} must answer within {seconds} s, got no answer to {call.method}. Check "
            "that the server runs and can be reached, or give a longer timeout."
        ) from err


def _disconnected(err: BaseException) -> bool:
    """Return whether the error says that pymilvus 3 lost its connection and could not reconnect at once."""
    return isinstance(err, MilvusException) and "server unavailable" in str(err)
