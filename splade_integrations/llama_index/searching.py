"""Answer queries to a store: plan the search, encode the question, and search the store's collection."""

import asyncio
from abc import ABC
from typing import Any

from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryResult

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
                `group_by`, a metadata key, or "doc_id" for the best node of each document;
                `milvus_search_config`, parameters of the dense side, such as {"ef": 64};
                `fusion`, the sides of mode `hybrid` and how they are fused, instead of the store's;
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
        every = Fusion(sides=tuple(schema.sides))
        plan = plan_of(
            query,
            keywords,
            sides=tuple(schema.sides),
            hybrid=self.fusion if named is None else every,
            primary_field=schema.primary_field if fields is None else fields.primary,
            doc_id_field=self.doc_id_field,
            metric=self.similarity_metric,
            hidden=self._hidden,
        )
        if query.doc_ids is not None:
            self._check_doc_id_field()
        if len(plan.sides) == 1:
            return plan, None
        ranker = ranker_of(self.hybrid_ranker, self.hybrid_ranker_params, plan.sides, query.alpha)
        return plan, plan.fusion if named is None or keywords.get("fusion") is not None else ranker
