"""Re-index a collection with another model, and switch a running service over to it.

    python examples/reindex_behind_alias.py

The service opens its collection by an alias. While the service uses the old collection, this script fills a new
collection. Then it moves the alias and drops the old collection. Milvus moves an alias in one step, so each search
reads either the old or the new collection. No collection ever holds the weights of two models. Aliases work on servers
and on milvus-lite 3.2.2, but not on milvus-lite 2.5.1.
"""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from dense import MiniLM
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from pymilvus import MilvusClient

from splade_integrations import SpladeEncoder
from splade_integrations.langchain import HybridMilvus, SpladeSparseEmbedding, hybrid_milvus
from splade_integrations.models.offline import splade_model_path

__all__ = ["reindex_behind_alias"]


def reindex_behind_alias(
    client: MilvusClient, alias: str, new_collection: str, fill: Callable[[str], object], *, drop_old: bool = True
) -> None:
    """Fill a new collection, then move `alias` to it.

    Args:
        client: A client of the database.
        alias: The name that services open. If the alias does not exist, it is created.
        new_collection: The name of the collection to create, such as `docs_2`.
        fill: A function that is called with the name of the new collection. It creates this collection and adds all
            documents. If it raises an error, the new collection is dropped and the alias does not move.
        drop_old: Drop the old collection. False keeps it, so that you can switch back.
    Raises:
        ValueError: `new_collection` already exists, or `alias` is the name of a collection.
    """
    if client.has_collection(new_collection):
        raise ValueError(
            f"new_collection must be a new name, got {new_collection!r}, which already exists. Choose another name."
        )
    old = _named_by(client, alias)
    if old is None and client.has_collection(alias):
        raise ValueError(
            f"alias must not be the name of a collection, got {alias!r}. Choose another name for the alias, and let "
            "services open that name."
        )
    try:
        fill(new_collection)
    except BaseException:
        if client.has_collection(new_collection):
            client.drop_collection(new_collection)
        raise
    if old is None:
        client.create_alias(new_collection, alias)
    else:
        client.alter_alias(new_collection, alias)
        if drop_old:
            client.drop_collection(old)


def _named_by(client: MilvusClient, alias: str) -> str | None:
    for collection in client.list_collections():
        if alias in client.list_aliases(collection)["aliases"]:
            return str(collection)
    return None


class Dense(MiniLM, Embeddings):
    """The dense model as one of LangChain's embeddings."""


def main(uri: str) -> None:
    """Index with an encoder that cuts texts at 16 tokens, then with one that cuts at 256. Search by the alias."""
    dense, name = Dense(), "docs"
    documents = [
        Document("Alan Turing broke the Enigma cipher.", id="turing"),
        Document("Grace Hopper made the first compiler.", id="hopper"),
    ]

    def store(collection: str, max_length: int) -> HybridMilvus:
        encoder = SpladeEncoder(splade_model_path(), max_length=max_length)  # the new encoder may have another model
        return hybrid_milvus(dense, SpladeSparseEmbedding(encoder=encoder), uri=uri, collection_name=collection)

    def filler(max_length: int, texts: Iterable[Document]) -> Callable[[str], object]:
        return lambda collection: store(collection, max_length).add_documents(list(texts))

    client = MilvusClient(uri)
    reindex_behind_alias(client, name, "docs_1", filler(16, documents))
    print("first: ", [found.id for found in store(name, 16).similarity_search("Who cracked Enigma?", k=1)])
    documents.append(Document("Bletchley Park read Enigma messages.", id="bletchley"))
    reindex_behind_alias(client, name, "docs_2", filler(256, documents))
    print("second:", [found.id for found in store(name, 256).similarity_search("Bletchley Park", k=1)])
    print("collections:", client.list_collections())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(str(Path(folder) / "alias.db"))
