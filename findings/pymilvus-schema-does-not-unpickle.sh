#!/usr/bin/env bash
# Batch jobs send what a worker needs to another process by pickle: multiprocessing, Ray, Dask and Spark do so.
# pymilvus's CollectionSchema can be pickled, and copy.deepcopy copies it. So a reader would expect that a worker can
# read the pickle. But in the worker, unpickling ends in a RecursionError, which names neither Milvus nor the schema.
# Cause: the __getattr__ of its fields (FieldSchema) reads an attribute that a new, still empty object lacks.
# Send schema.to_dict() instead, and make the schema in the worker with CollectionSchema.construct_from_dict.
# Expected: pickle.loads(pickle.dumps(schema)) gives the schema. Seen with pymilvus 2.6.7 and 3.0.2: a RecursionError.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
changed=0
for version in 2.6.7 3.0.2; do
  python3 -m venv "venv-$version"
  "venv-$version/bin/pip" install --quiet "pymilvus==$version" ||
    { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
  "venv-$version/bin/python" - <<'PY' || changed=1
import copy
import pickle
import sys
from importlib.metadata import version

from pymilvus import CollectionSchema, DataType, MilvusClient

schema = MilvusClient.create_schema()
schema.add_field("id", DataType.INT64, is_primary=True)
schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
pickled = pickle.dumps(schema)
try:
    pickle.loads(pickled)
    outcome = "a schema"
except RecursionError:
    outcome = "RecursionError"
copied = copy.deepcopy(schema).to_dict() == schema.to_dict()
rebuilt = CollectionSchema.construct_from_dict(schema.to_dict()).to_dict() == schema.to_dict()
print(f"pymilvus {version('pymilvus')}: pickle.dumps works ({len(pickled)} bytes), pickle.loads gives {outcome}")
print(f"  copy.deepcopy gives an equal schema: {copied}; construct_from_dict(to_dict()) does: {rebuilt}")
sys.exit(outcome != "RecursionError" or not copied or not rebuilt)
PY
done
exit "$changed"
