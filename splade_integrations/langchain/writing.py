"""Writes, reads and deletes the documents of a store. Each document is a row of a Milvus collection."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from splade_integrations.encoding.texts import check_texts
from splade_integrations.langchain.adding import embed_rows, embedded_text, make_rows, with_vectors
from splade_integrations.langchain.options import refuse
from splade_integrations.langchain.requests import one_filter
from splade_integrations.langchain.searching import as_document
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.defaults import ROWS_PER_WRITE
from splade_integrations.milvus.schema import Side

__all__ = ["Writing"]


class Writing(VectorStore):
    """The part of `HybridMilvus` that writes, reads and deletes documents."""

    collection: Collection
    embed_metadata: Sequence[str]
    _embeddings: dict[Side, Any]

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        timeout: float | None = None,
        batch_size: int = ROWS_PER_WRITE,
        *,
        ids: Sequence[str | None] | None = None,
        partition_name: str | None = None,
        **unknown: Any,
    ) -> list[str]:
        """Encode and write texts, a few hundred at a time. Stored texts that have the same ids are replaced.

        Args:
            texts: N texts.
            metadatas: N dicts of values that JSON can hold, or None.
            timeout: The time limit for each write, in seconds.
            batch_size: The largest number of rows in a write.
            ids: N ids, or None. A text whose id is None gets a new id. If the collection was made with `auto_id`, all
                ids must be None, because Milvus makes the ids.
            partition_name: The partition to write to.
            **unknown: Unknown options, which are refused.
        Returns:
            N ids.
        Raises:
            TypeError: A text or an id is not a str, or JSON cannot hold the metadata. Nothing has been written.
            ValueError: An id occurs twice, ids or metadata do not fit the collection, or Milvus cannot store a text.
                Nothing has been written.
        """
        refuse(unknown, self.add_texts)
        rows = make_rows(check_texts(texts), metadatas, ids)
        self.collection.check(rows)
        embed = partial(embed_rows, embeddings=self._embeddings, keys=self.embed_metadata)
        return self.collection.ingest(
            rows, embed, timeout=timeout, batch_size=batch_size, partition_name=partition_name
        )

    async def aadd_texts(
        self, texts: Iterable[str], metadatas: list[dict[str, Any]] | None = None, *args: Any, **kwargs: Any
    ) -> list[str]:
        """Add texts like `add_texts`, in a thread."""
        return await asyncio.to_thread(self.add_texts, texts, metadatas, *args, **kwargs)

    def add_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """Add documents like `add_texts`. Ids come from `ids=`, or else from `Document.id`."""
        kwargs.setdefault("ids", [document.id for document in documents])
        texts = [document.page_content for document in documents]
        return self.add_texts(texts, [document.metadata for document in documents], **kwargs)

    async def aadd_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """Add documents like `add_documents`, in a thread."""
        return await asyncio.to_thread(self.add_documents, documents, **kwargs)

    def upsert(self, ids: list[str] | None = None, documents: list[Document] | None = None, **kwargs: Any) -> list[str]:
        """Add documents, and replace stored documents that have the same ids. `add_documents` does the same."""
        return self.add_documents(documents or [], **({} if ids is None else {"ids": ids}), **kwargs)

    async def aupsert(
        self, ids: list[str] | None = None, documents: list[Document] | None = None, **kwargs: Any
    ) -> list[str]:
        """Add documents like `upsert`, in a thread."""
        return await asyncio.to_thread(self.upsert, ids, documents, **kwargs)

    def add_embeddings(
        self,
        texts: list[str],
        embeddings: Sequence[Any],
        metadatas: list[dict[str, Any]] | None = None,
        timeout: float | None = None,
        batch_size: int = ROWS_PER_WRITE,
        *,
        ids: Sequence[str | None] | None = None,
        partition_name: str | None = None,
    ) -> list[str]:
        """Write texts with vectors that were made elsewhere.

        Args:
            texts: N texts.
            embeddings: N vectors or, if the store has both a dense and a sparse embedding, N pairs [dense, sparse].
            metadatas: See `add_texts`.
            timeout: The time limit for each write, in seconds.
            batch_size: The largest number of rows in a write.
            ids: See `add_texts`.
            partition_name: The partition to write to.
        Returns:
            N ids.
        Raises:
            TypeError, ValueError: See `add_texts`.
        """
        rows = make_rows(check_texts(texts), metadatas, ids)
        sides: list[Side] = [side for side, embedding in self._embeddings.items() if embedding is not None]
        vectors = list(zip(*embeddings, strict=True)) if len(sides) > 1 else [embeddings]
        made: dict[Side, Sequence[Any]] = dict(zip(sides, vectors, strict=True)) if rows else {}
        embedded = [embedded_text(row.text, row.metadata, self.embed_metadata) for row in rows]
        return self.collection.write(
            with_vectors(rows, embedded, made), timeout=timeout, batch_size=batch_size, partition_name=partition_name
        )

    async def aadd_embeddings(self, *args: Any, **kwargs: Any) -> list[str]:
        """Add texts like `add_embeddings`, in a thread."""
        return await asyncio.to_thread(self.add_embeddings, *args, **kwargs)

    # Reading and deleting

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents with these ids, in the order of the ids. Unknown ids are left out."""
        return [as_document(hit) for hit in self.collection.get(ids)]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return documents like `get_by_ids`."""
        return [as_document(hit) for hit in await self.collection.aget(ids)]

    def iterate(self, filter: Any = None, *, expr: str | None = None, **kwargs: Any) -> Iterator[Document]:
        """Yield all documents that match a filter, in ascending order of their ids.

        Args:
            filter: A dict, a Milvus expression, or None for all documents.
            expr: Another name for `filter`. Give only one of the two.
            **kwargs: partition_names, timeout.
        """
        return map(as_document, self.collection.iterate(one_filter(filter, expr), **kwargs))

    async def aiterate(self, filter: Any = None, *, expr: str | None = None, **kwargs: Any) -> AsyncIterator[Document]:
        """Yield documents like `iterate`."""
        async for hit in self.collection.aiterate(one_filter(filter, expr), **kwargs):
            yield as_document(hit)

    def delete(
        self,
        ids: list[str] | None = None,
        expr: str | None = None,
        *,
        filter: Any = None,
        partition_names: Sequence[str] | None = None,
        timeout: float | None = None,
        **unknown: Any,
    ) -> bool:
        """Delete documents by ids or by a filter. If both are given, only documents that match both are deleted.

        Args:
            ids: The documents' ids. [] deletes nothing, and unknown ids are not an error.
            expr: Another name for `filter`. Give only one of the two.
            filter: A dict, or a Milvus expression.
            partition_names: The partitions to delete from.
            timeout: The time limit for each call of Milvus, in seconds.
            **unknown: Unknown options, which are refused.
        Returns:
            True.
        Raises:
            ValueError: Neither ids nor a filter is given, or the filter is empty. To delete all documents, use `clear`.
        """
        refuse(unknown, self.delete)
        condition = one_filter(filter, expr)
        self.collection.delete(ids=ids, filter=condition, partition_names=partition_names, timeout=timeout)
        return True

    async def adelete(self, ids: list[str] | None = None, expr: str | None = None, **kwargs: Any) -> bool:
        """Delete documents like `delete`, in a thread."""
        return await asyncio.to_thread(self.delete, ids, expr, **kwargs)

    def clear(self) -> None:
        """Delete all documents. The collection itself is kept."""
        self.collection.clear()

    async def aclear(self) -> None:
        """Delete all documents like `clear`, in a thread."""
        await asyncio.to_thread(self.clear)
