#!/usr/bin/env bash
# If a hybrid search has several queries, milvus-lite 2.5.1 does not start the ranks of each query at 1.
# The first query's best hit has rank 1. The second query's best hit has rank 1 + the number of hits of the first.
# So reciprocal rank fusion gives a query lower scores in a batch than alone. The later the query comes in the batch,
# the lower its scores are, and the less they differ from each other.
# This affects users who send many queries at once, and compare scores or use a cutoff.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet pymilvus==2.6.7 milvus-lite==2.5.1 'setuptools<82' ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
venv/bin/python -W ignore - <<'PY'
import sys
from importlib.metadata import version

from pymilvus import AnnSearchRequest, DataType, MilvusClient, RRFRanker

ROWS, K = 3, 60
client = MilvusClient("store.db")
schema = client.create_schema(auto_id=False)
schema.add_field("id", DataType.INT64, is_primary=True)
index = client.prepare_index_params()
for side in ("left", "right"):
    schema.add_field(side, DataType.FLOAT_VECTOR, dim=2)
    index.add_index(side, index_type="FLAT", metric_type="IP")
client.create_collection("pages", schema=schema, index_params=index)
client.insert("pages", [{"id": 1, "left": [1.0, 0.0], "right": [1.0, 0.0]},
                        {"id": 2, "left": [0.0, 1.0], "right": [0.0, 1.0]},
                        {"id": 3, "left": [0.6, 0.8], "right": [0.8, 0.6]}])


def ask(*queries):
    sides = [AnnSearchRequest(list(queries), side, {"metric_type": "IP"}, ROWS) for side in ("left", "right")]
    found = client.hybrid_search("pages", sides, RRFRanker(K), limit=ROWS)
    return [[(hit["id"], round(hit["distance"], 6)) for hit in hits] for hits in found]


first, second = [1.0, 0.0], [0.0, 1.0]
together, [alone] = ask(first, second), ask(second)
client.close()
print("milvus-lite", version("milvus-lite"), "pymilvus", version("pymilvus"))
print("Seen: the second query of a hybrid search gets lower scores than the same query alone.")
print("Expected: each query of a batch is ranked from 1, as milvus-lite 3.2.2 does.")
print("second query, alone:  ", alone)
print("second query, second: ", together[1])
as_rank_one = round(2 / (K + 1), 6)
as_rank_four = round(2 / (K + ROWS + 1), 6)
as_described = alone[0] == (2, as_rank_one) and together[1][0] == (2, as_rank_four)
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY
