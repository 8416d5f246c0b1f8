"""Measure what adding documents through a framework costs: memory, time, and stalls of the event loop.

    python -m benchmarks.ingest memory [--documents 50000] [--uri http://localhost:19530]
    python -m benchmarks.ingest time [--documents 1000] [--model MODEL]

`memory` compares the peak memory of two processes: one adds 1 000 documents, and the other adds `--documents`
documents. It measures each framework's hybrid store. milvus-lite itself keeps the stored rows in the memory of the
process. To show how much of the growth comes from milvus-lite, the command also measures `MilvusClient` without a
framework. With `--uri`, the rows go to a server, and the server's memory is not counted
(`milvus-lite server --data-dir FOLDER` starts a server). Rows are random (120 terms of 30522, 384 dense dimensions), so
no model takes memory.

`time` compares two ways of adding documents to an existing collection. One adds them through a framework. The other
encodes the same texts in one call and inserts them through `MilvusClient`. For each framework, the command also prints
how many texts the framework passed to the encoder in each call, and the longest stalls of the event loop during an
async add.
"""

import argparse
import asyncio
import gc
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from llama_index.core.schema import TextNode
from scipy.sparse import csr_array

from benchmarks.measuring import describe_environment, write_json
from benchmarks.workload import quiet
from splade_integrations import SparseTextEncoder, SpladeEncoder, to_dicts
from splade_integrations.langchain import HybridMilvus, hybrid_milvus
from splade_integrations.langchain import SpladeSparseEmbedding as ForLangChain
from splade_integrations.llama_index import HybridMilvusVectorStore
from splade_integrations.llama_index import SpladeSparseEmbedding as ForLlamaIndex
from splade_integrations.models.offline import splade_model_path

__all__ = ["main", "measure_memory", "measure_time"]

_DIM, _TERMS, _VOCABULARY = 384, 120, 30_522
_FRAMEWORKS = ("LangChain", "LlamaIndex")
_BY_HAND = "MilvusClient"
_NODES_AT_ONCE = 2048  # as many as LlamaIndex's VectorStoreIndex passes to a store at once
_ROWS_AT_ONCE = 100


class MadeUpDense(Embeddings):
    """Embeds texts as random unit vectors."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts as vectors (len(texts), 384)."""
        rows = np.random.default_rng(len(texts)).normal(size=(len(texts), _DIM))
        vectors: list[list[float]] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Embed a query."""
        return self.embed_documents([text])[0]


class MadeUpSparse:
    """Encodes texts as random rows with about as many terms as SPLADE rows."""

    def encode_documents(self, texts: Sequence[str]) -> csr_array:
        """Encode texts as rows (len(texts), 30522)."""
        generator = np.random.default_rng(len(texts))
        ids = np.sort(np.argsort(generator.random((len(texts), 4 * _TERMS)))[:, :_TERMS] * 60, axis=1)
        indptr = np.arange(len(texts) + 1) * _TERMS
        weights = generator.random(ids.size, np.float32) + 0.01
        return csr_array((weights, ids.reshape(-1).astype(np.int32), indptr), (len(texts), _VOCABULARY))

    encode_queries = encode_documents


class Counted:
    """Wraps an encoder, and remembers how many texts each call had."""

    def __init__(self, encoder: SparseTextEncoder) -> None:
        self._encoder, self.calls = encoder, list[int]()

    def encode_documents(self, texts: Sequence[str]) -> csr_array:
        """Encode documents."""
        self.calls.append(len(texts))
        return self._encoder.encode_documents(texts)

    def encode_queries(self, texts: Sequence[str]) -> csr_array:
        """Encode queries."""
        return self._encoder.encode_queries(texts)


def _langchain(encoder: SparseTextEncoder, uri: str) -> HybridMilvus:
    return hybrid_milvus(MadeUpDense(), ForLangChain(encoder=encoder), uri=uri, drop_old=True)


def _llama_index(encoder: SparseTextEncoder, uri: str) -> HybridMilvusVectorStore:
    sparse = ForLlamaIndex(encoder=encoder)
    return HybridMilvusVectorStore(uri, dim=_DIM, sparse_embedding_function=sparse, overwrite=True)


def _nodes(texts: Sequence[str], start: int = 0) -> list[TextNode]:
    vectors = MadeUpDense().embed_documents(list(texts))
    return [
        TextNode(id_=str(start + position), text=text, embedding=vector)
        for position, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]


def _texts(count: int) -> Iterator[str]:
    words = Path(statistics.__file__).read_text(encoding="utf-8").split()
    for position in range(count):
        start = 37 * position % (len(words) - 120)
        yield f"{position} " + " ".join(words[start : start + 40 + position % 80])


def measure_memory(framework: str, documents: int, uri: str | None = None) -> float:
    """Return the peak MiB of a new process that adds documents to the server at `uri`, or to a file."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (framework, documents, uri))


def _peak(framework: str, documents: int, uri: str | None) -> float:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # milvus-lite may still be writing there
        uri = uri or f"{folder}/ingest.db"
        texts = list(_texts(documents))
        ids = [str(number) for number in range(documents)]
        if framework == "LangChain":
            _langchain(MadeUpSparse(), uri).add_texts(texts, ids=ids)
        elif framework == _BY_HAND:
            store: Any = _langchain(MadeUpSparse(), uri)
            store.add_documents([Document("first", id="first")])
            for start in range(0, documents, _NODES_AT_ONCE):
                some = slice(start, start + _NODES_AT_ONCE)
                _insert(store, MadeUpSparse(), texts[some], ids[some])
        else:
            store = _llama_index(MadeUpSparse(), uri)
            for start in range(0, documents, _NODES_AT_ONCE):
                store.add(_nodes(texts[start : start + _NODES_AT_ONCE], start))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_time(encoder: SparseTextEncoder, documents: int, repeats: int) -> list[dict[str, Any]]:
    """Return, for each framework, the median seconds, the texts per encoder call, and the longest event loop stalls."""
    texts = list(_texts(documents))
    ids = [str(number) for number in range(documents)]
    nodes = _nodes(texts)
    results = []
    for framework in _FRAMEWORKS:
        seconds: dict[str, list[float]] = {"through": [], "direct": []}
        stalls = []
        for _ in range(repeats):
            counted = Counted(encoder)
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                if framework == "LangChain":
                    store: Any = _langchain(counted, f"{folder}/ingest.db")
                    found = [Document(text, id=key) for text, key in zip(texts, ids, strict=True)]
                    add, aadd = partial(store.add_documents, found), partial(store.aadd_documents, found)
                    store.add_documents([Document("first", id="first")])  # creates the collection
                else:
                    store = _llama_index(counted, f"{folder}/ingest.db")
                    add, aadd = partial(store.add, nodes), partial(store.async_add, nodes)
                counted.calls.clear()
                seconds["through"].append(_seconds(add))
                calls = list(counted.calls)
                by_hand = partial(_insert, store, encoder, texts, [f"by hand {key}" for key in ids])
                seconds["direct"].append(_seconds(by_hand))
                stalls.append(asyncio.run(_longest_stall(aadd)))
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        results.append(
            {
                "framework": framework,
                "documents": documents,
                "calls_of_the_encoder": calls,
                "seconds_through_framework": medians["through"],
                "seconds_direct": medians["direct"],
                "ratio": medians["through"] / medians["direct"],
                "longest_stalls_ms": [1000 * stall for stall in sorted(stalls)],
            }
        )
    return results


def _insert(store: Any, encoder: SparseTextEncoder, texts: list[str], ids: list[str]) -> None:
    """Encode `texts` in one call, insert them into the store's collection without the framework, and flush."""
    client, name = store.client, store.collection_name
    fields = client.describe_collection(name)["fields"]
    by_type = {field["type"].name: field["name"] for field in fields}
    key = next(field["name"] for field in fields if field.get("is_primary"))
    empty = {"VARCHAR": "", "JSON": {}}
    extra = {field["name"]: empty[field["type"].name] for field in fields if field["type"].name in empty}
    dense, sparse = MadeUpDense().embed_documents(texts), to_dicts(encoder.encode_documents(texts))
    rows = [
        {**extra, key: one, "text": text, by_type["FLOAT_VECTOR"]: vector, by_type["SPARSE_FLOAT_VECTOR"]: row}
        for one, text, vector, row in zip(ids, texts, dense, sparse, strict=True)
    ]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        client.insert(name, rows[start : start + _ROWS_AT_ONCE])
    client.flush(name)


async def _longest_stall(aadd: Callable[[], Any]) -> float:
    """Return the longest time, in seconds, for which adding documents blocked the event loop."""
    gc.collect()
    gc.freeze()  # excludes imported objects from garbage collection, as a server tuned for latency does
    longest, adding = 0.0, asyncio.ensure_future(aadd())
    while not adding.done():
        start = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - start - 0.001)
    await adding
    gc.unfreeze()
    return longest


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="ingest", description="Measure what adding documents through a framework costs."
    )
    parser.add_argument("what", choices=["memory", "time"], help="what to measure")
    parser.add_argument("--documents", type=int, help="number of documents (default: 50000 for memory, 1000 for time)")
    parser.add_argument("--uri", help="Milvus server, for `memory` (default: a milvus-lite file)")
    parser.add_argument("--model", help="SPLADE checkpoint, for `time` (default: the demo's small model)")
    parser.add_argument("--repeats", type=int, default=3, help="number of repeats, for `time` (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    options = parser.parse_args(arguments)
    print(describe_environment())
    results: list[dict[str, Any]] = []
    if options.what == "memory":
        many = options.documents or 50_000
        print(f"peak MiB        1000 documents{many:>8} documents   growth")
        for framework in (_BY_HAND, *_FRAMEWORKS):
            few_mib, many_mib = (measure_memory(framework, count, options.uri) for count in (1000, many))
            results.append({"framework": framework, "documents": many, "peak_mib": many_mib, "peak_mib_1000": few_mib})
            print(f"{framework:<12}{few_mib:18.0f}{many_mib:18.0f}{many_mib - few_mib:+9.0f}", flush=True)
    else:
        quiet()
        encoder = SpladeEncoder(options.model or splade_model_path(), max_length=256)
        results = measure_time(encoder, options.documents or 1000, options.repeats)
        print("              through    direct    ratio   longest stall: median (maximum)   encoder calls")
        for result in results:
            stalls = result["longest_stalls_ms"]
            print(
                f"{result['framework']:<12}{result['seconds_through_framework']:7.2f} s "
                f"{result['seconds_direct']:7.2f} s {result['ratio']:8.3f} "
                f"{statistics.median(stalls):9.1f} ({stalls[-1]:.1f}) ms              {result['calls_of_the_encoder']}"
            )
    write_json(options.json, {"question": f"{options.what} of adding", "results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
