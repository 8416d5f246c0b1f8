"""One search of a hybrid store, both sides or one of them, ready but for the vectors of its query."""

from typing import TYPE_CHECKING, Any, Literal

from langchain_core.documents import Document
from pymilvus import Function

from splade_integrations.milvus.settings import hybrid_request

if TYPE_CHECKING:
    from splade_integrations.langchain.store import HybridMilvus

__all__ = ["Mode", "Search"]

Mode = Literal["hybrid", "dense", "sparse"]
_SIDES: dict[str, tuple[int, ...]] = {"hybrid": (0, 1), "dense": (0,), "sparse": (1,)}


class Search:
    """A search of a `HybridMilvus`.

    Args:
        store: The store.
        k: Most documents to return.
        param: Search parameters of Milvus: a list for both sides, or a dict for the one searched.
        expr: A filter of Milvus, such as `year > 2000`; it binds both sides.
        timeout: Seconds.
        mode: "hybrid", or one side alone: "dense" or "sparse".
        fetch_k: Candidates of each side. None takes max(100, 10 k).
        reranker: A rerank function of Milvus. None is reciprocal rank fusion, k = 60.
        ranker_type: The framework's older way: "rrf" or "weighted", with its `ranker_params`.
        **options: What `MilvusClient.search` and `hybrid_search` take, such as `partition_names`.
    Raises:
        ValueError: An unknown mode, or parameters of another number than the sides.
    """

    def __init__(
        self,
        store: "HybridMilvus",
        k: int = 4,
        param: Any = None,
        expr: str | None = None,
        timeout: float | None = None,
        *,
        mode: Mode = "hybrid",
        fetch_k: int | None = None,
        reranker: Function | None = None,
        ranker_type: str | None = None,
        ranker_params: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if mode not in _SIDES:
            raise ValueError(f"mode must be 'hybrid', 'dense' or 'sparse', got {mode!r}. Use one of them.")
        self._store, self._k, self._expr = store, k, expr or ""
        sides = _SIDES[mode]
        params = param or store.search_params
        if isinstance(params, list) and len(params) == len(_SIDES["hybrid"]):
            params = [params[side] for side in sides]
        elif isinstance(params, list) or len(sides) > 1:
            raise ValueError(
                "param, or else the store's search_params, must be a list of search parameters for both sides, got "
                f"{params!r}. Give two."
            )
        else:
            params = [params]
        self.embeddings = [store.embeddings[side] for side in sides]
        self._sides = [(store.vector_fields[side], params) for side, params in zip(sides, params, strict=True)]
        self._depth, self._ranker = fetch_k, reranker
        if ranker_type is not None:
            self._ranker = store._create_ranker(ranker_type=ranker_type, ranker_params=ranker_params or {})
        self._options = {
            "collection_name": store.collection_name,
            "output_fields": ["*"],
            "timeout": store.timeout or timeout,
            **options,
        }

    def run(self, client: Any, vectors: list[Any]) -> Any:
        """Ask Milvus.

        Args:
            client: A client, or an async one, whose answer is then to be awaited.
            vectors: The query, embedded by each of `embeddings`.
        """
        if len(vectors) == 1:
            [(field, params)] = self._sides
            return client.search(
                data=vectors, anns_field=field, search_params=params, limit=self._k, filter=self._expr, **self._options
            )
        sides = [(field, vector, params) for (field, params), vector in zip(self._sides, vectors, strict=True)]
        request = hybrid_request(sides, k=self._k, depth=self._depth, expr=self._expr, ranker=self._ranker)
        return client.hybrid_search(**request, **self._options)

    def documents(self, found: Any) -> list[tuple[Document, float]]:
        """What was found, best first, with scores; documents carry their ids."""
        hits: list[tuple[Document, float]] = self._store._parse_documents_from_search_results(found)
        for document, _ in hits:
            if self._store._primary_field in document.metadata:
                document.id = str(document.metadata[self._store._primary_field])
        return hits
