"""Answers queries to a store: plans the search, encodes the question, and searches the store's collection."""

import asyncio
from abc import ABC
from collections.abc import Sequence
from typing import Any

from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryResult
from pymilvus import RRFRanker, WeightedRanker

from splade_integrations.fusion import Fusion
from splade_integrations.llama_index.base import CollectionStore
from splade_integrations.llama_index.options import ranker_of
from splade_integrations.llama_index.queries import Plan, plan_of

__all__ = ["Searching"]


class Searching(CollectionStore, ABC):
    """The part of a store that answers queries."""

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the best nodes, best first. The docstring of `HybridMilvusVectorStore` describes the modes.

        Args:
            query: The question, its embedding, the mode, the filters and the number of nodes. If the question is blank,
                only the dense side is searched, because the other sides need words. `doc_ids` restricts the search to
                nodes of these documents, and `doc_ids=[]` finds nothing. `node_ids` restricts the search to these
                nodes. But `node_ids=[]` means no restriction, because LlamaIndex's retrievers pass [] by default.
            **kwargs: A retriever's `vector_store_kwargs`:
                `string_expr`, a Milvus expression, instead of filters;
                `milvus_partition_names`;
                `group_by`, a metadata key: only the best node for each value is returned ("doc_id": for each document);
                `milvus_search_config`, search parameters of the dense side, such as {"ef": 64};
                `fusion`, a `Fusion` or its dict, which mode `hybrid` uses instead of `store.fusion`;
                `reranker`, a pymilvus ranker or rerank function that fuses all sides in mode `hybrid`;
                `mmr_threshold`, from 0 (only novelty counts) to 1 (only relevance counts), 0.5 by default;
                `mmr_prefetch_k`, the number of candidates for MMR, or `mmr_prefetch_factor`, the number of candidates
                for each result, 4 by default;
                `timeout` in seconds.
        Raises:
            TypeError: A keyword is unknown.
            ValueError: The mode is not supported, the query lacks a value that the mode needs, or the query has a value
                that the mode cannot use.
            TimeoutError: The server does not answer.
        """
        plan, ranker = self._plan(query, kwargs)
        terms = None
        if plan.needs_terms and self.sparse_embedding_function is not None:
            [terms] = self.sparse_embedding_function.encode_queries([plan.text])
        return plan.result(self._collection.search(plan.queries(terms), ranker=ranker, **plan.search()))

    def query_many(self, queries: Sequence[VectorStoreQuery], **kwargs: Any) -> list[VectorStoreQueryResult]:
        """Return the best nodes for each of N queries. Queries with the same options are sent in one request.

        The sparse encoder encodes all questions together. This takes much less time than encoding one question after
        another.

        Args:
            queries: N queries.
            **kwargs: The keywords of `query`. They apply to all queries.
        Returns:
            N results.
        """
        planned = [self._plan(query, kwargs) for query in queries]
        asking = [place for place, (plan, _) in enumerate(planned) if plan.needs_terms]
        terms: dict[int, dict[int, float]] = {}
        if asking and self.sparse_embedding_function is not None:
            rows = self.sparse_embedding_function.encode_queries([planned[place][0].text for place in asking])
            terms = dict(zip(asking, rows, strict=True))
        together: dict[str, list[int]] = {}
        for place, (plan, ranker) in enumerate(planned):
            how = ranker.dict() if isinstance(ranker, RRFRanker | WeightedRanker) else ranker
            together.setdefault(repr((plan.sides, plan.search(), how)), []).append(place)
        results: dict[int, VectorStoreQueryResult] = {}
        for places in together.values():
            plan, ranker = planned[places[0]]
            asked = [planned[place][0].queries(terms.get(place)) for place in places]
            found = self._collection.search_many(asked, ranker=ranker, **plan.search())
            results |= {place: planned[place][0].result(hits) for place, hits in zip(places, found, strict=True)}
        return [results[place] for place in range(len(queries))]

    async def aquery_many(self, queries: Sequence[VectorStoreQuery], **kwargs: Any) -> list[VectorStoreQueryResult]:
        """Search like `query_many`, in a thread."""
        return await asyncio.to_thread(self.query_many, queries, **kwargs)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Search like `query`."""
        if not (self.use_async_client and self._is_there):
            return await asyncio.to_thread(self.query, query, **kwargs)
        plan, ranker = self._plan(query, kwargs)
        terms = None
        if plan.needs_terms and self.sparse_embedding_function is not None:
            [terms] = await self.sparse_embedding_function.async_encode_queries([plan.text])
        return plan.result(await self._collection.asearch(plan.queries(terms), ranker=ranker, **plan.search()))

    def _plan(self, query: VectorStoreQuery, keywords: dict[str, Any]) -> tuple[Plan, Any]:
        schema, fields = self._collection.schema, self._collection.fields
        named = ranker_of(self.hybrid_ranker, self.hybrid_ranker_params, tuple(schema.sides))
        reranker = keywords.get("reranker")
        every = Fusion(sides=tuple(schema.sides))
        plan = plan_of(
            query,
            keywords,
            sides=tuple(schema.sides),
            hybrid=(lambda: self.fusion) if named is None and reranker is None else (lambda: every),
            primary_field=schema.primary_field if fields is None else fields.primary,
            doc_id_field=self.doc_id_field,
            metric=self.similarity_metric,
            hidden=self._hidden,
        )
        if query.doc_ids is not None:
            self._check_doc_id_field()
        if len(plan.sides) == 1:
            return plan, None
        if query.alpha is not None and (reranker is not None or keywords.get("fusion") is not None):
            raise ValueError(
                f"alpha must be None with fusion or reranker, got {query.alpha}. Leave alpha out. The fusion or the "
                "reranker already says how sides are weighted."
            )
        if reranker is not None:
            return plan, reranker
        ranker = ranker_of(self.hybrid_ranker, self.hybrid_ranker_params, plan.sides, query.alpha)
        return plan, plan.fusion if named is None or keywords.get("fusion") is not None else ranker
