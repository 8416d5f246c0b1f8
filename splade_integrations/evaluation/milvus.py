"""A Milvus collection that searches and fuses dense embeddings, SPLADE embeddings and Milvus's BM25 vectors."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from splade_integrations.dependencies import require_extra
from splade_integrations.evaluation.ranking import Ranking, blocks
from splade_integrations.milvus.defaults import cut_text, document_terms
from splade_integrations.milvus.interrupted import clean_up
from splade_integrations.sparse import to_dicts

with require_extra("milvus", module=__name__):
    from pymilvus.exceptions import MilvusException

    from splade_integrations.milvus.bm25 import ENGLISH, analyzer_params
    from splade_integrations.milvus.clients import Connection
    from splade_integrations.milvus.collection import Collection
    from splade_integrations.milvus.rows import Hit, Row
    from splade_integrations.milvus.schema import Schema

__all__ = ["MilvusCollection"]

_ROWS_AT_ONCE = 1000
# {retriever: its side in a `Collection`}. A side is one kind of vector.
_SIDES = {"dense": "dense", "SPLADE": "sparse", "BM25": "bm25"}


class MilvusCollection:
    """A new collection of documents with up to three searchable fields. Primary keys are the documents' row numbers.

    Args:
        uri: A milvus-lite file or a server.
        name: The name of the collection. An existing collection of this name is replaced.
        texts: The texts for Milvus's BM25 function. Each text is cut at 65 535 bytes.
        dense: Dense embeddings, (N, H), or None for no dense field.
        sparse: Sparse embeddings, (N, V), or None for no SPLADE field. A document without terms is stored, but a search
            by SPLADE never finds it.
        report: Called with the number of documents stored since its last call.
        token: The server's token.
        db_name: The server's database. "" is its default database.
    """

    def __init__(
        self,
        uri: str,
        name: str,
        texts: list[str],
        dense: NDArray[np.float32] | None,
        sparse: csr_array | None,
        report: Callable[[int], object] = lambda _: None,
        *,
        token: str = "",
        db_name: str = "",
    ) -> None:
        self._connection = Connection(uri, {"token": token, "db_name": db_name})
        self._has = [name for name, made in (("dense", dense), ("SPLADE", sparse)) if made is not None]
        width = None if dense is None else dense.shape[1]
        self.bm25_refused = ""
        try:
            self._collection = self._create(name, width, bm25=True)
        except MilvusException as err:  # most likely, this store has no BM25 function
            self.bm25_refused = str(err.message)
            self._collection = self._create(name, width, bm25=False)
        try:
            self._fill(texts, dense, sparse, report)
        except BaseException:  # otherwise a server would keep a half-filled collection
            self.close()
            raise

    def _create(self, name: str, width: int | None, *, bm25: bool) -> Collection:
        schema = Schema(
            number_ids=True,  # so that Milvus orders equal scores by row number
            dense_field="dense" if "dense" in self._has else None,
            sparse_field="sparse" if "SPLADE" in self._has else None,
            bm25_field="bm25" if bm25 else None,
            metadata_field=None,
            dynamic=False,
        )
        options = {"consistency_level": "Strong"}
        collection = Collection(name, schema, self._connection, drop_old=True, create_options=options)
        collection.create(width)
        return collection

    def _fill(
        self,
        texts: list[str],
        dense: NDArray[np.float32] | None,
        sparse: csr_array | None,
        report: Callable[[int], object],
    ) -> None:
        for block in blocks(len(texts), _ROWS_AT_ONCE):
            none = [None] * (block.stop - block.start)
            terms = none if sparse is None else [document_terms(row, "a text") for row in to_dicts(sparse[block])]
            vectors = none if dense is None else dense[block]
            rows = [
                Row(id=str(row), text=cut_text(text), dense=vector, sparse=of_text)
                for row, text, vector, of_text in zip(
                    range(block.start, block.stop), texts[block], vectors, terms, strict=True
                )
            ]
            self._collection.write(rows, batch_size=_ROWS_AT_ONCE, flush=False)
            report(len(rows))
        self._collection.flush()  # without this, milvus-lite would index the rows again for each query

    @property
    def analyzer(self) -> dict[str, Any]:
        """The analyzer with which Milvus's BM25 function splits text into words."""
        return analyzer_params(ENGLISH, self._connection.engine)

    @property
    def retrievers(self) -> list[str]:
        """The names of the retrievers that the collection has: some or all of dense, SPLADE and BM25."""
        return [*self._has, *([] if self.bm25_refused else ["BM25"])]

    def search(self, retriever: str, queries: Any, depth: int) -> list[Ranking]:
        """Return the rankings of one retriever. Queries are texts for BM25, and embeddings for the other retrievers."""
        return self.fuse({retriever: queries}, depth, depth)

    def fuse(self, queries: dict[str, Any], candidates: int, depth: int) -> list[Ranking]:
        """Fuse several retrievers by reciprocal rank in Milvus. For one retriever, return its own rankings.

        Args:
            queries: {retriever: its queries, in the form that `search` accepts}.
            candidates: The number of hits of each retriever that are fused.
            depth: The largest number of hits in a ranking.
        """
        rows = {_side(retriever): _rows(retriever, encoded) for retriever, encoded in queries.items()}
        asked = [dict(zip(rows, query, strict=True)) for query in zip(*rows.values(), strict=True)]
        found = self._collection.search_many(asked, k=depth, depth=candidates, ids_only=True)
        return [_ranking(hits) for hits in found]

    def close(self) -> None:
        """Drop the collection and close the connection."""
        # milvus-lite keeps an opened file in memory until the process ends, even after the connection is closed.
        # Dropping the collection frees the memory.
        clean_up(self._collection.drop)
        self._collection.close()


def _side(retriever: str) -> str:
    return _SIDES["BM25" if retriever.startswith("BM25") else retriever]


def _rows(retriever: str, queries: Any) -> Sequence[Any]:
    return to_dicts(queries) if retriever == "SPLADE" else list(queries)


def _ranking(hits: Sequence[Hit]) -> Ranking:
    return Ranking([int(hit.id) for hit in hits], [hit.score for hit in hits])
