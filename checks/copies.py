"""Check that `splade add-sparse` makes a correct copy, even if it is killed while the original changes.

    python -m checks.copies [--rows 5000] [--kills 10] [--kinds LangChain LlamaIndex pymilvus] [--seed 0]

The check makes three kinds of collections on milvus-lite's server: one by langchain-milvus, one by LlamaIndex's Milvus
store, and one by plain pymilvus. The last one has a schema of its own, numbers as keys, partitions and BM25. Again and
again, the check runs `splade add-sparse`, and kills it (SIGKILL) at a random moment. Meanwhile, a writer adds, changes
and deletes rows of the original. At the end, the check compares every row, field, partition, index and property of the
copy with those of the original, and every SPLADE vector with the encoder's. Then it searches the copy through both of
this package's stores. Both stores also index the same rows in new collections, and these collections must return the
same hits as the copy. The exit status is 1 if anything differs.
"""

import argparse
import json
import random
import signal
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.core.vector_stores.utils import metadata_dict_to_node
from pymilvus import DataType, Function, FunctionType, MilvusClient

from splade_integrations import SpladeEncoder, to_dicts
from splade_integrations.adapter import document_terms
from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
from splade_integrations.llama_index import HybridMilvusVectorStore
from splade_integrations.llama_index import SpladeSparseEmbedding as LlamaIndexEmbedding
from splade_integrations.models.offline import splade_model_path
from tests.support import collections
from tests.support.adapters import DIM, HashEmbeddings, unit_vector
from tests.support.server import milvus_lite_server

__all__ = ["KINDS", "check", "main"]

_QUERIES = 30
_COMMAND = "from splade_integrations.cli import main; main()"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status, which is 1 if a copy is wrong."""
    parser = argparse.ArgumentParser(description="Check splade add-sparse.")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    faults = []
    for kind in options.kinds:
        with milvus_lite_server() as uri:
            found = check(kind, uri, rows=options.rows, kills=options.kills, seed=options.seed)
        faults += [f"{kind}: {fault}" for fault in found]
    print("\n".join(faults) or "Every row, field, index and hit is right.")
    return bool(faults)


def check(kind: str, uri: str, *, rows: int, kills: int, seed: int, beside: bool = True) -> list[str]:
    """Make a collection, run `splade add-sparse` on it, and return what is wrong.

    Args:
        kind: A key of `KINDS`.
        uri: A server without other collections.
        rows: The number of rows at the beginning.
        kills: How often the command is killed.
        seed: The seed of the texts and of the moments of the kills.
        beside: Whether one run must end while the writer still writes.
    """
    rng, client = random.Random(seed), MilvusClient(uri)
    texts = _texts(rng, rows)
    text_field = KINDS[kind](uri, texts)
    client.load_collection("original")
    made_of = shape(client, "original")
    command = [sys.executable, "-c", _COMMAND, "add-sparse", "--uri", uri, "-c", "original"]
    command += ["-m", splade_model_path(), "--text-field", text_field, "--json"]
    start = time.perf_counter()
    with _Writer(uri, text_field, random.Random(seed + 1)) as writer:
        killed = sum(_run_and_kill(command, client, rng.uniform(0, rows / kills)) for _ in range(kills))
        ended = _run(command, client) if beside else None
    print(f"{kind}: {rows} rows, killed {killed} times, {writer.writes} writes beside it")
    if ended is not None:
        print(f"{kind}: the run beside the writer: exit status {ended.returncode} {ended.stderr.strip()[:160]}")
    last = _run(command, client)
    print(
        f"{kind}: the run after the writer: exit status {last.returncode}, {time.perf_counter() - start:.0f} s in all"
    )
    if last.returncode:
        return [f"the last run failed: {last.stderr}"]
    report = json.loads(last.stdout)
    faults = [] if report["unsettled"] == 0 else ["the command's last comparison still found differences"]
    faults += _wrong_rows(client, text_field, report, writer.expected, made_of)
    faults += _wrong_hits(kind, uri, text_field, report, rng)
    if kind == "pymilvus":
        faults += _numbers_given_again(client, report)
    print(f"{kind}: {report['rows']} rows compared, {len(faults)} faults")
    return faults


def _texts(rng: random.Random, rows: int) -> list[str]:
    words = sorted({word for word in Path(string.__file__).read_text().split() if word.isalpha()})
    return [" ".join(rng.choices(words, k=rng.randint(4, 16))) for _ in range(rows)]


def dump(client: MilvusClient, name: str) -> dict[str, dict[Any, dict[str, Any]]]:
    """Return {partition: {key: row}} of a collection, read without this package."""
    return dict(collections.dump(client, name))  # type: ignore[no-untyped-call]  # the tests are untyped


def shape(client: MilvusClient, name: str, without: Sequence[str] = ()) -> str:
    """Return the fields, functions and indexes of a collection as text, without the fields in `without`."""
    return str(collections.shape(client, name, without))  # type: ignore[no-untyped-call]


def _vector(text: str) -> list[float]:
    """Return a dense vector that depends only on the text."""
    return [float(number) for number in unit_vector(text)]  # type: ignore[no-untyped-call]


# The kinds of collections. Each function makes the collection "original", and returns the name of its text field.


def _by_langchain(uri: str, texts: list[str]) -> str:
    from langchain_milvus import Milvus

    store = Milvus(
        HashEmbeddings(),
        collection_name="original",
        connection_args={"uri": uri},
        index_params={"index_type": "FLAT", "metric_type": "COSINE", "params": {}},
        enable_dynamic_field=True,
    )
    for start in range(0, len(texts), 1000):
        some = range(start, min(start + 1000, len(texts)))
        metadata = [{"n": n, "tag": ["even", "odd"][n % 2]} for n in some]
        store.add_texts([texts[n] for n in some], metadata, ids=[f"key {n}" for n in some])
    return "text"


def _by_llama_index(uri: str, texts: list[str]) -> str:
    from llama_index.vector_stores.milvus import MilvusVectorStore

    store = MilvusVectorStore(uri, dim=DIM, collection_name="original", use_async_client=False)
    nodes = [
        TextNode(id_=f"node {n}", text=text, metadata={"tag": ["even", "odd"][n % 2], "n": n})
        for n, text in enumerate(texts)
    ]
    for node in nodes:
        node.embedding = _vector(node.get_content(metadata_mode=MetadataMode.EMBED))
    store.add([*nodes])
    return "text"


def _by_pymilvus(uri: str, texts: list[str]) -> str:
    client = MilvusClient(uri)
    schema = client.create_schema(auto_id=True)
    schema.add_field("number", DataType.INT64, is_primary=True)
    schema.add_field("body", DataType.VARCHAR, max_length=2000, enable_analyzer=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_field("year", DataType.INT32, nullable=True)
    schema.add_field("note", DataType.JSON)
    schema.add_function(Function("bm25", FunctionType.BM25, ["body"], ["words"]))
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="FLAT", metric_type="COSINE")
    indexes.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    client.create_collection("original", schema=schema, index_params=indexes, properties={"owner": "me"})
    client.create_partition("original", "archive")
    for start in range(0, len(texts), 500):
        rows = [
            {
                "body": text,
                "vector": _vector(text),
                "year": None if n % 3 else 1900 + n % 100,
                "note": {"n": n, "parts": [text[:5], None, 1.5]},
            }
            for n, text in enumerate(texts[start : start + 500], start)
        ]
        client.insert("original", rows, partition_name=["_default", "archive"][start // 500 % 2])
    return "body"


KINDS: dict[str, Callable[[str, list[str]], str]] = {
    "LangChain": _by_langchain,
    "LlamaIndex": _by_llama_index,
    "pymilvus": _by_pymilvus,
}


class _Writer:
    """Adds, changes and deletes rows of the original from a thread of its own, until the `with` block ends.

    Attributes:
        expected: The rows that the original must hold, as {partition: {key: row}}.
        writes: The number of rows written and deleted.
    """

    def __init__(self, uri: str, text_field: str, rng: random.Random) -> None:
        self._client, self._text_field, self._rng = MilvusClient(uri), text_field, rng
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.expected, self.writes = dump(self._client, "original"), 0
        fields = self._client.describe_collection("original")["fields"]
        self._vector = next(one["name"] for one in fields if one["type"] == DataType.FLOAT_VECTOR)
        key = next(one for one in fields if one.get("is_primary"))
        self._key, self._numbers = key["name"], bool(key.get("auto_id"))

    def __enter__(self) -> "_Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._ends.wait(0.2):
            partition = self._rng.choice([name for name, rows in self.expected.items() if rows])
            rows = self.expected[partition]
            if self._rng.random() < 0.25 and len(rows) > 20:
                gone = self._rng.sample(sorted(rows), 3)
                # This is a filter, because pymilvus does not escape keys that are passed as `ids=`.
                self._client.delete("original", filter=f"{self._key} in {json.dumps(gone)}")
                self.expected[partition] = {key: row for key, row in rows.items() if key not in gone}
            else:
                new = [self._varied(rows[key]) for key in self._rng.sample(sorted(rows), 3)]
                given = [{k: v for k, v in row.items() if k != self._key or not self._numbers} for row in new]
                ids = self._client.insert("original", given, partition_name=partition)["ids"]
                rows |= {key: {**row, self._key: key} for key, row in zip(ids, new, strict=True)}
            self.writes += 3

    def _varied(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row with another text and, in half of the cases, with another key."""
        # No two rows get the same text, because a search may return rows with equal scores in any order.
        text = f"{row[self._text_field]} {self._rng.choice(['changed', 'again', 'late'])} {self._rng.random()}"
        new = {**row, self._text_field: text}
        new[self._vector] = np.array(_vector(_embedded(new, self._text_field)), np.float32).tolist()
        return new if self._rng.random() < 0.5 else {**new, self._key: f"{row[self._key]}'{self._rng.random()}"}


# The runs of the command


def _run(command: list[str], client: MilvusClient) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*command, *_resume(client)], capture_output=True, text=True)


def _run_and_kill(command: list[str], client: MilvusClient, rows: float) -> bool:
    """Kill a run after it has written about `rows` rows. Return False if the run ended before it was killed."""
    before = _count(client)
    with subprocess.Popen([*command, *_resume(client)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        while run.poll() is None and _count(client) < before + rows:
            time.sleep(0.02)
        time.sleep(random.random() / 10)
        run.send_signal(signal.SIGKILL)
        run.communicate()
    return run.returncode == -signal.SIGKILL


def _resume(client: MilvusClient) -> list[str]:
    return ["--resume"] if client.has_collection("original_splade") else []


def _count(client: MilvusClient) -> int:
    if not client.has_collection("original_splade"):
        return 0
    return int(client.get_collection_stats("original_splade")["row_count"])


# The comparisons at the end


def _wrong_rows(
    client: MilvusClient, text_field: str, report: dict[str, Any], expected: dict[str, Any], made_of: str
) -> list[str]:
    faults = []
    original, copy, field = dump(client, "original"), dump(client, "original_splade"), report["sparse_field"]
    if original != expected or shape(client, "original") != made_of:
        faults.append("the original is not as its writer left it")
    without = {
        part: {key: {k: v for k, v in row.items() if k != field} for key, row in rows.items()}
        for part, rows in copy.items()
    }
    if without != original:
        faults.append("the rows or fields differ")
    if shape(client, "original_splade", without=[field]) != made_of:
        faults.append("the fields, functions or indexes differ")
    properties = client.describe_collection("original")["properties"]
    if not properties.items() <= client.describe_collection("original_splade")["properties"].items():
        faults.append("the properties differ")
    rows = [row for found in copy.values() for row in found.values()]
    texts = [_embedded(row, text_field) for row in rows]
    encoder = SpladeEncoder(splade_model_path())
    right = [
        document_terms(terms, text)
        for terms, text in zip(to_dicts(encoder.encode_documents(texts)), texts, strict=True)
    ]
    wrong = sum(not _close(row[field], terms) for row, terms in zip(rows, right, strict=True))
    return faults + ([f"{wrong} SPLADE vectors differ"] if wrong else [])


def _embedded(row: dict[str, Any], text_field: str) -> str:
    """Return the text that a row's vectors are computed from. For a node, LlamaIndex itself returns this text."""
    if "_node_content" not in row:
        return str(row[text_field])
    node = metadata_dict_to_node(row, text=row[text_field])
    return str(node.get_content(metadata_mode=MetadataMode.EMBED))


def _close(found: dict[int, float], right: dict[int, float]) -> bool:
    """Return whether two rows are equal, except for rounding, which depends on the other texts in a batch."""
    return all(abs(found.get(term, 0.0) - right.get(term, 0.0)) < 1e-4 for term in found.keys() | right)


def _wrong_hits(kind: str, uri: str, text_field: str, report: dict[str, Any], rng: random.Random) -> list[str]:
    client, encoder = MilvusClient(uri), SpladeEncoder(splade_model_path())
    fields = client.describe_collection("original")["fields"]
    vector = next(one["name"] for one in fields if one["type"] == DataType.FLOAT_VECTOR)
    key = next(one["name"] for one in fields if one.get("is_primary"))
    rows = [row for found in dump(client, "original").values() for row in found.values()]
    questions = [" ".join(rng.sample(row[text_field].split(), 3)) for row in rng.sample(rows, _QUERIES)]
    found: dict[str, list[list[Any]]] = {}
    sparse = SpladeSparseEmbedding(encoder=encoder)
    ours = hybrid_milvus(
        HashEmbeddings(),
        sparse,
        uri=uri,
        collection_name="original_splade",
        vector_field=[vector, report["sparse_field"]],
        text_field=text_field,
    )
    ids, made = [str(row[key]) for row in rows], [_embedded(row, text_field) for row in rows]
    anew = hybrid_milvus(HashEmbeddings(), sparse, collection_name="anew", uri=uri)
    anew.add_texts(made, ids=ids)
    for name, store in {"copy": ours, "anew": anew}.items():
        hits = [store.similarity_search_with_score(question, k=10) for question in questions]
        found[name] = [[(document.id, score) for document, score in some] for some in hits]
    faults = [f"LangChain: {fault}" for fault in _differing(found["copy"], found["anew"])]
    function = LlamaIndexEmbedding(encoder=encoder)
    theirs = HybridMilvusVectorStore(
        uri,
        collection_name="original_splade",
        sparse_embedding_function=function,
        text_key=text_field,
        embedding_field=vector,
    )
    second = HybridMilvusVectorStore(uri, collection_name="anew_2", sparse_embedding_function=function)
    second.add([TextNode(id_=id_, text=text, embedding=_vector(text)) for id_, text in zip(ids, made, strict=True)])
    for name, index in {"copy": theirs, "anew": second}.items():
        answers = [index.query(_query(question)) for question in questions]
        found[name] = [list(zip(one.ids or [], one.similarities or [], strict=True)) for one in answers]
    faults += [f"LlamaIndex: {fault}" for fault in _differing(found["copy"], found["anew"])]
    for name in ("anew", "anew_2"):
        client.drop_collection(name)
    return faults


def _query(text: str) -> VectorStoreQuery:
    mode = VectorStoreQueryMode.HYBRID
    return VectorStoreQuery(query_str=text, query_embedding=_vector(text), mode=mode, similarity_top_k=10)


def _differing(copy: list[list[Any]], anew: list[list[Any]]) -> list[str]:
    """Return one message for each question whose hits differ. Hits with equal scores may come in any order."""
    faults = []
    for position, (found, right) in enumerate(zip(copy, anew, strict=True)):
        least = min((score for _, score in right), default=0.0) + 1e-9
        sure = [{id_ for id_, score in hits if score > least} for hits in (found, right)]
        scores = [np.array([score for _, score in hits]) for hits in (found, right)]
        if len(found) != len(right) or sure[0] != sure[1] or not np.allclose(scores[0], scores[1], atol=1e-9):
            faults.append(f"the hits of question {position} differ: {found} and {right}")
    return faults


def _numbers_given_again(client: MilvusClient, report: dict[str, Any]) -> list[str]:
    before = client.get_collection_stats("original_splade")["row_count"]
    row = {"body": "new", "vector": _vector("new"), "year": None, "note": {}, report["sparse_field"]: {1: 1.0}}
    client.insert("original_splade", [dict(row) for _ in range(20)])
    after = client.get_collection_stats("original_splade")["row_count"]
    return [] if after == before + 20 else ["new rows got the keys of stored rows, and replaced them"]


if __name__ == "__main__":
    sys.exit(main())
