"""A Milvus collection with dense embeddings, SPLADE embeddings and Milvus's own BM25, which it searches and fuses."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from splade_integrations.dependencies import require_extra
from splade_integrations.evaluation.ranking import Ranking, blocks
from splade_integrations.milvus.clients import open_client
from splade_integrations.milvus.defaults import MAX_TEXT_BYTES, RRF_K
from splade_integrations.milvus.settings import (
    cut_text,
    dense_index,
    is_lite,
    searchable,
    sparse_index,
    storable,
)
from splade_integrations.sparse import to_dicts

with require_extra("milvus", module=__name__):
    from pymilvus import AnnSearchRequest, DataType, Function, FunctionType, RRFRanker
    from pymilvus.exceptions import MilvusException

__all__ = ["MilvusCollection", "bm25_analyzer"]

_ROWS_AT_ONCE = 1000
_QUERIES_AT_ONCE = 50
# Searches name this field because milvus-lite's hybrid search would otherwise return every field of every hit, vectors
# included. That would take minutes for 300 queries of depth 1 000.
_ROW_ALONE = ["row"]
_BM25 = {"metric_type": "BM25", "params": {}}


def bm25_analyzer(uri: str) -> dict[str, Any]:
    """Return the settings by which Milvus's BM25 function splits text into words.

    A server's "english" analyzer stems words and drops stop words. milvus-lite 3.2 splits on non-word characters and
    lowercases. It silently ignores every filter except literal stop words.
    """
    return {"tokenizer": "standard"} if is_lite(uri) else {"type": "english"}


class MilvusCollection:
    """A new collection of documents with up to three searchable fields. The primary key is the row in the corpus.

    Args:
        uri: A milvus-lite file or a server.
        name: The name of the collection. An existing collection of this name is replaced.
        texts: The texts for Milvus's BM25 function, which are cut at 65 535 bytes.
        dense: Dense embeddings, (N, H), or None for no dense field.
        sparse: Sparse embeddings, (N, V), or None for no SPLADE field. A document without terms is stored, but SPLADE
            never finds it.
        report: Called with the number of documents stored since the last call.
        token: The server's token.
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
    ) -> None:
        self._client = open_client(uri=uri, token=token)
        self._name = name
        self._params: dict[str, dict[str, Any]] = {}
        if dense is not None:
            self._params["dense"] = {"metric_type": dense_index(uri)["metric_type"], "params": {}}
        if sparse is not None:
            self._params["SPLADE"] = {"metric_type": sparse_index(uri)["metric_type"], "params": {}}
        self.bm25_refused = ""
        try:
            self._create(uri, dense, bm25=True)
            self._params["BM25"] = _BM25
        except MilvusException as err:  # this store has no BM25 function
            self.bm25_refused = str(err.message)
            self._create(uri, dense, bm25=False)
        try:
            self._fill(texts, dense, sparse, report)
        except BaseException:  # otherwise a server would keep a half-filled collection
            self.close()
            raise

    def _fill(
        self,
        texts: list[str],
        dense: NDArray[np.float32] | None,
        sparse: csr_array | None,
        report: Callable[[int], object],
    ) -> None:
        for block in blocks(len(texts), _ROWS_AT_ONCE):
            rows: list[dict[str, Any]] = [{"row": row} for row in range(block.start, block.stop)]
            if dense is not None:
                for row, vector in zip(rows, dense[block], strict=True):
                    row["dense"] = vector
            if sparse is not None:
                for row, terms in zip(rows, to_dicts(sparse[block]), strict=True):
                    row["SPLADE"] = storable(terms)
            if not self.bm25_refused:
                for row, text in zip(rows, texts[block], strict=True):
                    row["text"] = cut_text(text)
            self._client.insert(self._name, rows)
            report(len(rows))
        self._client.flush(self._name)  # without this, milvus-lite indexes the new rows again for each query

    @property
    def retrievers(self) -> list[str]:
        """The names of the retrievers that this collection has, among dense, SPLADE and BM25."""
        return list(self._params)

    def search(self, retriever: str, queries: Any, depth: int) -> list[Ranking]:
        """Return the rankings of one retriever. Queries are texts for BM25 and embeddings for the other retrievers."""
        found = []
        for block in blocks(_count(queries), _QUERIES_AT_ONCE):
            data = _search_data(retriever, queries[block])
            hits = self._client.search(
                self._name,
                data,
                anns_field=_field(retriever),
                search_params=self._params[retriever],
                limit=depth,
                output_fields=_ROW_ALONE,
            )
            found += _rankings(hits)
        return found

    def fuse(self, queries: dict[str, Any], candidates: int, depth: int) -> list[Ranking]:
        """Return Milvus's reciprocal rank fusion of several retrievers.

        Args:
            queries: {retriever: queries as `search` takes them}.
            candidates: The number of each retriever's hits that are fused.
            depth: The largest number of hits of a ranking.
        """
        found = []
        for block in blocks(_count(next(iter(queries.values()))), _QUERIES_AT_ONCE):
            requests = [
                AnnSearchRequest(
                    data=_search_data(retriever, encoded[block]),
                    anns_field=_field(retriever),
                    param=self._params[retriever],
                    limit=candidates,
                )
                for retriever, encoded in queries.items()
            ]
            hits = self._client.hybrid_search(
                self._name, requests, RRFRanker(RRF_K), limit=depth, output_fields=_ROW_ALONE
            )
            found += _rankings(hits)
        return found

    def close(self) -> None:
        """Drop the collection and close the connection."""
        if self._client.has_collection(self._name):
            self._client.drop_collection(self._name)  # milvus-lite keeps the open file in memory until the process ends
        self._client.close()

    def _create(self, uri: str, dense: NDArray[np.float32] | None, *, bm25: bool) -> None:
        client = self._client
        if client.has_collection(self._name):
            client.drop_collection(self._name)
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", DataType.INT64, is_primary=True)
        indexes = client.prepare_index_params()
        if dense is not None:
            schema.add_field("dense", DataType.FLOAT_VECTOR, dim=dense.shape[1])
            indexes.add_index("dense", **dense_index(uri))
        if "SPLADE" in self._params:
            schema.add_field("SPLADE", DataType.SPARSE_FLOAT_VECTOR)
            indexes.add_index("SPLADE", **sparse_index(uri))
        if bm25:
            analyzer = bm25_analyzer(uri)
            schema.add_field(
                "text", DataType.VARCHAR, max_length=MAX_TEXT_BYTES, enable_analyzer=True, analyzer_params=analyzer
            )
            schema.add_field("bm25", DataType.SPARSE_FLOAT_VECTOR)
            schema.add_function(
                Function(
                    name="bm25",
                    function_type=FunctionType.BM25,
                    input_field_names=["text"],
                    output_field_names=["bm25"],
                )
            )
            indexes.add_index("bm25", **(sparse_index(uri) | {"metric_type": "BM25"}))
        client.create_collection(self._name, schema=schema, consistency_level="Strong")
        client.create_index(self._name, indexes, sync=False)  # sync=True needs an RPC that milvus-lite lacks
        client.load_collection(self._name)  # on a server, this waits for the index


def _field(retriever: str) -> str:
    return "bm25" if retriever.startswith("BM25") else retriever


def _count(queries: Any) -> int:
    return queries.shape[0] if hasattr(queries, "shape") else len(queries)


def _search_data(retriever: str, queries: Any) -> Sequence[Any]:
    if retriever == "SPLADE":
        return [searchable(row) for row in to_dicts(queries)]
    return list(queries)


def _rankings(hits: Any) -> list[Ranking]:
    return [
        Ranking([hit["row"] for hit in found], _falling([float(hit["distance"]) for hit in found])) for found in hits
    ]


def _falling(distances: list[float]) -> list[float]:
    """Return the scores, best first. milvus-lite 3.2 returns the scores of its BM25 function with the sign flipped."""
    return [-distance for distance in distances] if distances and distances[0] < distances[-1] else distances
