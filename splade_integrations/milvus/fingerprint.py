"""A Milvus collection remembers the encoder that fills it, and another one is refused there.

Milvus checks a dense field's dimension; a sparse field has none, and rows of two encoders mix in silence.
Needs pymilvus; knows neither LangChain, nor LlamaIndex, nor an encoder.
"""

import json
import logging
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.models.fingerprint import Fingerprint, differences, name_of

with require_extra("milvus", module=__name__):
    from pymilvus import MilvusClient

__all__ = ["check_encoder", "description_with", "record", "recorded"]

logger = logging.getLogger(__name__)

_KEY = "splade_integrations.encoder"
_warned: set[tuple[str, str]] = set()


def description_with(fingerprint: Fingerprint | None, description: str = "") -> str:
    """A collection's description, to create it with, that ends in a line with the fingerprint."""
    if fingerprint is None:
        return description
    return f"{description}\n{_KEY}={json.dumps(fingerprint)}".lstrip("\n")


def record(client: MilvusClient, collection_name: str, fingerprint: Fingerprint | None) -> None:
    """Set the fingerprint as a property of a collection just created, where its description was not kept.

    milvus-lite 3 keeps none, as a file or as a server; milvus-lite 2 cannot alter properties.
    """
    if fingerprint is not None and recorded(client.describe_collection(collection_name)) is None:
        client.alter_collection_properties(collection_name, properties={_KEY: json.dumps(fingerprint)})


def check_encoder(
    description: dict[str, Any], uri: str, fingerprint: Fingerprint | None, *, allow_other_encoder: bool
) -> None:
    """Refuse an encoder that is not the one which the collection was made with.

    Args:
        description: Of the collection, as `MilvusClient.describe_collection` gives it.
        uri: Where it is. A collection without a fingerprint is warned of once in a process.
        fingerprint: The encoder's. None, for one that does not say, fits every collection.
        allow_other_encoder: Take it all the same.
    Raises:
        ValueError: The encoders differ. Both are named, with what they differ in.
    """
    if fingerprint is None or allow_other_encoder:
        return
    name = description["collection_name"]
    kept = recorded(description)
    if kept is None:
        if (uri, name) not in _warned:
            _warned.add((uri, name))
            logger.warning(
                "Collection %r does not say which encoder it was made with, so that %s cannot be checked against it. "
                "Collections made by this package do.", name, name_of(fingerprint, ["weights"]),
            )  # fmt: skip
        return
    if differing := differences(kept, fingerprint):
        raise ValueError(
            f"collection {name!r} must be used with the encoder that it was made with, "
            f"{name_of(kept, differing)}, got {name_of(fingerprint, differing)}. Load that one, index anew into "
            "another collection_name, or pass allow_other_encoder=True if their rows fit together."
        )


def recorded(description: dict[str, Any]) -> Fingerprint | None:
    """The fingerprint that a collection carries, if it does.

    Args:
        description: Of the collection, as `MilvusClient.describe_collection` gives it.
    """
    text = description.get("properties", {}).get(_KEY)
    if text is None:
        lines = description.get("description", "").splitlines()
        text = next((line.removeprefix(f"{_KEY}=") for line in lines if line.startswith(f"{_KEY}=")), None)
    return None if text is None else json.loads(text)
