"""Store a fusion in a Milvus collection, so that every store and command that opens the collection uses this fusion.

A fusion says how the hits of several sides (kinds of vectors) are combined into one ranking.
"""

import json
from collections.abc import Mapping
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.fusion import Fusion

with require_extra("milvus", module=__name__):
    from pymilvus import MilvusClient

__all__ = ["recorded_fusion", "without_fusion", "write_fusion"]

# Users' collections hold this key, so it must never change.
_KEY = "splade_integrations.fusion"


def write_fusion(client: MilvusClient, collection_name: str, fusion: Fusion | None, *, timeout: float | None) -> None:
    """Set a fusion as a property of a collection, or remove it.

    Args:
        client: The client.
        collection_name: The collection's name.
        fusion: The fusion. None removes the stored fusion. All sides are then fused by reciprocal rank again.
        timeout: The time limit for the call, in seconds.
    """
    text = "" if fusion is None else json.dumps(fusion.to_dict())
    client.alter_collection_properties(collection_name, properties={_KEY: text}, timeout=timeout)


def recorded_fusion(description: Mapping[str, Any]) -> Fusion | None:
    """Return the fusion that a collection holds, or None.

    Args:
        description: The collection's description, as `MilvusClient.describe_collection` returns it.
    """
    text = description.get("properties", {}).get(_KEY)
    return Fusion.from_dict(json.loads(text)) if text else None


def without_fusion(properties: Mapping[str, str]) -> dict[str, str]:
    """Return the properties of a collection without the fusion."""
    return {key: value for key, value in properties.items() if key != _KEY}
