#!/usr/bin/env bash
# If sparse embeddings are written to Parquet as {token: weight}, each file gets a struct column. Its fields are the
# tokens of that file.
# pyarrow and pandas read all files of a folder with the first file's schema, and this includes the fields of structs.
# If the first file lacks a token, all weights of the token are dropped, without an error or a warning.
# This affects embeddings that batch jobs write in shards, with one file per batch.
# Nothing is lost if each file is read separately, or if the column is a map or a list of {token, weight} structs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet pyarrow==26.0.1 pandas==3.1.1 ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
venv/bin/python - <<'PY'
import os
import sys
from importlib.metadata import version

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

rows = [{"id": 1, "sparse": {"cat": 0.5, "sat": 0.25}}, {"id": 2, "sparse": {"dog": 0.75, "sat": 0.5}}]
pairs = pa.schema([("id", pa.int64()), ("sparse", pa.map_(pa.string(), pa.float64()))])
os.makedirs("structs")
os.makedirs("maps")
for row in rows:
    pq.write_table(pa.Table.from_pylist([row]), f"structs/part-{row['id']}.parquet")
    as_pairs = {"id": row["id"], "sparse": list(row["sparse"].items())}
    pq.write_table(pa.Table.from_pylist([as_pairs], schema=pairs), f"maps/part-{row['id']}.parquet")


def weights(row):
    return {token: weight for token, weight in dict(row["sparse"]).items() if weight is not None}


alone = weights(pq.read_table("structs/part-2.parquet").to_pylist()[0])
folder = weights(pq.read_table("structs").to_pylist()[1])
in_pandas = weights(pd.read_parquet("structs").to_dict("records")[1])
as_map = weights(pq.read_table("maps").to_pylist()[1])
print("pyarrow", version("pyarrow"), "pandas", version("pandas"))
print("Seen: document 2 loses its strongest weight, 'dog', because document 1 in the first file has no such token.")
print("Expected: reading a folder gives the same rows as reading its files one by one, or an error. The documentation")
print("  says that a dataset takes the first file's schema, but not that this drops values inside a column.")
print("document 2, its file alone:      ", alone)
print("document 2, the folder, pyarrow: ", folder)
print("document 2, the folder, pandas:  ", in_pandas)
print("document 2, the folder, as a map:", as_map)
as_described = alone == as_map == rows[1]["sparse"] and folder == in_pandas == {"sat": 0.5}
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY
