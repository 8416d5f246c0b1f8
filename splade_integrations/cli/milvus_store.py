"""The Milvus collection that `splade index` fills and `splade search` queries.

The collection has the fields that our LangChain store also uses: pk, text, sparse and, if wanted, dense. Like that
store, it records the encoder's fingerprint: everything that decides the sparse vectors. So our LangChain store can open
the collection. This module depends on Milvus, but not on an encoder or a terminal.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from splade_integrations.dependencies import require_extra
from splade_integrations.fusion import Fusion
from splade_integrations.milvus.defaults import candidates, cut_text, document_terms
from splade_integrations.models.fingerprint import Fingerprint

with require_extra("milvus", module="splade index and search"):
    from pymilvus.exceptions import MilvusException as StoreError

    from splade_integrations.milvus.clients import Connection
    from splade_integrations.milvus.collection import Collection
    from splade_integrations.milvus.fingerprint import recorded
    from splade_integrations.milvus.rows import Row
    from splade_integrations.milvus.schema import Schema, Side

__all__ = ["Hit", "Store", "StoreError", "existing_store"]

_ID_BYTES = 512
_DENSE = "splade.dense_model"


@dataclass(frozen=True)
class Hit:
    """A document that a search found."""

    id: str
    score: float
    text: str


class Store:
    """A collection of documents.

    Args:
        uri: A milvus-lite file or a server.
        name: The collection's name.
        token: The server's token.
    Raises:
        OSError: The milvus-lite file cannot be opened.
    """

    def __init__(self, uri: str, name: str, token: str = "") -> None:
        self.uri, self.name = uri, name
        self._connection = Connection(uri, {"token": token})
        self._collection: Collection | None = None
        if self.exists():
            fields = {field["name"] for field in self._connection.client.describe_collection(name)["fields"]}
            schema = _schema(dense="dense" in fields, bm25="bm25" in fields)
            self._collection = Collection(name, schema, self._connection)

    def exists(self) -> bool:
        """Return whether the collection exists."""
        return bool(self._connection.client.has_collection(self.name))

    def fingerprint(self) -> Fingerprint | None:
        """Return the fingerprint of the encoder that made the sparse vectors, or None if it is not stored."""
        return recorded(self._opened().described())

    def dense_model(self) -> str | None:
        """Return the name of the model that made the dense vectors, or None if the collection does not name one."""
        return (self._opened().described().get("properties") or {}).get(_DENSE) or None

    @property
    def sides(self) -> tuple[Side, ...]:
        """The kinds of vectors that the collection has: "sparse", and perhaps "dense" and "bm25"."""
        return tuple(self._opened().schema.sides)

    @property
    def fusion(self) -> Fusion:
        """The fusion that the collection holds, or else reciprocal rank fusion of all its sides."""
        return self._opened().fusion

    def check_language(self, language: str | None) -> None:
        """Raise a ValueError if the collection's BM25 index is for another language."""
        fields = self._opened().fields
        if language is not None and fields is not None and fields.bm25_language not in (None, language):
            raise ValueError(
                f"the collection {self.name!r} must be continued with --language {fields.bm25_language}, got "
                f"{language}. Leave --language out, or start again with --replace."
            )

    def record_fusion(self, fusion: Fusion) -> None:
        """Store a fusion in the collection, for everyone who searches it."""
        self._opened().record_fusion(fusion)

    def facts(self) -> dict[str, Any]:
        """Return what the collection is: its documents, sides, encoder, dense model, fusion and segments."""
        collection, encoder = self._opened(), self.fingerprint()
        fields, indexes = collection.fields, collection.index_facts()
        segments = collection.segments()
        return {
            "collection": self.name,
            "engine": collection.engine.value,
            "documents": collection.count(),
            **{f"{side}_side": ", ".join(facts.values()) for side, facts in indexes.items()},
            "bm25_language": None if fields is None or "bm25" not in fields.sides else fields.bm25_language,
            "encoder": None if encoder is None else encoder.model,
            "dense_model": self.dense_model(),
            "fusion": str(self.fusion),
            "segments": "not told by milvus-lite" if segments is None else segments,
        }

    def create(
        self, fingerprint: Fingerprint, dense_model: str | None, dense_dim: int | None, bm25: str | None = None
    ) -> None:
        """Create the collection. An existing collection of this name is dropped first.

        Args:
            fingerprint: The fingerprint of the encoder that makes the sparse vectors.
            dense_model: The name of the model that makes the dense vectors, or None for no dense vectors.
            dense_dim: The dimension of the dense vectors, or None for no dense vectors.
            bm25: The language of the texts, for a BM25 index, or None for no BM25.
        Raises:
            ValueError: The name is an alias of another collection.
        """
        self._collection = Collection(
            self.name,
            _schema(dense=dense_dim is not None, bm25=bm25 is not None, language=bm25),
            self._connection,
            fingerprint=fingerprint,
            drop_old=True,
            create_options={"consistency_level": "Strong", "properties": {_DENSE: dense_model or ""}},
        )
        self._collection.create(dense_dim)

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that the collection already has."""
        return {hit.id for hit in self._opened().get(ids)}

    def add(
        self, ids: list[str], texts: list[str], sparse: list[dict[int, float]], dense: Iterable[Any] | None
    ) -> None:
        """Store documents, and replace stored documents with the same ids.

        Raises:
            ValueError: An id is too long.
        """
        for identifier in ids:
            if len(identifier.encode("utf-8", "replace")) > _ID_BYTES:
                raise ValueError(f"an id must have at most {_ID_BYTES} bytes, got {identifier[:40]!r}… Shorten it.")
        vectors = [None] * len(ids) if dense is None else list(dense)
        rows = [
            Row(id=identifier, text=cut_text(text), sparse=document_terms(terms, text), dense=vector)
            for identifier, text, terms, vector in zip(ids, texts, sparse, vectors, strict=True)
        ]
        self._opened().write(rows, flush=False)

    def finish(self) -> None:
        """Flush a milvus-lite file, so that new documents are quick to search. A server flushes by itself."""
        if self._connection.lite:
            self._opened().flush()

    def search(self, queries: Mapping[Side, Any], fusion: Fusion, k: int, expr: str) -> list[Hit]:
        """Return the best `k` documents.

        Args:
            queries: {side: its query} for the sides of the fusion: a vector for "dense", {token id: weight} for
                "sparse", and the text for "bm25".
            fusion: How the hits of the sides are fused.
            k: The largest number of documents to return.
            expr: A Milvus filter expression, or "" for no filter.
        """
        found = self._opened().search(queries, k=k, ranker=fusion, filter=expr)
        return [Hit(hit.id, hit.score, hit.text) for hit in found]

    def stored_rows(self, ids: Sequence[str], dim: int) -> csr_array:
        """Return the sparse vectors of documents, (N, dim). `dim` is the size of the vocabulary."""
        found = {hit.id: hit.sparse or {} for hit in self._opened().get(ids, with_sparse=True)}
        rows = [found.get(key, {}) for key in ids]
        terms, weights = ([value for row in rows for value in part(row)] for part in (dict.keys, dict.values))
        starts = np.cumsum([0, *map(len, rows)])
        return csr_array((np.array(weights, np.float32), np.array(terms, np.int64), starts), (len(rows), dim))

    def places(
        self, queries: Mapping[Side, Any], ids: Sequence[str], fusion: Fusion, k: int, expr: str
    ) -> list[dict[str, Any]]:
        """Return {side: {rank, score}} for each document, or {side: None} if the fused hits of the side lack it."""
        depth = max(fusion.depth or candidates(k), k)
        ranked = {side: self.rank(side, [query], depth, expr)[0] for side, query in queries.items()}
        found = {
            side: {hit.id: {"rank": rank, "score": hit.score} for rank, hit in enumerate(hits, start=1)}
            for side, hits in ranked.items()
        }
        return [{side: of_side.get(key) for side, of_side in found.items()} for key in ids]

    def rank(self, side: Side, queries: Sequence[Any], depth: int, expr: str = "") -> list[list[Hit]]:
        """Return the best `depth` documents of one side for each query, without their texts."""
        asked = [{side: query} for query in queries]
        found = self._opened().search_many(asked, k=depth, filter=expr, ids_only=True)
        return [[Hit(hit.id, hit.score, "") for hit in hits] for hits in found]

    def close(self) -> None:
        """Close the connection."""
        self._connection.client.close()

    def _opened(self) -> Collection:
        assert self._collection is not None  # the commands first check that the collection exists, or create it
        return self._collection


@contextmanager
def existing_store(uri: str, name: str, token: str) -> Iterator[Store]:
    """Open a collection that must exist, and close it at the end. The arguments are those of `Store`.

    Raises:
        ValueError: The collection does not exist.
    """
    with closing(Store(uri, name, token)) as store:
        if not store.exists():
            raise ValueError(f"the collection {name!r} must be in {uri}, but it is not. Make it with: splade index.")
        yield store


def _schema(*, dense: bool, bm25: bool, language: str | None = None) -> Schema:
    return Schema(
        dense_field="dense" if dense else None,
        bm25_field="bm25" if bm25 else None,
        bm25_analyzer=language,
        primary_max_length=_ID_BYTES,
    )
