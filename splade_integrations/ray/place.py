"""Describes a Milvus collection to Ray's workers, so that each worker can open the collection itself."""

from dataclasses import dataclass, field

from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.schema import Schema

__all__ = ["Place"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a process needs to open a collection.

    Args:
        uri: The address of a server. A milvus-lite file can be opened by only one process, which then serves the file
            to other processes. For such a file, `uri` is the address of that process.
        name: The collection's name.
        schema: The collection's fields.
        token: The server's token.
        db_name: The server's database.
    """

    uri: str
    name: str
    schema: Schema
    token: str = field(default="", repr=False)
    db_name: str = ""

    def open(self) -> Collection:
        """Open the collection, which must exist."""
        connection = Connection(self.uri, {"token": self.token, "db_name": self.db_name})
        return Collection(self.name, self.schema, connection)
