"""Inference-free queries load neither torch nor transformers, and work if neither is installed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from llama_index.core.schema import TextNode
from milvus_lite.server_manager import server_manager_instance

from splade_integrations import SpladeEncoder, to_dicts
from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
from splade_integrations.llama_index import HybridMilvusVectorStore
from splade_integrations.llama_index import SpladeSparseEmbedding as LlamaIndexEmbedding
from tests.support.adapters import DIM, HashEmbeddings
from tests.test_package import run_without

TEXTS = ["Alan Turing broke the Enigma cipher.", "Grace Hopper made the first compiler."]
QUERY = "Who cracked Enigma?"
ABSENT = {"torch", "transformers", "sentence_transformers"}


@pytest.fixture(scope="module")
def free_folder(model_folder, tmp_path_factory) -> str:
    """Return a folder with the tiny model for documents and a table of weights for queries, as OpenSearch has."""
    folder = tmp_path_factory.mktemp("inference-free") / "model"
    shutil.copytree(model_folder, folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "idf.json").write_text(json.dumps({token: 1 + number % 7 / 3 for token, number in vocabulary.items()}))
    return str(folder)


def printed(done: subprocess.CompletedProcess) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "make",
    ["SpladeEncoder({!r})", "SpladeEmbeddingFunction({!r})", "SpladeEncoder({!r}, device='cpu', dtype='float32')"],
)
def test_a_query_loads_neither(free_folder, make):
    code = f"""
import sys
from splade_integrations import SpladeEncoder, to_dicts
from splade_integrations.milvus import SpladeEmbeddingFunction
encoder = {make.format(free_folder)}
print(to_dicts(encoder.encode_queries([{QUERY!r}])), encoder.dim)
repr(encoder), getattr(encoder, "fingerprint", None), getattr(encoder, "max_length", None)
print(sorted({{"torch", "transformers", "pymilvus", "tqdm", "pandas"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    encoder = SpladeEncoder(free_folder)
    encoder.encode_documents(TEXTS)  # the transformer is loaded, and the query's row must not depend on it
    assert printed(done) == [f"{to_dicts(encoder.encode_queries([QUERY]))} {encoder.dim}", "[]"]


def test_where_neither_is_installed_a_query_works_and_a_document_says_what_is_missing(free_folder, model_folder):
    code = f"""
from splade_integrations import OptionalDependencyError, SpladeEncoder
encoder = SpladeEncoder({free_folder!r})
weights = encoder.encode_queries([{QUERY!r}])
print([token for token, _ in encoder.decode(weights)[0]], encoder.fingerprint.max_length)
for ask in (
    lambda: encoder.encode_documents(["a"]),
    lambda: encoder.tokenizer,
    lambda: encoder.device,
    lambda: SpladeEncoder({free_folder!r}, dtype="bfloat16"),
    lambda: SpladeEncoder({model_folder!r}),
):
    try:
        print("no error", ask())
    except OptionalDependencyError as err:
        print(err)
"""
    first, *errors = printed(run_without(ABSENT, code))
    encoder = SpladeEncoder(free_folder)
    tokens = [token for token, _ in encoder.decode(encoder.encode_queries([QUERY]))[0]]
    assert first == f"{tokens} {encoder.fingerprint.max_length}"
    needs = [
        "torch for the transformer that encodes documents", "transformers for its tokenizer",
        "torch for its device and number type", "torch for its device and number type",
        "torch for the transformer that encodes queries",
    ]  # fmt: skip
    for error, need in zip(errors, needs, strict=True):
        assert f"needs {need}, but {need.partition(' ')[0]} is not installed." in error
        assert "Install it with: pip install torch transformers." in error


def test_collections_are_searched_where_neither_is_installed(free_folder, tmp_path):
    langchain, llama_index = f"{tmp_path}/langchain.db", f"{tmp_path}/llama_index.db"
    store = hybrid_milvus(HashEmbeddings(), SpladeSparseEmbedding(model_name=free_folder), uri=langchain)
    store.add_texts(TEXTS, ids=["turing", "hopper"])
    store.client.close()
    nodes = HybridMilvusVectorStore(
        uri=llama_index, dim=DIM, sparse_embedding_function=LlamaIndexEmbedding(model_name=free_folder)
    )
    embedded = zip(["turing", "hopper"], TEXTS, HashEmbeddings().embed_documents(TEXTS), strict=True)
    nodes.add([TextNode(id_=key, text=text, embedding=vector) for key, text, vector in embedded])
    nodes.client.close()
    for uri in (langchain, llama_index):
        server_manager_instance.release_server(uri)  # this also happens when the process ends
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from tests.support.adapters import DIM, HashEmbeddings
from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
store = hybrid_milvus(HashEmbeddings(), SpladeSparseEmbedding(model_name={free_folder!r}), uri={langchain!r})
print([document.id for document in store.similarity_search({QUERY!r}, k=1, mode="sparse")])
print(len(store.similarity_search({QUERY!r})))

from llama_index.core.vector_stores.types import VectorStoreQuery
from splade_integrations.llama_index import HybridMilvusVectorStore, SpladeSparseEmbedding
nodes = HybridMilvusVectorStore(
    uri={llama_index!r}, dim=DIM, sparse_embedding_function=SpladeSparseEmbedding(model_name={free_folder!r})
)
asked = VectorStoreQuery(
    query_str={QUERY!r}, query_embedding=HashEmbeddings().embed_query({QUERY!r}), similarity_top_k=1, mode="sparse"
)
print(nodes.query(asked).ids)
print(sorted({ABSENT!r} & sys.modules.keys()))
"""
    assert printed(run_without(ABSENT, code)) == ["['turing']", "2", "['turing']", "[]"]
