#!/usr/bin/env bash
# LlamaIndex's IngestionPipeline caches each transformation by text and metadata, not by document id.
# A second document of equal text gets the nodes of the first one: the same node ids and the first's ref_doc_id.
# It hits re-ingestion under new ids (a copied file, a new id scheme): the new document has no nodes of its own,
# and deleting the first document from the vector store removes the text of the second.
# The cache is on by default; disable_cache=True gives the expected nodes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet llama-index-core==0.14.25 ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
venv/bin/python - <<'PY'
import sys
from importlib.metadata import version

from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter


def sources(disable_cache):
    pipeline = IngestionPipeline(transformations=[SentenceSplitter()], disable_cache=disable_cache)
    nodes = []
    for key in ("draft", "final"):
        nodes += pipeline.run(documents=[Document(id_=key, text="Pull the red lever to reset the pump.")])
    return [node.ref_doc_id for node in nodes], len({node.node_id for node in nodes})


cached, cached_ids = sources(disable_cache=False)
fresh, fresh_ids = sources(disable_cache=True)
print("llama-index-core", version("llama-index-core"))
print("Seen: the document 'final' gives a node that says it belongs to 'draft', under the node id of 'draft'.")
print("Expected: a cache saves time and changes no result. The documentation says that each node and transformation")
print("  pair is cached, and these are two documents with two ids.")
print("source of the nodes of ['draft', 'final'], default:           ", cached, "distinct node ids:", cached_ids)
print("source of the nodes of ['draft', 'final'], disable_cache=True:", fresh, "distinct node ids:", fresh_ids)
as_described = (cached, cached_ids) == (["draft", "draft"], 1) and (fresh, fresh_ids) == (["draft", "final"], 2)
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY
