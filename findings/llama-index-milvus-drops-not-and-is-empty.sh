#!/usr/bin/env bash
# LlamaIndex's Milvus store ignores two kinds of metadata filter without an error.
# FilterCondition.NOT around one filter returns exactly the nodes that it should leave out.
# FilterOperator.IS_EMPTY filters nothing, so every node is returned.
# This affects every query with one of these filters. It also affects delete_nodes(filters=...), which uses
# the same code: with a NOT filter, it deletes the nodes that should stay.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet llama-index-vector-stores-milvus==1.2.0 llama-index-core==0.14.25 \
  pymilvus==2.6.17 milvus-lite==3.2.2 ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
venv/bin/python - <<'PY'
import sys
from importlib.metadata import version

from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from llama_index.vector_stores.milvus import MilvusVectorStore

store = MilvusVectorStore(uri="store.db", dim=2, similarity_metric="COSINE")
store.add(
    [
        TextNode(id_="draft", text="a", metadata={"state": "draft"}, embedding=[1.0, 0.0]),
        TextNode(id_="final", text="b", metadata={"state": "final", "owner": "Ann"}, embedding=[1.0, 0.1]),
        TextNode(id_="sent", text="c", metadata={"state": "sent", "owner": "Bob"}, embedding=[1.0, 0.2]),
    ]
)


def found(filters=None):
    answer = store.query(VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=10, filters=filters))
    return sorted(answer.ids)


is_draft = MetadataFilter(key="state", value="draft")
has_no_owner = MetadataFilter(key="owner", value=None, operator=FilterOperator.IS_EMPTY)
not_draft = MetadataFilters(filters=[is_draft], condition=FilterCondition.NOT)
found_not = found(not_draft)
found_empty = found(MetadataFilters(filters=[has_no_owner]))
store.delete_nodes(filters=not_draft)
left = found()
store.client.close()
for package in ("llama-index-vector-stores-milvus", "llama-index-core", "pymilvus", "milvus-lite"):
    print(package, version(package))
print("Seen: NOT of one filter gives the opposite set, and IS_EMPTY gives every node.")
print('Expected: llama-index-core describes NOT as "negates the filter condition"')
print('  and IS_EMPTY as "the field is not exist or empty". A filter that a store cannot apply should raise an error.')
print("NOT (state == draft), expected ['final', 'sent']:", found_not)
print("owner IS_EMPTY, expected ['draft']:", found_empty)
print("left after delete_nodes(NOT (state == draft)), expected ['draft']:", left)
as_described = (found_not, found_empty, left) == (["draft"], ["draft", "final", "sent"], ["final", "sent"])
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY
