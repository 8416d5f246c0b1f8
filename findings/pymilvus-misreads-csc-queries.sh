#!/usr/bin/env bash
# In a search, pymilvus reads every scipy sparse row as if it were in CSR form.
# In CSC form, the indices are row numbers, which are all 0 for a single row. So the search asks for term 0,
# and finds the documents of the wrong term, or none. insert() stores the same object correctly.
# This affects queries that come from a transposition or a column-wise computation (X.T, tocsc()).
# No error is raised, although COO, DOK and LIL rows raise errors.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet pymilvus==3.0.2 milvus-lite==3.2.2 scipy==1.17.1 ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
venv/bin/python - <<'PY'
import sys
from importlib.metadata import version

import numpy as np
from pymilvus import DataType, MilvusClient
from scipy.sparse import csr_array

client = MilvusClient("store.db")
schema = client.create_schema(auto_id=False)
schema.add_field("id", DataType.INT64, is_primary=True)
schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
index = client.prepare_index_params()
index.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
client.create_collection("pages", schema=schema, index_params=index)
client.insert("pages", [{"id": 1, "sparse": {0: 9.0}}, {"id": 2, "sparse": {2: 2.0}}, {"id": 3, "sparse": {3: 3.0}}])
query = csr_array(np.array([[0.0, 0.0, 1.0, 1.0]]))


def found(row):
    return [(hit["id"], hit["distance"]) for hit in client.search("pages", [row], anns_field="sparse", limit=3)[0]]


as_csr, as_csc = found(query), found(query.tocsc())
client.insert("pages", [{"id": 4, "sparse": query.tocsc()}])
stored = client.get("pages", [4])[0]["sparse"]
client.close()
print("pymilvus", version("pymilvus"), "milvus-lite", version("milvus-lite"), "scipy", version("scipy"))
print("Seen: the query {2: 1.0, 3: 1.0} in CSC form finds the document of term 0, with which it shares no term.")
print("Expected: CSR and CSC are two forms of one matrix. Milvus's documentation names the scipy.sparse classes as an")
print("  input for sparse vectors, so both forms should find the same. An unsupported form should raise an error.")
print("search by the CSR row: ", as_csr)
print("search by the CSC row: ", as_csc)
print("insert of the CSC row: ", stored)
as_described = as_csr == [(3, 3.0), (2, 2.0)] and [key for key, _ in as_csc] == [1] and stored == {2: 1.0, 3: 1.0}
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY
