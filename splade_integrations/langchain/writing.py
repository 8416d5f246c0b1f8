"""What a store writes, reads by id and deletes, over a collection: documents translated to rows and back."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from splade_integrations.encoding.tokenizer import check_texts
from splade_integrations.langchain.adding import embed_rows, embedded_text, make_rows, with_vectors
from splade_integrations.langchain.options import refuse
from splade_integrations.langchain.requests import one_filter
from splade_integrations.langchain.searching import as_document
from splade_integrations.milvus.collection import Collection
from splade_integrations.milvus.defaults import ROWS_PER_WRITE
from splade_integrations.milvus.schema import Side

__all__ = ["Writing"]


class Writing(VectorStore):
    """The writing half of a store."""

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
        """Encode texts and write them, some hundreds at a time; replace those whose ids are there.

        Args:
            texts: N texts.
            metadatas: N dicts of what JSON can hold, or None.
            timeout: Seconds for each write.
            batch_size: Most rows of a write.
            ids: N ids, None for one that is made, or None for all. Milvus numbers them if the collection is so.
            partition_name: Where to.
            **unknown: Refused.
        Returns:
            N ids.
        Raises:
            TypeError: A text or an id is not a str, or metadata is none of JSON's.
            ValueError: Ids that repeat or do not fit the collection, metadata that does not fit it, or a text that
                Milvus cannot store. Nothing has been written then.
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
        """Add as `add_texts`, in a thread."""
        return await asyncio.to_thread(self.add_texts, texts, metadatas, *args, **kwargs)

    def add_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """Add documents as `add_texts` does, with their own ids unless `ids` are given."""
        kwargs.setdefault("ids", [document.id for document in documents])
        texts = [document.page_content for document in documents]
        return self.add_texts(texts, [document.metadata for document in documents], **kwargs)

    async def aadd_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """Add as `add_documents`, in a thread."""
        return await asyncio.to_thread(self.add_documents, documents, **kwargs)

    def upsert(self, ids: list[str] | None = None, documents: list[Document] | None = None, **kwargs: Any) -> list[str]:
        """Add documents in place of those of the same ids: `add_documents` by another name."""
        return self.add_documents(documents or [], **({} if ids is None else {"ids": ids}), **kwargs)

    async def aupsert(
        self, ids: list[str] | None = None, documents: list[Document] | None = None, **kwargs: Any
    ) -> list[str]:
        """Add as `upsert`, in a thread."""
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
            embeddings: N vectors for a store of one side, N pairs [dense, sparse] for one of both.
            metadatas: As `add_texts` takes them.
            timeout: Seconds for each write.
            batch_size: Most rows of a write.
            ids: As `add_texts` takes them.
            partition_name: Where to.
        Returns:
            N ids.
        Raises:
            TypeError, ValueError: As `add_texts`.
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
        """Add as `add_embeddings`, in a thread."""
        return await asyncio.to_thread(self.add_embeddings, *args, **kwargs)

    # Reading and deleting

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents of these ids, in their order; ids that are not there are left out."""
        return [as_document(hit) for hit in self.collection.get(ids)]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return as `get_by_ids`."""
        return [as_document(hit) for hit in await self.collection.aget(ids)]

    def iterate(self, filter: Any = None, *, expr: str | None = None, **kwargs: Any) -> Iterator[Document]:
        """Yield all documents that match a filter, by rising id; None for all.

        Args:
            filter: As for a search.
            expr: The same by its other name.
            **kwargs: partition_names, timeout.
        """
        return map(as_document, self.collection.iterate(one_filter(filter, expr), **kwargs))

    async def aiterate(self, filter: Any = None, *, expr: str | None = None, **kwargs: Any) -> AsyncIterator[Document]:
        """Yield as `iterate`."""
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
        """Delete documents: those of these ids, those that match a filter, or those of these ids that match it.

        Args:
            ids: Ids; [] deletes nothing, and one that is not there is no error.
            expr: An expression of Milvus.
            filter: A dict, or an expression.
            partition_names: Where to look.
            timeout: Seconds for each call.
            **unknown: Refused.
        Returns:
            True.
        Raises:
            ValueError: Neither is given, or the filter is empty. To delete all there is `clear`.
        """
        refuse(unknown, self.delete)
        condition = one_filter(filter, expr)
        self.collection.delete(ids=ids, filter=condition, partition_names=partition_names, timeout=timeout)
        return True

    async def adelete(self, ids: list[str] | None = None, expr: str | None = None, **kwargs: Any) -> bool:
        """Delete as `delete`, in a thread."""
        return await asyncio.to_thread(self.delete, ids, expr, **kwargs)

    def clear(self) -> None:
        """Delete all documents; the collection stays."""
        self.collection.clear()

    async def aclear(self) -> None:
        """Delete as `clear`, in a thread."""
        await asyncio.to_thread(self.clear)
