"""Adds nodes to a collection, and reads or deletes nodes by their ids or by filters."""

import asyncio
from abc import ABC
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import MetadataFilters

from splade_integrations.adapter import document_terms
from splade_integrations.llama_index.base import CollectionStore
from splade_integrations.llama_index.filters import check_complete, from_metadata_filters
from splade_integrations.llama_index.nodes import node_of, row_of, source_of
from splade_integrations.milvus.filters import Compare, Filter
from splade_integrations.milvus.rows import Hit, Row

__all__ = ["Writing"]


class Writing(CollectionStore, ABC):
    """The part of a store that adds, deletes and reads nodes."""

    def add(  # type: ignore[override]  # no **kwargs: unknown keywords are refused
        self,
        nodes: Sequence[BaseNode],
        *,
        milvus_partition_name: str | None = None,
        force_flush: bool = False,
        timeout: float | None = None,
    ) -> list[str]:
        """Encode and write nodes, a few hundred at a time. Stored nodes that have the same ids are replaced.

        Args:
            nodes: N nodes with their dense embeddings.
            milvus_partition_name: The partition to write to.
            force_flush: Whether to flush at the end, even on a server. On milvus-lite, adding always ends with a flush.
            timeout: The time limit for each write, in seconds.
        Returns:
            N ids.
        Raises:
            ValueError, TypeError: A node has no embedding, or holds a value that Milvus cannot store. The message names
                the node and the key. Nothing has been written.
        """
        nodes = list(nodes)
        self._check_doc_id_field()
        how = {"needs_embedding": self.enable_dense, "in_json": self._in_json}
        rows = [row_of(node, self.doc_id_field, name=f"nodes[{place}]", **how) for place, node in enumerate(nodes)]
        self._collection.check(rows)
        ids = self._collection.ingest(
            list(zip(nodes, rows, strict=True)),
            self._encoded,
            partition_name=milvus_partition_name,
            batch_size=self.batch_size,
            timeout=timeout,
        )
        self._is_there = self._is_there or bool(nodes)
        if force_flush and nodes:
            self._collection.flush()
        return ids

    async def async_add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Add nodes like `add`, in a thread."""
        return await asyncio.to_thread(self.add, nodes, **add_kwargs)

    def _encoded(self, chunk: Sequence[tuple[BaseNode, Row]]) -> list[Row]:
        if self.sparse_embedding_function is None:
            return [row for _, row in chunk]
        texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node, _ in chunk]
        terms = self.sparse_embedding_function.encode_documents(texts)
        return [
            replace(row, sparse=document_terms(found, text))
            for (_, row), found, text in zip(chunk, terms, texts, strict=True)
        ]

    # Deleting and reading

    def delete(  # type: ignore[override]
        self, ref_doc_id: str, *, milvus_partition_name: str | None = None
    ) -> None:
        """Delete the nodes of a document.

        Args:
            ref_doc_id: The document's id. If the document has no nodes, nothing is deleted, and no error is raised.
            milvus_partition_name: The partition to delete from.
        """
        if not isinstance(ref_doc_id, str):
            raise TypeError(
                f"ref_doc_id must be a str, got {type(ref_doc_id).__name__} {ref_doc_id!r}. Give one document's id."
            )
        self._check_doc_id_field()
        of_document = Compare(self.doc_id_field, "eq", ref_doc_id, column=True)
        found = self._collection.iterate(of_document, partition_names=_names(milvus_partition_name))
        self._collection.delete(ids=[hit.id for hit in found if source_of(hit, self.doc_id_field) == ref_doc_id])

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete nodes like `delete`, in a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(  # type: ignore[override]
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        *,
        milvus_partition_name: str | None = None,
    ) -> None:
        """Delete nodes by ids or by filters. If both are given, only nodes that match both are deleted.

        Args:
            node_ids: The nodes' ids. [] deletes nothing, and unknown ids are not an error.
            filters: The condition that nodes must satisfy. Each node that Milvus finds is checked again in Python,
                and then deleted by its id.
            milvus_partition_name: The partition to delete from.
        Raises:
            ValueError: Neither ids nor filters are given, or a group of filters is empty. To delete all nodes, use
                `clear`.
        """
        if filters is not None:
            check_complete(filters)
        _check_ids(node_ids)
        self._collection.delete(
            ids=node_ids,
            filter=None if filters is None else from_metadata_filters(filters, self._hidden),
            partition_names=_names(milvus_partition_name),
        )

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes like `delete_nodes`, in a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def get_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        *,
        milvus_partition_names: list[str] | None = None,
    ) -> list[BaseNode]:
        """Return nodes with their embeddings, in the order of `node_ids` if given, or else in ascending order of ids.

        Args:
            node_ids: The nodes' ids. Unknown ids are left out.
            filters: The condition that nodes must satisfy. If both are given, only nodes that match both are returned.
            milvus_partition_names: The partitions to read.
        Raises:
            ValueError: Neither ids nor filters are given.
        """
        condition = _condition(node_ids, filters, self._hidden)
        how: dict[str, Any] = {"with_dense": self.enable_dense, "partition_names": milvus_partition_names}
        if node_ids is None:
            return [node_of(hit) for hit in self._collection.iterate(condition, **how)]
        return [node_of(hit) for hit in self._collection.get(node_ids, **how) if _meets(hit, condition)]

    async def aget_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        *,
        milvus_partition_names: list[str] | None = None,
    ) -> list[BaseNode]:
        """Read nodes like `get_nodes`."""
        if not (self.use_async_client and self._is_there):
            return await asyncio.to_thread(
                self.get_nodes, node_ids, filters, milvus_partition_names=milvus_partition_names
            )
        condition = _condition(node_ids, filters, self._hidden)
        how: dict[str, Any] = {"with_dense": self.enable_dense, "partition_names": milvus_partition_names}
        if node_ids is None:
            return [node_of(hit) async for hit in self._collection.aiterate(condition, **how)]
        return [node_of(hit) for hit in await self._collection.aget(node_ids, **how) if _meets(hit, condition)]

    def clear(self) -> None:
        """Delete all nodes. The collection keeps its fields, aliases and properties."""
        self._collection.clear()

    async def aclear(self) -> None:
        """Delete all nodes, in a thread."""
        await self._collection.aclear()


def _condition(node_ids: Sequence[str] | None, filters: MetadataFilters | None, hidden: Sequence[str]) -> Filter | None:
    if node_ids is None and filters is None:
        raise ValueError(
            "node_ids or filters must be given, got neither. To read all nodes, give filters=MetadataFilters("
            "filters=[])."
        )
    _check_ids(node_ids)
    return None if filters is None else from_metadata_filters(filters, hidden)


def _check_ids(node_ids: Any) -> None:
    if isinstance(node_ids, str):
        raise TypeError(f"node_ids must be a list of str, got the str {node_ids!r}. Put it into a list.")


def _meets(hit: Hit, condition: Filter | None) -> bool:
    return condition is None or condition.matches(hit.metadata, hit.columns)


def _names(partition_name: str | None) -> list[str] | None:
    return None if partition_name is None else [partition_name]
