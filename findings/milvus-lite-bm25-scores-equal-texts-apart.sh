#!/usr/bin/env bash
# milvus-lite's built-in BM25 uses the document frequencies and the average length of each segment, not of the
# whole collection. Equal texts get different scores if there is a flush() between their inserts.
# A text that contains the word twice can rank below a text that contains it once.
# This affects full-text and hybrid search (BM25 + dense) over collections that are filled in several runs,
# because the ranks depend on how the rows were inserted.
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

from pymilvus import DataType, Function, FunctionType, MilvusClient

client = MilvusClient("store.db")
FIRST = {1: "reset the pump", 2: "oil the door", 3: "wash the roof", 4: "mend the wall", 5: "feed the cat"}
SECOND = {6: "reset the pump", 7: "pump the pump", 8: "move the pump", 9: "sell the pump", 10: "ship the pump"}


def scores(name, batches):
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=100, enable_analyzer=True)
    schema.add_field("bm25", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(
        Function(name="bm25", function_type=FunctionType.BM25, input_field_names=["text"], output_field_names=["bm25"])
    )
    index = client.prepare_index_params()
    index.add_index("bm25", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    client.create_collection(name, schema=schema, index_params=index)
    for batch in batches:
        client.insert(name, [{"id": key, "text": text} for key, text in batch.items()])
        client.flush(name)
    hits = client.search(name, ["pump"], anns_field="bm25", limit=10)[0]
    return {hit["id"]: round(abs(hit["distance"]), 3) for hit in hits}


one_run = scores("one_run", [FIRST | SECOND])
two_runs = scores("two_runs", [FIRST, SECOND])
client.close()
print("milvus-lite", version("milvus-lite"), "pymilvus", version("pymilvus"))
print("Seen: rows 1 and 6 hold the same text, and their BM25 scores differ if there is a flush() between the inserts.")
print("  Row 7 contains the word twice, and ranks below row 1.")
print("Expected: BM25's statistics are those of the whole collection, so equal texts get equal scores.")
print("'pump', one insert:          ", one_run)
print("'pump', the same rows in two:", two_runs)
as_described = (
    one_run[1] == one_run[6]
    and max(one_run, key=one_run.get) == 7
    and two_runs[1] > 2 * two_runs[6]
    and max(two_runs, key=two_runs.get) == 1
)
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY
