#!/usr/bin/env bash
# LlamaIndex's IngestionPipeline caches each transformation by text and metadata, not by document id.
# A second document of equal text gets the nodes of the first document, with its node ids and its ref_doc_id.
# This affects texts that are ingested again under new ids, such as a copied file. The new document has no nodes,
# and if the first document is deleted from the vector store, the text of the second document is gone.
# The cache is on by default. With disable_cache=True, the nodes are as expected.
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
print("Seen: the node of the document 'final' has the node id of 'draft', and names 'draft' as its source.")
print("Expected: a cache saves time and changes no result. The documentation says that each pair of a node and a")
print("  transformation is cached, and these are two documents with two ids.")
print("source of the nodes of ['draft', 'final'], default:           ", cached, "distinct node ids:", cached_ids)
print("source of the nodes of ['draft', 'final'], disable_cache=True:", fresh, "distinct node ids:", fresh_ids)
as_described = (cached, cached_ids) == (["draft", "draft"], 1) and (fresh, fresh_ids) == (["draft", "final"], 2)
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY
