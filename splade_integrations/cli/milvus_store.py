"""The Milvus collection that `splade index` fills and `splade search` queries.

A collection of `splade index` has the fields id, text, sparse and metadata. It can also have the fields dense and bm25.
It records the encoder's fingerprint, which describes everything that determines the sparse vectors. Our stores for
LangChain and LlamaIndex record such a fingerprint in the same way, so they can open the collection. The commands also
open the collections of other packages. This module depends on Milvus, but not on an encoder or a terminal.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array

from splade_integrations.cli.filters import with_primary
from splade_integrations.dependencies import require_extra
from splade_integrations.fusion import Fusion
from splade_integrations.milvus.defaults import CONTENT_COLUMN, DOCUMENT_COLUMN, candidates, cut_text, document_terms
from splade_integrations.models.fingerprint import Fingerprint
from splade_integrations.records import Record

with require_extra("milvus", module="splade index and search"):
    from pymilvus.exceptions import MilvusException as StoreError

    from splade_integrations.milvus.clients import Connection
    from splade_integrations.milvus.collection import Collection
    from splade_integrations.milvus.existing import schema_of
    from splade_integrations.milvus.filters import Engine
    from splade_integrations.milvus.fingerprint import recorded
    from splade_integrations.milvus.lite import address_for_processes
    from splade_integrations.milvus.opening import check_no_alias, complete_creation
    from splade_integrations.milvus.rows import Row
    from splade_integrations.milvus.schema import Column, Schema, Side

if TYPE_CHECKING:
    from splade_integrations.ray.place import Place

__all__ = ["Hit", "Store", "StoreError", "existing_store"]

# The keys of two properties of a collection. Users' collections already hold these keys, so they must never change.
_DENSE = "splade.dense_model"
_SETTINGS = "splade.index"


@dataclass(frozen=True)
class Hit:
    """A document that a search found."""

    id: str
    score: float
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Store:
    """A collection of documents.

    Args:
        uri: A milvus-lite file or a server.
        name: The collection's name.
        token: The server's token.
        db_name: The server's database. "" means the default database.
        fields: The fields that the option --fields states for an existing collection, as {argument of `Schema`: name
            of a field}.
    Raises:
        OSError: The milvus-lite file cannot be opened.
        ValueError: `db_name` is given with milvus-lite 2, which has no databases.
    """

    def __init__(
        self, uri: str, name: str, token: str = "", db_name: str = "", fields: Mapping[str, str] | None = None
    ) -> None:
        self.uri, self.name, self._named = uri, name, fields
        self._token, self._db_name = token, db_name
        self._connection = Connection(uri, {"token": token, "db_name": db_name})
        if db_name and self._connection.engine is Engine.LITE2:
            raise ValueError(
                f"--db-name needs milvus-lite 3 or a server, got {db_name!r} with milvus-lite 2, which has no "
                "databases. Leave --db-name out, or use another file."
            )
        self._collection: Collection | None = None

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
        """The fusion that the collection stores. If it stores none, reciprocal rank fusion of all kinds of vectors."""
        return self._opened().fusion

    def check_language(self, language: str | None) -> None:
        """Raise a ValueError if the collection's BM25 index is for another language."""
        fields = self._opened().fields
        if language is not None and fields is not None and fields.bm25_language not in (None, language):
            raise ValueError(
                f"the collection {self.name!r} must be continued with --language {fields.bm25_language}, got "
                f"{language}. Leave --language out, or start again with --replace."
            )

    def settings(self) -> dict[str, Any]:
        """Return the settings that the collection was created with, or {} if they are not stored."""
        found = (self._opened().described().get("properties") or {}).get(_SETTINGS)
        return dict(json.loads(found)) if found else {}

    def record_fusion(self, fusion: Fusion) -> None:
        """Store a fusion in the collection, for everyone who searches it."""
        self._opened().record_fusion(fusion)

    def facts(self) -> dict[str, Any]:
        """Return facts such as the number of documents, the kinds of vectors, the encoder and the fusion."""
        collection, encoder = self._opened(), self.fingerprint()
        fields, indexes = collection.fields, collection.index_facts()
        segments = collection.segments()
        return {
            "collection": self.name,
            "engine": collection.engine.value,
            "documents": collection.count(),
            "text_field": collection.schema.text_field,
            **{f"{side}_side": self._side(side, facts) for side, facts in indexes.items()},
            "bm25_language": None if fields is None or "bm25" not in fields.sides else fields.bm25_language,
            "encoder": None if encoder is None else encoder.model,
            "dense_model": self.dense_model(),
            "fusion": str(self.fusion),
            "segments": "not reported by milvus-lite" if segments is None else segments,
        }

    def _side(self, side: Side, index: Mapping[str, Any]) -> str:
        return f"{', '.join(index.values())}, in the field {self._opened().schema.sides[side]!r}"

    def create(
        self,
        fingerprint: Fingerprint,
        dense_model: str | None,
        dense_dim: int | None,
        bm25: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Create the collection. An existing collection of this name is dropped first.

        Args:
            fingerprint: The fingerprint of the encoder that makes the sparse vectors.
            dense_model: The name of the model that makes the dense vectors, or None for no dense vectors.
            dense_dim: The dimension of the dense vectors, or None for no dense vectors.
            bm25: The language of the texts, for a BM25 index, or None for no BM25 index.
            settings: {option: a value that JSON can hold} for options that a run with --resume must repeat.
        Raises:
            ValueError: The name is an alias of another collection.
        """
        self._collection = Collection(
            self.name,
            _new_schema(self._connection.engine, dense=dense_dim is not None, bm25=bm25),
            self._connection,
            fingerprint=fingerprint,
            drop_old=True,
            create_options={
                "consistency_level": "Strong",
                "properties": {_DENSE: dense_model or "", _SETTINGS: json.dumps(settings or {})},
            },
        )
        self._collection.create(dense_dim)

    def complete(self, fingerprint: Fingerprint) -> None:
        """Finish the creation of a collection if `splade index` was killed before it wrote documents.

        Args:
            fingerprint: The fingerprint of the encoder that this run uses.
        """
        description = self._connection.client.describe_collection(self.name)
        if _SETTINGS in (description.get("properties") or {}):
            complete_creation(self._connection, self.name, schema_of(description), fingerprint)

    def drop(self) -> None:
        """Delete the collection."""
        self._opened().drop()

    def check_name(self) -> None:
        """Raise a ValueError if the name is an alias, because a collection must not be dropped through an alias."""
        check_no_alias(self.name, self._connection.client.describe_collection(self.name))

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that the collection already has."""
        return {hit.id for hit in self._opened().get(ids)}

    def add(self, records: Sequence[Record], sparse: list[dict[int, float]], dense: Iterable[Any] | None) -> None:
        """Store documents, and replace stored documents with the same ids. A text that is too long for Milvus is cut.

        Raises:
            ValueError: An id is too long, or a server's collection cannot hold the metadata.
        """
        vectors = [None] * len(records) if dense is None else list(dense)
        fields = self._opened().fields
        has_documents = fields is not None and DOCUMENT_COLUMN in fields.columns
        rows = [
            Row(
                id=record.id,
                text=cut_text(record.text),
                metadata=record.metadata,
                sparse=document_terms(terms, record.text),
                dense=vector,
                columns={DOCUMENT_COLUMN: record.document or record.id} if has_documents else {},
            )
            for record, terms, vector in zip(records, sparse, vectors, strict=True)
        ]
        self._opened().write(rows, flush=False)

    def place(self) -> "Place":
        """Return what other processes of this machine need to open the collection."""
        from splade_integrations.ray.place import Place

        address = address_for_processes(self.uri)
        return Place(
            uri=address, name=self.name, schema=self._opened().schema, token=self._token, db_name=self._db_name
        )

    def finish(self) -> None:
        """Flush a milvus-lite file, so that new documents are quick to search. A server flushes by itself."""
        if self._connection.lite:
            self._opened().flush()

    def search(self, queries: Mapping[Side, Any], fusion: Fusion, k: int, expr: str) -> list[Hit]:
        """Return the best `k` documents.

        Args:
            queries: {side: the query} for each side of the fusion. A side is a kind of vector. The query is a vector
                for "dense", a dict {token id: weight} for "sparse", and a text for "bm25".
            fusion: How the hits of the sides are fused.
            k: The largest number of documents to return.
            expr: A Milvus filter expression, or "" for no filter. In the filter, `id` is the document's id.
        """
        found = self._opened().search(queries, k=k, ranker=fusion, filter=self._filter(expr))
        return [Hit(hit.id, hit.score, hit.text, hit.metadata) for hit in found]

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
        """Return, for each document, its rank and score on each side (kind of vector), as {side: {rank, score}}.

        If a document is not among the hits that a side gives to the fusion, the value for this side is None.
        """
        depth = max(fusion.depth or candidates(k), k)
        ranked = {side: self.rank(side, [query], depth, expr)[0] for side, query in queries.items()}
        found = {
            side: {hit.id: {"rank": rank, "score": hit.score} for rank, hit in enumerate(hits, start=1)}
            for side, hits in ranked.items()
        }
        return [{side: of_side.get(key) for side, of_side in found.items()} for key in ids]

    def rank(self, side: Side, queries: Sequence[Any], depth: int, expr: str = "") -> list[list[Hit]]:
        """Return, for each query, the best `depth` documents of one side (kind of vector), without their texts."""
        asked = [{side: query} for query in queries]
        found = self._opened().search_many(asked, k=depth, filter=self._filter(expr), ids_only=True)
        return [[Hit(hit.id, hit.score, "") for hit in hits] for hits in found]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _opened(self) -> Collection:
        """Return the collection. It exists, because each command checks this first, or creates the collection."""
        if self._collection is None:
            description = self._connection.client.describe_collection(self.name)
            self._collection = Collection(self.name, schema_of(description, self._named, "--fields"), self._connection)
        return self._collection

    def _filter(self, expr: str) -> str:
        fields = self._opened().fields
        return expr if fields is None else with_primary(expr, fields.primary, fields.names)


@contextmanager
def existing_store(
    uri: str, name: str, token: str, db_name: str = "", fields: Mapping[str, str] | None = None
) -> Iterator[Store]:
    """Open a collection that must exist, and close it at the end. The arguments are those of `Store`.

    Raises:
        ValueError: The collection does not exist.
    """
    with closing(Store(uri, name, token, db_name, fields)) as store:
        if not store.exists():
            place = f"the database {db_name!r} of {uri}" if db_name else uri
            raise ValueError(f"the collection {name!r} must be in {place}, but it is not. Make it with: splade index.")
        yield store


def _new_schema(engine: Engine, *, dense: bool, bm25: str | None) -> Schema:
    """Return the schema of a new collection. `bm25` is the language of the texts, or None for no BM25 index."""
    # These columns are for LlamaIndex's nodes. milvus-lite 2 has no nullable fields, so there each document would need
    # values for these columns. Stores that do not know the columns could then not add a document. So on milvus-lite 2,
    # a collection does not get these columns.
    for_nodes = {} if engine is Engine.LITE2 else {DOCUMENT_COLUMN: Column(index=True), CONTENT_COLUMN: Column()}
    return Schema(
        primary_field="id",
        dense_field="dense" if dense else None,
        bm25_field=None if bm25 is None else "bm25",
        bm25_analyzer=bm25,
        columns=for_nodes,
    )
