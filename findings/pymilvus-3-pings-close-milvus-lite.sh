#!/usr/bin/env bash
# pymilvus 3 tells gRPC to send a ping every 10 seconds, also while there are no calls. milvus-lite's server keeps gRPC's
# default rule for pings: a client may send one every five minutes. So if a program holds a milvus-lite file open and
# makes no call for about two minutes, the server closes the connection with "too_many_pings", and gRPC prints an error.
# The next call works, because gRPC connects again. With grpc_options={"grpc.keepalive_time_ms": 2**31 - 1}, pymilvus 3
# sends no pings, and the connection stays open.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet pymilvus==3.0.2 milvus-lite==3.2.2 ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
cat >idle.py <<'PY'
import sys
import time

from pymilvus import MilvusClient

options = {"grpc_options": {"grpc.keepalive_time_ms": 2**31 - 1}} if sys.argv[1] == "without" else {}
client = MilvusClient(f"{sys.argv[1]}.db", **options)
client.list_collections()
time.sleep(150)
print("after 150 s without a call:", client.list_collections())
client.close()
PY
venv/bin/python idle.py with >with.txt 2>&1 &
venv/bin/python idle.py without >without.txt 2>&1 &
wait
venv/bin/python - <<'PY'
import sys
from importlib.metadata import version
from pathlib import Path

print("pymilvus", version("pymilvus"), "milvus-lite", version("milvus-lite"), "grpcio", version("grpcio"))
print("Seen: a milvus-lite file that is open, but not used for two minutes, has its connection closed by its server.")
print("Expected: an idle connection to a file of the same process stays open, and nothing is printed.")
found = {}
for name in ("with", "without"):
    lines = Path(f"{name}.txt").read_text().splitlines()
    found[name] = any("too_many_pings" in line for line in lines)
    answered = any(line.startswith("after 150 s without a call: []") for line in lines)
    print(f"{name} pymilvus's pings: too_many_pings printed: {found[name]}, the next call answered: {answered}")
as_described = found == {"with": True, "without": False}
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY
