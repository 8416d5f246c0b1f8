"""Check that retrieval through LangChain and LlamaIndex is as good as exact rankings of the same embeddings.

    python -m checks.frameworks FOLDER [FOLDER …]

FOLDER is a dataset in BEIR layout. Each text is encoded once, and both stores get the same embeddings. The embeddings
are kept under .cache/ for the next run, which may use another version of pymilvus. The check runs SPLADE search and
hybrid search, for k = 4 and k = 10 results. For each of these searches, in each installed framework, it prints nDCG@10
of the store's k results, and nDCG@10 of the first k results of the exact ranking. The exit status is 1 if the two
values of a search differ by more than 0.002.
"""

import argparse
import hashlib
import importlib.metadata
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, load_npz, save_npz

from splade_integrations import OptionalDependencyError, SpladeEncoder
from splade_integrations.evaluation import Dataset, Dense, load_dataset, load_dense
from splade_integrations.evaluation.measures import per_query
from splade_integrations.evaluation.ranking import (
    Ranking,
    fuse_rrf,
    postings,
    rank_dense,
    rank_sparse,
    unit_rows,
)
from splade_integrations.fusion import RRF_K
from splade_integrations.models.offline import dense_model_path, splade_model_path

__all__ = ["Embeddings", "KeptRows", "compare", "embeddings_of"]

ROOT = Path(__file__).resolve().parents[1]
CANDIDATES = 100
TOLERANCE = 0.002
CUTS = (4, 10)
PACKAGES = ("pymilvus", "milvus-lite", "langchain-milvus", "llama-index-vector-stores-milvus")
Search = Callable[[str, str, int], list[str]]  # question, "sparse" or "hybrid", k -> document ids


@dataclass(frozen=True)
class Embeddings:
    """Dense and sparse embeddings of some texts.

    Args:
        dense: The dense vectors (N, H).
        sparse: The SPLADE rows (N, V).
    """

    dense: NDArray[np.float32]
    sparse: csr_array


class KeptRows:
    """Takes the place of both models, the dense one and SPLADE, and returns rows that are already computed.

    Args:
        dataset: The texts.
        documents: The embeddings of its documents.
        queries: The embeddings of its queries.
    """

    def __init__(self, dataset: Dataset, documents: Embeddings, queries: Embeddings) -> None:
        self._documents = documents, {text: row for row, text in enumerate(dataset.documents)}
        self._queries = queries, {text: row for row, text in enumerate(dataset.queries)}

    def encode_documents(self, texts: Sequence[str]) -> csr_array:
        """Return the SPLADE rows of documents."""
        embeddings, row_of = self._documents
        rows: csr_array = embeddings.sparse[[row_of[text] for text in texts]]
        return rows

    def encode_queries(self, texts: Sequence[str]) -> csr_array:
        """Return the SPLADE rows of queries."""
        embeddings, row_of = self._queries
        rows: csr_array = embeddings.sparse[[row_of[text] for text in texts]]
        return rows

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the dense rows of documents, under the name that LangChain calls."""
        embeddings, row_of = self._documents
        rows: list[list[float]] = embeddings.dense[[row_of[text] for text in texts]].tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        """Return the dense row of a query."""
        embeddings, row_of = self._queries
        row: list[float] = embeddings.dense[row_of[text]].tolist()
        return row


def langchain_search(dataset: Dataset, rows: KeptRows, uri: str) -> Search:
    """Fill a LangChain store, and return a function that searches it."""
    from langchain_core.embeddings import Embeddings as LangChainEmbeddings

    from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus

    class Dense(LangChainEmbeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return rows.embed_documents(texts)

        def embed_query(self, text: str) -> list[float]:
            return rows.embed_query(text)

    store = hybrid_milvus(Dense(), SpladeSparseEmbedding(encoder=rows), uri=uri)
    store.add_texts(dataset.documents, ids=_keys(dataset))

    def search(question: str, side: str, k: int) -> list[str]:
        return [str(found.id) for found in store.similarity_search(question, k=k, mode=side)]

    return search


def llama_index_search(dataset: Dataset, rows: KeptRows, uri: str) -> Search:
    """Fill a LlamaIndex store, and return a function that searches it."""
    from splade_integrations.llama_index import HybridMilvusVectorStore, SpladeSparseEmbedding  # isort: skip  # its error says if LlamaIndex is missing

    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

    dense = rows.embed_documents(dataset.documents)
    store = HybridMilvusVectorStore(
        uri, dim=len(dense[0]), sparse_embedding_function=SpladeSparseEmbedding(encoder=rows)
    )
    store.add(
        [
            TextNode(id_=key, text=text, embedding=embedding)
            for key, text, embedding in zip(_keys(dataset), dataset.documents, dense, strict=True)
        ]
    )

    def search(question: str, side: str, k: int) -> list[str]:
        query = VectorStoreQuery(
            query_str=question,
            query_embedding=rows.embed_query(question),
            similarity_top_k=k,
            mode=VectorStoreQueryMode(side),
        )
        return store.query(query).ids or []

    return search


FRAMEWORKS: dict[str, Callable[[Dataset, KeptRows, str], Search]] = {
    "LangChain": langchain_search,
    "LlamaIndex": llama_index_search,
}


def compare(
    dataset: Dataset, documents: Embeddings, queries: Embeddings
) -> Iterator[tuple[str, str, int, float, float]]:
    """Yield (framework, side, k, nDCG@10 through the framework, nDCG@10 of exact rankings).

    `side` is the kind of search, "sparse" or "hybrid".

    Args:
        dataset: The texts and the judgments.
        documents: The embeddings of its documents.
        queries: The embeddings of its queries.
    """
    rows = KeptRows(dataset, documents, queries)
    dense = rank_dense(queries.dense, unit_rows(documents.dense), CANDIDATES)
    splade = rank_sparse(queries.sparse, postings(documents.sparse), CANDIDATES)
    exact = {"splade": splade, "hybrid": [fuse_rrf(sides, RRF_K) for sides in zip(dense, splade, strict=True)]}
    for framework, open_and_fill in FRAMEWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                search = open_and_fill(dataset, rows, str(Path(folder) / "frameworks.db"))
            except OptionalDependencyError as err:
                print(f"{framework}: left out. {err}")
                continue
            for side, method in (("sparse", "splade"), ("hybrid", "hybrid")):
                for k in CUTS:
                    found: list[Ranking] = [
                        Ranking([int(key) for key in search(question, side, k)], []) for question in dataset.queries
                    ]
                    cut = [ranking.cut(k) for ranking in exact[method]]
                    yield framework, side, k, _ndcg(dataset, found), _ndcg(dataset, cut)


def main(folders: Sequence[Path]) -> int:
    """Run the command and return its exit status."""
    print(", ".join(f"{name} {_version(name)}" for name in PACKAGES))
    worst = 0.0
    for folder in folders:
        dataset = load_dataset(folder)
        documents, queries = embeddings_of(dataset)
        print(f"{dataset.name}: {len(dataset.documents)} documents, {len(dataset.queries)} queries; nDCG@10")
        print(f"  {'':12}{'':8}{'k':>4}{'store':>9}{'exact':>9}{'diff':>9}")
        for framework, side, k, through, expected in compare(dataset, documents, queries):
            worst = max(worst, abs(through - expected))
            line = f"  {framework:12}{side:8}{k:4}{through:9.4f}{expected:9.4f}{through - expected:+9.4f}"
            print(line, flush=True)
    print(f"The largest difference is {worst:.4f}. At most {TOLERANCE} is allowed.")
    return int(worst > TOLERANCE)


def embeddings_of(dataset: Dataset) -> tuple[Embeddings, Embeddings]:
    """Return the embeddings of documents and queries. The first run stores them on disk for later runs."""
    texts = "\0".join([splade_model_path(), *dataset.documents, *dataset.queries])
    folder = ROOT / ".cache" / f"rows-{hashlib.sha256(texts.encode()).hexdigest()[:16]}"
    roles = ("documents", "queries")
    if not (folder / "complete").is_file():
        splade = SpladeEncoder(splade_model_path(), max_length=256)
        dense = Dense(load_dense(dense_model_path(), max_length=256), dataset.documents)
        encoded = (
            Embeddings(dense.documents, splade.encode_documents(dataset.documents, sys.stderr.isatty())),
            Embeddings(dense.encode(dataset.queries), splade.encode_queries(dataset.queries)),
        )
        folder.mkdir(parents=True, exist_ok=True)
        for name, embeddings in zip(roles, encoded, strict=True):
            np.save(folder / f"{name}-dense.npy", embeddings.dense)
            save_npz(folder / f"{name}-sparse.npz", embeddings.sparse)
        (folder / "complete").touch()
    documents, queries = (
        Embeddings(np.load(folder / f"{name}-dense.npy"), csr_array(load_npz(folder / f"{name}-sparse.npz")))
        for name in roles
    )
    return documents, queries


def _keys(dataset: Dataset) -> list[str]:
    """Return primary keys that sort in corpus order.

    milvus-lite sorts hits with equal scores by key, and exact fusion sorts them by row. With these keys, both orders
    are equal.
    """
    return [f"{row:08}" for row in range(len(dataset.documents))]


def _ndcg(dataset: Dataset, rankings: Sequence[Ranking]) -> float:
    return float(per_query(dataset, rankings, ["nDCG@10"])["nDCG@10"].mean())


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "–"


if __name__ == "__main__":
    parser: Any = argparse.ArgumentParser(
        prog="python -m checks.frameworks", description="Compare retrieval through the frameworks with exact rankings."
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a dataset in BEIR layout")
    sys.exit(main(parser.parse_args().folders))
