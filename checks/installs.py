"""Check in clean environments that pip installs the frameworks' extras, alone and together, and that a search works.

    python -m checks.installs [--wheel FILE] [EXTRA …]

For each framework, the README has an example that uses a dense model. The check also installs the packages that this
dense model needs. Only torch's version is pinned. Then the check tests the version bounds in pyproject.toml: pip must
refuse combinations of versions that are known to fail. With `--wheel`, every extra is installed from a built wheel. Use
this option before a release. The check uses only the standard library, because it runs before anything is installed. It
takes minutes and downloads about 300 MB, or more if pip chooses a CUDA build of torch.
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = "torch==2.13.0"
EXTRAS = ("langchain", "llama-index", "langchain,llama-index")
# The other extras. They are checked only before a release.
OTHERS = (
    *("milvus", "cli", "serve", "remote", "evaluate", "openvino", "peft", "ray", "bulk", "demo"),
    *("langchain-milvus", "llama-index-milvus", "all"),
)
# The packages that the README's examples need for their dense models.
RECIPES = {
    "langchain": ("langchain-huggingface", "sentence-transformers"),
    "llama-index": ("llama-index-embeddings-huggingface",),
}
SHOWN = ("pymilvus", "milvus-lite", "langchain-milvus", "llama-index-vector-stores-milvus")
# Each entry is an extra, and the versions that pip must refuse to install together with this extra.
UNRESOLVABLE = (
    ("langchain", "langchain-milvus==0.3.3", "pymilvus==2.6.8"),
    ("langchain-milvus", "langchain-milvus==0.3.3", "pymilvus==2.6.17"),
    ("langchain", "milvus-lite==3.2.1"),
    ("milvus", "milvus-lite==3.1.0"),
    ("milvus", "tokenizers==0.23.2"),
    ("openvino", "openvino==2025.4.1"),
    ("llama-index-milvus", "pymilvus==3.0.2"),
    ("langchain-milvus,llama-index-milvus", "pymilvus==2.6.17"),
)
# This search only checks that the packages work together. So it needs no model, and encodes texts by made-up rules.
SEARCH = """
import importlib.metadata, importlib.util, sys, tempfile
import numpy as np
from scipy.sparse import csr_array

WORDS = "turing broke enigma lovelace wrote program hopper made compiler".split()

class Encoder:
    def encode_documents(self, texts):
        return csr_array(np.array([[float(w in t.split()) for w in WORDS] for t in texts], np.float32))
    encode_queries = encode_documents

def vector(text):
    return [1.0 + text.count(letter) for letter in "aeiost"]

TEXTS = {"turing": "turing broke enigma", "lovelace": "lovelace wrote program", "hopper": "hopper made compiler"}
found = {}
import splade_integrations.encoder
if importlib.util.find_spec("pymilvus"):
    import splade_integrations.milvus
if "serve" in sys.argv[1]:
    import splade_integrations.serving.server
if "remote" in sys.argv[1]:
    import splade_integrations.serving.remote
if {"cli", "serve", "evaluate", "all"} & set(sys.argv[1].split(",")):
    import pathlib, subprocess
    subprocess.run([pathlib.Path(sys.executable).with_name("splade"), "--help"], check=True, capture_output=True)
if sys.argv[1] == "ray":
    import splade_integrations.ray
if sys.argv[1] == "bulk":
    import splade_integrations.milvus.bulk_files, splade_integrations.milvus.bulk_import
if "evaluate" in sys.argv[1]:
    import splade_integrations.evaluation.plots
if "langchain" in sys.argv[1].split(","):
    from langchain_core.embeddings import Embeddings
    from splade_integrations.langchain import SpladeSparseEmbedding, hybrid_milvus
    class Dense(Embeddings):
        def embed_query(self, text): return vector(text)
        def embed_documents(self, texts): return [vector(text) for text in texts]
    store = hybrid_milvus(Dense(), SpladeSparseEmbedding(encoder=Encoder()), uri=tempfile.mkdtemp() + "/a.db")
    store.add_texts(list(TEXTS.values()), ids=list(TEXTS))
    found["LangChain"] = [d.id for d in store.similarity_search("turing broke enigma", k=3)]
if "llama-index" in sys.argv[1].split(","):
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores.types import VectorStoreQuery
    from splade_integrations.llama_index import HybridMilvusVectorStore, SpladeSparseEmbedding
    sparse = SpladeSparseEmbedding(encoder=Encoder())
    store = HybridMilvusVectorStore(tempfile.mkdtemp() + "/b.db", dim=6, sparse_embedding_function=sparse)
    store.add([TextNode(id_=name, text=text, embedding=vector(text)) for name, text in TEXTS.items()])
    text = "turing broke enigma"
    query = VectorStoreQuery(query_str=text, query_embedding=vector(text), similarity_top_k=3, mode="hybrid")
    found["LlamaIndex"] = store.query(query).ids
for framework, ids in found.items():
    assert ids[0] == "turing" and len(ids) == 3, (framework, ids)
print(f"{', '.join(found)} found it" if found else "imports")
"""


def main(extras: list[str], wheel: Path | None = None) -> int:
    """Check each extra and all version bounds, and return the exit status."""
    source = str((wheel or ROOT).resolve())
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, extra in enumerate(extras):
            failed += not _installs_and_searches(Path(folder) / str(number), source, extra)
        resolver = Path(folder) / "resolver"
        _make(resolver)
        for extra, *versions in UNRESOLVABLE:
            failed += not _is_refused(resolver, extra, versions)
    return int(failed > 0)


def _installs_and_searches(environment: Path, source: str, extra: str) -> bool:
    python = _make(environment)
    constraint = environment / "torch.txt"
    constraint.write_text(TORCH + "\n", encoding="utf-8")
    install = [python, "-m", "pip", "install", "--quiet", "-c", str(constraint)]
    recipe = [package for framework in extra.split(",") for package in RECIPES.get(framework, ())]
    steps = (
        [*install, f"{source}[{extra}]"],
        *([[*install, *recipe]] if recipe else []),
        [python, "-m", "pip", "check"],
        [python, "-c", SEARCH, extra],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, cwd=environment)
        if done.returncode:
            print(f"[{extra}] FAILED: {done.stdout[-1000:]}\n{done.stderr[-3000:]}", flush=True)
            return False
    listed = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True).stdout.split()
    versions = " ".join(line for line in listed if line.startswith(tuple(f"{name}==" for name in SHOWN)))
    print(f"[{extra}] {versions}: {done.stdout.strip()}", flush=True)
    return True


def _is_refused(environment: Path, extra: str, versions: list[str]) -> bool:
    command = [str(environment / "bin" / "python"), "-m", "pip", "install", "--dry-run", "--quiet", f"{ROOT}[{extra}]"]
    done = subprocess.run([*command, TORCH, *versions], capture_output=True, text=True)
    refused = done.returncode != 0 and "ResolutionImpossible" in done.stderr
    print(f"[{extra}] with {' '.join(versions)}: {'refused by pip, as it should be' if refused else 'FAILED'}")
    if not refused:
        print(done.stderr[-1000:])
    return refused


def _make(environment: Path) -> str:
    venv.create(environment, with_pip=True)
    return str(environment / "bin" / "python")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m checks.installs", description="Check installs in clean environments."
    )
    parser.add_argument("--wheel", type=Path, help="a built wheel to install; the default is this repository")
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help=f"one or more of: {' '.join(EXTRAS + OTHERS)}")
    arguments = parser.parse_args()
    extras = arguments.extras or [*EXTRAS, *(OTHERS if arguments.wheel else ())]
    if unknown := set(extras) - set(EXTRAS + OTHERS):
        parser.error(f"EXTRA must be one of {' '.join(EXTRAS + OTHERS)}, got {' '.join(sorted(unknown))}.")
    sys.exit(main(extras, arguments.wheel))
