#!/usr/bin/env bash
# milvus-lite accepts a dense search with another metric than the index has, but flush() changes its answer.
# While the rows are in memory, it computes the requested metric. After flush(), it computes the index's cosine.
# So the same search over the same rows has other scores and another order after flush().
# This affects users whose search parameters name a metric that the index no longer has.
# Tests on a milvus-lite file that is not flushed pass, but the flushed file ranks differently.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet pymilvus==3.0.2 milvus-lite==3.2.2 ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
venv/bin/python - <<'PY'
import sys
from importlib.metadata import version

from pymilvus import DataType, MilvusClient

client = MilvusClient("store.db")
schema = client.create_schema(auto_id=False)
schema.add_field("id", DataType.INT64, is_primary=True)
schema.add_field("dense", DataType.FLOAT_VECTOR, dim=2)
index = client.prepare_index_params()
index.add_index("dense", index_type="FLAT", metric_type="COSINE")
client.create_collection("pages", schema=schema, index_params=index)
client.insert("pages", [{"id": 1, "dense": [10.0, 0.0]}, {"id": 2, "dense": [1.0, 0.5]}])


def by(metric):
    hits = client.search("pages", [[1.0, 0.0]], anns_field="dense", limit=2, search_params={"metric_type": metric})
    return [(hit["id"], round(hit["distance"], 3)) for hit in hits[0]]


cosine, before = by("COSINE"), by("L2")
client.flush("pages")
cosine_after, after = by("COSINE"), by("L2")
client.close()
print("milvus-lite", version("milvus-lite"), "pymilvus", version("pymilvus"))
print("Seen: on a COSINE index, a search by L2 is accepted, and flush() reverses the order of its results.")
print("Expected: flush() writes rows to disk and changes no result. Another metric than the index's should be refused,")
print("  as milvus-lite does for sparse vectors.")
print("by COSINE, before and after flush():", cosine, cosine_after)
print("by L2, before flush():", before)
print("by L2, after flush(): ", after)
as_described = cosine == cosine_after and [key for key, _ in before] == [2, 1] and [key for key, _ in after] == [1, 2]
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY
