"""The search methods of LangChain's `VectorStore`, for a store that keeps its documents in a Milvus collection."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from splade_integrations.langchain.requests import Asked, translate
from splade_integrations.langchain.retriever import HybridRetriever
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.defaults import query_terms
from splade_integrations.milvus.rows import Hit
from splade_integrations.milvus.schema import Side

__all__ = ["Scored", "Searching", "as_document"]

Scored = list[tuple[Document, float]]


class Searching(VectorStore):
    """The part of `HybridMilvus` that searches."""

    collection: Collection
    _embeddings: dict[Side, Any]

    def similarity_search_with_score(self, query: str, k: int = 4, *args: Any, **kwargs: Any) -> Scored:
        """Return the `k` best documents with their scores.

        A side is one kind of vector: dense, sparse or BM25. If a search uses several sides, it fuses their hits, and
        returns the scores of the fused ranking. If a search uses only one side, it returns the scores of that side.

        Args:
            query: The question.
            k: The largest number of documents to return.
            *args: `param`, `expr` and `timeout`, if they are given by position.
            **kwargs: param, expr, timeout, filter, mode, fetch_k, fusion, reranker, ranker_type, ranker_params,
                group_by and partition_names, which `langchain.requests.translate` describes. Also options of
                `MilvusClient.search`: consistency_level, offset, round_decimal, …
        Raises:
            TypeError: A keyword is unknown.
        """
        asked = self._asked(k, *args, **kwargs)
        return _scored(self.collection.search(self._queries(query, asked.sides), **asked.how))

    async def asimilarity_search_with_score(self, query: str, k: int = 4, *args: Any, **kwargs: Any) -> Scored:
        """Search like `similarity_search_with_score`. The dense and the sparse embedding run at the same time."""
        asked = self._asked(k, *args, **kwargs)
        return _scored(await self.collection.asearch(await self._aqueries(query, asked.sides), **asked.how))

    def similarity_search(self, query: str, k: int = 4, *args: Any, **kwargs: Any) -> list[Document]:
        """Return the `k` best documents. See `similarity_search_with_score` for the arguments."""
        return _unscored(self.similarity_search_with_score(query, k, *args, **kwargs))

    async def asimilarity_search(self, query: str, k: int = 4, *args: Any, **kwargs: Any) -> list[Document]:
        """Search like `similarity_search`."""
        return _unscored(await self.asimilarity_search_with_score(query, k, *args, **kwargs))

    def similarity_search_many(
        self, queries: Sequence[str], k: int = 4, *args: Any, **kwargs: Any
    ) -> list[list[Document]]:
        """Return the `k` best documents for each of N queries. All queries are sent to Milvus in one request.

        A `SpladeSparseEmbedding` encodes all queries together. This takes much less time than encoding one query after
        another. `as_retriever().batch` calls this method.

        Args:
            queries: N questions.
            k: The largest number of documents for each question.
            *args: The same as for `similarity_search_with_score`.
            **kwargs: The keywords of `similarity_search_with_score`. They apply to all questions.
        Returns:
            N lists.
        """
        asked = self._asked(k, *args, **kwargs)
        found = self.collection.search_many(self._queries_of(queries, asked.sides), **asked.how)
        return [_documents(hits) for hits in found]

    async def asimilarity_search_many(
        self, queries: Sequence[str], k: int = 4, *args: Any, **kwargs: Any
    ) -> list[list[Document]]:
        """Search like `similarity_search_many`. The queries are encoded in a thread."""
        asked = self._asked(k, *args, **kwargs)
        made = await asyncio.to_thread(self._queries_of, queries, asked.sides)
        return [_documents(hits) for hits in await self.collection.asearch_many(made, **asked.how)]

    def similarity_search_with_score_by_vector(self, embedding: Any, k: int = 4, *args: Any, **kwargs: Any) -> Scored:
        """Search one side for a given vector, and return the `k` best documents with their scores.

        Args:
            embedding: A dense vector to search the dense side, or {token id: weight} to search the sparse side.
            k: The largest number of documents to return.
            *args: The same as for `similarity_search_with_score`.
            **kwargs: The keywords of `similarity_search_with_score`, except `mode`.
        """
        asked, queries = self._by_vector(embedding, k, *args, **kwargs)
        return _scored(self.collection.search(queries, **asked.how))

    async def asimilarity_search_with_score_by_vector(
        self, embedding: Any, k: int = 4, *args: Any, **kwargs: Any
    ) -> Scored:
        """Search like `similarity_search_with_score_by_vector`."""
        asked, queries = self._by_vector(embedding, k, *args, **kwargs)
        return _scored(await self.collection.asearch(queries, **asked.how))

    def similarity_search_by_vector(self, embedding: Any, k: int = 4, *args: Any, **kwargs: Any) -> list[Document]:
        """Search like `similarity_search_with_score_by_vector`, and return the documents without their scores."""
        return _unscored(self.similarity_search_with_score_by_vector(embedding, k, *args, **kwargs))

    async def asimilarity_search_by_vector(
        self, embedding: Any, k: int = 4, *args: Any, **kwargs: Any
    ) -> list[Document]:
        """Search like `similarity_search_by_vector`."""
        return _unscored(await self.asimilarity_search_with_score_by_vector(embedding, k, *args, **kwargs))

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, *args: Any, **kwargs: Any
    ) -> list[Document]:
        """Return documents that answer the query and differ from each other.

        Args:
            query: The question.
            k: The largest number of documents to return.
            fetch_k: The number of candidates to choose from. The candidates are the best hits of a search in the given
                `mode`, which is "hybrid" by default. The dense vectors of the candidates are compared with the query's
                dense vector and with each other.
            lambda_mult: A number from 0 (only the differences between the documents count) to 1 (only their relevance
                counts).
            *args: The same as for `similarity_search_with_score`.
            **kwargs: The other keywords of `similarity_search_with_score`.
        Raises:
            ValueError: The store has no dense side.
        """
        dense = self._dense("max_marginal_relevance_search")
        asked = self._asked(max(fetch_k, k), *args, **kwargs)
        vector = dense.embed_query(query)
        hits = self.collection.search(self._queries(query, asked.sides, vector), with_dense=True, **asked.how)
        return _diverse(vector, hits, k, lambda_mult)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, *args: Any, **kwargs: Any
    ) -> list[Document]:
        """Search like `max_marginal_relevance_search`."""
        dense = self._dense("max_marginal_relevance_search")
        asked = self._asked(max(fetch_k, k), *args, **kwargs)
        vector = await dense.aembed_query(query)
        queries = await self._aqueries(query, asked.sides, vector)
        return _diverse(vector, await self.collection.asearch(queries, with_dense=True, **asked.how), k, lambda_mult)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, *args: Any, **kwargs: Any
    ) -> list[Document]:
        """Search like `max_marginal_relevance_search`, among the documents nearest to a dense vector."""
        self._dense("max_marginal_relevance_search_by_vector")
        asked, queries = self._by_vector(embedding, max(fetch_k, k), *args, **kwargs)
        return _diverse(embedding, self.collection.search(queries, with_dense=True, **asked.how), k, lambda_mult)

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, *args: Any, **kwargs: Any
    ) -> list[Document]:
        """Search like `max_marginal_relevance_search_by_vector`."""
        self._dense("max_marginal_relevance_search_by_vector")
        asked, queries = self._by_vector(embedding, max(fetch_k, k), *args, **kwargs)
        hits = await self.collection.asearch(queries, with_dense=True, **asked.how)
        return _diverse(embedding, hits, k, lambda_mult)

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """Return a retriever. `search_kwargs` may hold the keywords of the search method that `search_type` selects.

        Args:
            **kwargs: search_type ("similarity", "mmr" or "similarity_score_threshold"), search_kwargs, tags, …
        Raises:
            ValueError: The store does not support the search type. "mmr" needs a store with dense vectors.
                "similarity_score_threshold" needs a search of only dense vectors, with the cosine metric.
            TypeError: `search_kwargs` holds an unknown keyword.
        """
        search_type = kwargs.get("search_type", "similarity")
        search_kwargs = dict(kwargs.get("search_kwargs") or {})
        if search_type == "mmr":
            self._dense("search_type='mmr'")
            search_kwargs.pop("lambda_mult", None)
        elif search_type == "similarity_score_threshold":
            search_kwargs.pop("score_threshold", None)
            self._check_relevance(self._asked(**search_kwargs))
        self._asked(**search_kwargs)
        return HybridRetriever(**dict(super().as_retriever(**kwargs)))

    def _select_relevance_score_fn(self) -> Any:
        """Return the function that maps a cosine to a relevance score from 0 to 1.

        Raises:
            ValueError: The store has a side other than dense, or a metric other than cosine. Scores that are not
                cosines have no fixed scale.
        """
        self._check_relevance(self._asked())
        return _relevance

    def _similarity_search_with_relevance_scores(self, query: str, k: int = 4, **kwargs: Any) -> Scored:
        self._check_relevance(self._asked(k, **kwargs))
        found = self.similarity_search_with_score(query, k, **kwargs)
        return [(document, _relevance(score)) for document, score in found]

    async def _asimilarity_search_with_relevance_scores(self, query: str, k: int = 4, **kwargs: Any) -> Scored:
        self._check_relevance(self._asked(k, **kwargs))
        found = await self.asimilarity_search_with_score(query, k, **kwargs)
        return [(document, _relevance(score)) for document, score in found]

    def _check_relevance(self, asked: Asked) -> None:
        sides = asked.sides
        metric = self.collection.dense_metric() if sides == ("dense",) else None
        if metric == "COSINE":
            return
        why = {"sparse": "A SPLADE score has no upper end", "bm25": "A BM25 score has no upper end"}.get(
            sides[0], f"A score by the metric {metric} has no fixed scale"
        )
        if len(sides) > 1:
            why = "A fused score does not measure relevance"
        way = (
            "mode='dense'"
            if "dense" in self._embeddings and metric is None
            else "a store whose dense vectors have the cosine metric"
        )
        raise ValueError(
            "relevance scores and score_threshold must be used in a search of only dense vectors, with the cosine "
            f"metric, got a search of {' + '.join(sides)}. {why}. Use {way}, or limit the number of results by k."
        )

    # Translating a search method's arguments to those of `Collection.search`

    def _asked(self, *args: Any, **kwargs: Any) -> Asked:
        return translate(tuple(self._embeddings), lambda: self.collection.fusion, *args, **kwargs)

    def _by_vector(self, embedding: Any, *args: Any, **kwargs: Any) -> tuple[Asked, dict[Side, Any]]:
        side: Side = "sparse" if isinstance(embedding, Mapping) else "dense"
        asked = self._asked(*args, mode=side, **kwargs)
        return asked, {side: embedding}

    def _dense(self, what: str) -> Any:
        if (dense := self._embeddings.get("dense")) is None:
            raise ValueError(
                f"{what} must be used on a store with dense vectors, got a store with only "
                f"{', '.join(self._embeddings)}. Use similarity_search, or open the store with a dense embedding. Only "
                "dense vectors show how much documents differ."
            )
        return dense

    def _queries(self, query: str, sides: Sequence[Side], vector: Any = None) -> dict[Side, Any]:
        return {side: self._query(query, side, vector) for side in sides}

    def _query(self, query: str, side: Side, vector: Any) -> Any:
        if side == "bm25" or (side == "dense" and vector is not None):
            return vector if side == "dense" else query
        made = self._embeddings[side].embed_query(query)
        return query_terms(made, query) if side == "sparse" else made

    def _queries_of(self, queries: Sequence[str], sides: Sequence[Side]) -> list[dict[Side, Any]]:
        """Return {side: vector or text to search for} for each of N queries. SPLADE encodes all queries together."""
        if isinstance(queries, str):
            raise TypeError(f"queries must be a list of str, got the str {queries!r}. Put it into a list.")
        made: dict[Side, list[Any]] = {}
        for side in sides:
            together = getattr(self._embeddings[side], "embed_queries", None)
            if together is None:
                made[side] = [self._query(query, side, None) for query in queries]
            else:
                made[side] = [
                    query_terms(row, query) if side == "sparse" else row
                    for row, query in zip(together(list(queries)), queries, strict=True)
                ]
        return [{side: made[side][place] for side in sides} for place in range(len(queries))]

    async def _aqueries(self, query: str, sides: Sequence[Side], vector: Any = None) -> dict[Side, Any]:
        async def made(side: Side) -> Any:
            if side == "bm25" or (side == "dense" and vector is not None):
                return vector if side == "dense" else query
            embedded = await self._embeddings[side].aembed_query(query)
            return query_terms(embedded, query) if side == "sparse" else embedded

        return dict(zip(sides, await asyncio.gather(*map(made, sides)), strict=True))


def as_document(hit: Hit) -> Document:
    return Document(hit.text, id=hit.id, metadata=hit.metadata)


def _documents(hits: Sequence[Hit]) -> list[Document]:
    return [as_document(hit) for hit in hits]


def _scored(hits: Sequence[Hit]) -> Scored:
    return [(as_document(hit), hit.score) for hit in hits]


def _unscored(found: Scored) -> list[Document]:
    return [document for document, _ in found]


def _diverse(vector: Any, hits: Sequence[Hit], k: int, lambda_mult: float) -> list[Document]:
    vectors = [hit.dense or [] for hit in hits]
    chosen = maximal_marginal_relevance(np.array(vector, np.float32), vectors, lambda_mult, k) if vectors else []
    return [as_document(hits[place]) for place in chosen]


def _relevance(cosine: float) -> float:
    return min(1.0, max(0.0, (1 + cosine) / 2))
