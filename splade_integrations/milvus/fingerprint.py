"""Store an encoder's fingerprint in a Milvus collection, and refuse to use the collection with another encoder.

A fingerprint describes the encoder's weights and settings. Milvus itself checks only the dimension of dense vectors. A
sparse field has no dimension, so Milvus would mix the vectors of two encoders without an error. This module needs
pymilvus, but not LangChain, LlamaIndex or an encoder.
"""

import logging
from collections.abc import Mapping
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.models.fingerprint import Fingerprint

with require_extra("milvus", module=__name__):
    from pymilvus import MilvusClient

__all__ = ["check_encoder", "description_with", "record", "recorded", "without_encoder"]

logger = logging.getLogger(__name__)

# Users' collections hold this key, so it must never change.
_KEY = "splade_integrations.encoder"
_warned: set[tuple[str, str]] = set()


def description_with(fingerprint: Fingerprint | None, description: str = "") -> str:
    """Return the description of a new collection: `description`, followed by a line with the fingerprint."""
    if fingerprint is None:
        return description
    return f"{description}\n{_KEY}={fingerprint.to_json()}".lstrip("\n")


def without_encoder(description: str, properties: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the description and the properties of a collection without the fingerprint."""
    lines = [line for line in description.splitlines() if not line.startswith(f"{_KEY}=")]
    return "\n".join(lines), {key: value for key, value in properties.items() if key != _KEY}


def record(client: MilvusClient, collection_name: str, fingerprint: Fingerprint | None) -> None:
    """Set the fingerprint as a property of a new collection, if Milvus did not keep the description that contains it.

    milvus-lite 3 does not keep descriptions, whether it opens a file or runs as a server. milvus-lite 2 keeps them, but
    cannot alter properties.
    """
    if fingerprint is not None and recorded(client.describe_collection(collection_name)) is None:
        client.alter_collection_properties(collection_name, properties={_KEY: fingerprint.to_json()})


def check_encoder(
    description: dict[str, Any], uri: str, fingerprint: Fingerprint | None, *, allow_other_encoder: bool
) -> None:
    """Raise an error if the collection was made with another encoder.

    Args:
        description: The collection's description, as `MilvusClient.describe_collection` returns it.
        uri: The server or file. If the collection has no fingerprint, a process logs only one warning for this `uri`
            and the collection's name.
        fingerprint: The encoder's fingerprint. None means that the encoder has no fingerprint. Nothing is then checked.
        allow_other_encoder: Whether to accept another encoder.
    Raises:
        ValueError: The encoders differ. The message names both encoders and their differences.
    """
    if fingerprint is None or allow_other_encoder:
        return
    name = description["collection_name"]
    kept = recorded(description)
    if kept is None:
        if (uri, name) not in _warned:
            _warned.add((uri, name))
            logger.warning(
                "Collection %r does not record the encoder that it was made with, so check yourself that this was %s. "
                "Collections that this package creates record their encoder.", name, fingerprint.describe(["weights"]),
            )  # fmt: skip
        return
    if differing := kept.differences(fingerprint):
        raise ValueError(
            f"collection {name!r} must be used with the encoder that it was made with, "
            f"{kept.describe(differing)}, got {fingerprint.describe(differing)}. Load the collection's encoder, index "
            "the documents into another collection_name, or pass allow_other_encoder=True if the vectors of both "
            "encoders are compatible."
        )


def recorded(description: dict[str, Any]) -> Fingerprint | None:
    """Return the fingerprint that a collection holds, or None.

    Args:
        description: The collection's description, as `MilvusClient.describe_collection` returns it.
    """
    text = description.get("properties", {}).get(_KEY)
    if text is None:
        lines = description.get("description", "").splitlines()
        text = next((line.removeprefix(f"{_KEY}=") for line in lines if line.startswith(f"{_KEY}=")), None)
    return None if text is None else Fingerprint.from_json(text)
