"""Reads the body of a request, and returns the texts in it.

A body that is invalid, is too large or arrives too slowly is refused with an HTTP status. This module uses no encoder.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson

from splade_integrations.encoding.roles import Role
from splade_integrations.serving.protocol import ROLES, Refusal

__all__ = ["BodyReader", "EmbedRequest", "Limits", "parse"]

_KEYS = ("inputs", "prompt_name", "truncate", "truncation_direction")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a server. The first three defaults are those of Text Embeddings Inference.

    Args:
        max_client_batch_size: The largest number of texts in a request.
        max_concurrent_requests: The largest number of requests that are waiting or being encoded. Further requests get
            the status 429.
        max_body_bytes: The largest number of bytes in a request's body.
        max_bytes_being_read: The largest total number of bytes of all bodies that are still arriving. This number
            limits the memory that slow clients, or many clients, can take.
        body_seconds: How many seconds the body of a request may take to arrive.
        max_batch_texts: The largest number of texts that are encoded in one call. Further texts wait for the next call.
    """

    max_client_batch_size: int = 32
    max_concurrent_requests: int = 512
    max_body_bytes: int = 2_000_000
    max_bytes_being_read: int = 64_000_000
    body_seconds: float = 30.0
    max_batch_texts: int = 256


@dataclass(frozen=True)
class EmbedRequest:
    """A request for the sparse vectors of some texts.

    Args:
        texts: The texts.
        role: "query" or "document".
        truncate: Whether to cut texts that are too long, instead of refusing them.
    """

    texts: list[str]
    role: Role
    truncate: bool


class BodyReader:
    """Reads the bodies of requests, and refuses bodies that are too large, too slow or too many at the same time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._being_read = 0

    async def read(self, chunks: AsyncIterator[bytes], stated_bytes: str | None) -> bytes:
        """Return the body that arrives in chunks.

        Args:
            chunks: The parts of the body.
            stated_bytes: The value of the header content-length, or None if the header is missing.
        Raises:
            Refusal: The body is too large or arrives too slowly, or the server is reading too many bodies at once.
        """
        limit = self._limits.max_body_bytes
        # Only the first 20 digits are read, because int() refuses a number of more than 4300 digits.
        if stated_bytes is not None and stated_bytes.isdecimal() and int(stated_bytes[:20]) > limit:
            raise _too_large(limit, f"{stated_bytes[:20]} bytes")
        parts: list[bytes] = []
        held = 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for chunk in chunks:
                    parts.append(chunk)
                    held += len(chunk)
                    self._being_read += len(chunk)
                    if held > limit:
                        raise _too_large(limit, "more")
                    if self._being_read > self._limits.max_bytes_being_read:
                        raise Refusal("Overloaded", "The server is reading too many bodies. Send this one again later.")
        except TimeoutError as err:
            raise Refusal(
                "Validation",
                f"The body must arrive within {self._limits.body_seconds:g} seconds, got only a part. Send it again.",
                status=408,
            ) from err
        finally:
            self._being_read -= held
        return b"".join(parts)


def parse(body: bytes, limits: Limits) -> EmbedRequest:
    """Return the request that a body states.

    Args:
        body: JSON that follows the schema EmbedSparseRequest of Text Embeddings Inference.
        limits: The limits on the number of texts.
    Raises:
        Refusal: The body does not follow this schema, or exceeds a limit.

    Example:
        >>> parse(b'{"inputs": "a cat", "prompt_name": "query"}', Limits())
        EmbedRequest(texts=['a cat'], role='query', truncate=False)
    """
    try:
        stated = orjson.loads(body)
    except orjson.JSONDecodeError as err:
        message = f'The body must be JSON, got an error: {err}. Send an object with the key "inputs".'
        raise Refusal("Validation", message, status=400) from err
    if not isinstance(stated, dict):
        raise _misshapen(f'The body must be an object, got {_kind(stated)}. Send an object with the key "inputs".')
    if unknown := [key for key in stated if key not in _KEYS]:
        raise _misshapen(f"Each key must be one of {', '.join(_KEYS)}, got {unknown[0][:80]!r}. Leave this key out.")
    if "inputs" not in stated:
        raise _misshapen('The body must have the key "inputs", got none. Give this key a text or a list of texts.')
    truncate = stated.get("truncate")
    if truncate is not None and not isinstance(truncate, bool):
        raise _misshapen(f"truncate must be true or false, got {_kind(truncate)}. Leave it out for false.")
    direction = stated.get("truncation_direction")
    if direction is not None and (not isinstance(direction, str) or direction.lower() != "right"):
        raise _misshapen("truncation_direction must be Right, got another value. This server cuts only at the end.")
    return EmbedRequest(_texts(stated["inputs"], limits), _role(stated.get("prompt_name")), bool(truncate))


def _texts(inputs: Any, limits: Limits) -> list[str]:
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(texts, list):
        raise _misshapen(f"inputs must be a text or a list of texts, got {_kind(inputs)}. Send texts.")
    if not texts:
        raise Refusal("Empty", "inputs must have at least one text, got an empty list. Send a text.")
    if len(texts) > limits.max_client_batch_size:
        raise Refusal(
            "Validation",
            f"inputs must have at most {limits.max_client_batch_size} texts, got {len(texts)}. Send several requests.",
        )
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise _misshapen(
                f"inputs[{position}] must be a text, got {_kind(text)}. This server takes no token ids. Send texts."
            )
    return texts


def _role(prompt_name: Any) -> Role:
    if prompt_name is None:
        return "document"
    for role in ROLES:
        if prompt_name == role:
            return role
    shown = repr(prompt_name[:80]) if isinstance(prompt_name, str) else _kind(prompt_name)
    raise Refusal("Validation", f"prompt_name must be query or document, got {shown}. Leave it out for documents.")


def _misshapen(message: str) -> Refusal:
    return Refusal("Validation", message, status=422)


def _too_large(limit: int, got: str) -> Refusal:
    return Refusal("Validation", f"The body must have at most {limit} bytes, got {got}. Send several requests.")


def _kind(value: Any) -> str:
    """Return the name of a value's type in JSON."""
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names[type(value)]
