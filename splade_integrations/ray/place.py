"""Names a collection in a form that can be sent to Ray's workers, which then open it themselves."""

from dataclasses import dataclass, field

from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.schema import Schema

__all__ = ["Place"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A collection.

    Args:
        uri: The address of a server. Several processes cannot open one milvus-lite file. So for a file, this is the
            address at which the process that has opened the file serves it.
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
