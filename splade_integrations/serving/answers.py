"""Reads the answers of a server: facts about the server, rows of term weights, and errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from json import dumps, loads
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from splade_integrations.encoding.roles import Role
from splade_integrations.models.fingerprint import Fingerprint
from splade_integrations.sparse import from_terms

__all__ = ["ServerFacts", "check_same", "read_error", "read_facts", "read_rows"]

# The default limit of Text Embeddings Inference (TEI) on the bytes of a request. It is used for all TEI servers,
# because TEI does not report its limit. Our server reports its limit.
_MAX_BYTES = 2_000_000


@dataclass(frozen=True)
class ServerFacts:
    """What a server says about itself.

    Args:
        model_name: The name of the model.
        dim: The size of the vocabulary.
        max_length: The largest number of tokens of a text.
        max_texts: The largest number of texts in a request.
        max_bytes: The largest number of bytes in a request's body.
        fingerprint: The fingerprint, which identifies the server's encoder, or None for TEI, which reports none.
    """

    model_name: str
    dim: int
    max_length: int
    max_texts: int
    max_bytes: int
    fingerprint: Fingerprint | None


def read_facts(url: str, response: Any, *, dim: int | None, prompt_names: Mapping[Role, str | None]) -> ServerFacts:
    """Return the facts in an answer from `/info`.

    Args:
        url: The server's address, for messages.
        response: The answer.
        dim: The size of the vocabulary if the user has stated it, or None.
        prompt_names: The names of prompts for TEI, if the user has stated them.
    Raises:
        ValueError: The server does not serve a SPLADE model, or what the user states does not fit the server.
    """
    try:
        info = response.json()
        max_length, max_texts = int(info["max_input_length"]), int(info["max_client_batch_size"])
        kind = info["model_type"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as err:
        raise ValueError(
            f"{url}/info must answer as `splade serve` or Text Embeddings Inference does, got {response.text[:80]!r}. "
            "Check the address."
        ) from err
    pooling = (kind.get("embedding") or {}).get("pooling") if isinstance(kind, dict) else None
    if str(pooling).lower() != "splade":
        raise ValueError(
            f"{url} must serve a model with SPLADE pooling, got {kind!r}. Start Text Embeddings Inference with "
            "--pooling splade, or use: splade serve."
        )
    stated = info.get("fingerprint")
    if stated is None:
        if dim is None:
            raise ValueError(
                f"dim must be given for {url}, got None. This server does not report the size of its vocabulary. Pass "
                "dim=30522 for models with BERT's English vocabulary."
            )
        return ServerFacts(str(info["model_id"]), dim, max_length, max_texts, _MAX_BYTES, None)
    if dim is not None and dim != info["dim"]:
        raise ValueError(f"dim must be {info['dim']} for {url}, got {dim}. Leave dim out. This server reports it.")
    if any(prompt_names.values()):
        raise ValueError(
            f"query_prompt_name and document_prompt_name must be left out for {url}, got at least one of them. Leave "
            "them out. This server knows the prompts of its model."
        )
    fingerprint = Fingerprint.from_json(dumps(stated))
    return ServerFacts(str(info["model_id"]), info["dim"], max_length, max_texts, info["max_body_bytes"], fingerprint)


def read_rows(url: str, content: bytes, number: int, dim: int) -> csr_array:
    """Return the rows (sparse vectors) in an answer from `/embed_sparse`.

    Each weight is read as a 64-bit number and then rounded to float32. The result is the float32 that the server wrote.

    Args:
        url: The server's address, for messages.
        content: The answer's body.
        number: The number of rows that were asked for.
        dim: The size of the vocabulary.
    Returns:
        (number, dim) float32 with sorted int32 indices and no stored zeros.
    Raises:
        ValueError: The number of rows in the answer is not `number`, a token id is not below `dim`, or the answer is
            not a JSON list of rows.
    """
    try:
        rows = loads(content)
        counts = [len(row) for row in rows]
        ids = np.array([term["index"] for term in chain.from_iterable(rows)], np.int64)
        weights = np.array([term["value"] for term in chain.from_iterable(rows)], np.float32)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as err:
        raise ValueError(
            f"{url} must answer with rows of term weights, got {content[:80]!r}. Check the address."
        ) from err
    if len(rows) != number or (ids.size and not 0 <= ids.min() <= ids.max() < dim):
        raise ValueError(
            f"{url} must answer with {number} rows of term ids from 0 to {dim - 1}, got {len(rows)} rows of term ids "
            f"up to {ids.max(initial=-1)}. Check dim, and check that the server has not changed its model."
        )
    places = np.repeat(np.arange(number), counts)
    order = np.lexsort((ids, places))
    kept = order[weights[order] != 0]
    return from_terms(ids[kept], weights[kept], np.bincount(places[kept], minlength=number), dim)


def read_error(url: str, response: Any) -> Exception:
    """Return the exception for an answer that reports a failure."""
    try:
        message = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        message = response.text[:200]
    text = f"{url} refused a request (status {response.status_code}): {message}"
    return ConnectionError(text) if response.status_code in (408, 429, 502, 503, 504) else ValueError(text)


def check_same(url: str, server: ServerFacts, stated: str | None) -> None:
    """Raise ValueError if an answer comes from another encoder than the one that the server described at first."""
    if stated == (server.fingerprint and server.fingerprint.to_json()):  # the usual case needs no parsing
        return
    advice = (
        "Restart the server with its first encoder, or make a new RemoteEncoder. If you make a new one, each "
        "collection compares the new fingerprint with the fingerprint that it stores."
    )
    found = None if stated is None else Fingerprint.from_json(stated)
    if server.fingerprint is None or found is None:
        raise ValueError(
            f"{url} must send a fingerprint either with all answers or with none, got answers with and without one. "
            + advice
        )
    if differing := server.fingerprint.differences(found):
        raise ValueError(
            f"{url} must keep serving the encoder of its first answer, {server.fingerprint.describe(differing)}, got "
            f"{found.describe(differing)}. {advice}"
        )
