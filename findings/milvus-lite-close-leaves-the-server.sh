#!/usr/bin/env bash
# A program that opens many milvus-lite files, one after the other, closes each client: a test suite, or an application
# with one file for each user. A reader would expect that MilvusClient.close() closes the file: its threads end, and
# another process can open it.
# milvus-lite 3 serves each file by a gRPC server in the process. MilvusClient.close() only closes the connection. The
# server, its threads, its open files and the lock on the folder stay until the process ends. Nothing says so.
# We met it as a test suite with 460 such servers, whose 1 700 threads kept both cores of a machine busy.
# To close a file, call milvus_lite.server_manager.server_manager_instance.release_server(path).
# Expected: about as many threads after twenty files as before. Seen with pymilvus 2.6.7 and 3.0.2 on milvus-lite 3.2.2:
# three or more threads for each file, and another process cannot open a file whose client was closed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
changed=0
for version in 2.6.7 3.0.2; do
  python3 -m venv "venv-$version"
  "venv-$version/bin/pip" install --quiet "pymilvus==$version" milvus-lite==3.2.2 ||
    { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
  "venv-$version/bin/python" - 2>errors <<'PY' || changed=1
import subprocess
import sys
import tempfile
import threading
from importlib.metadata import version

from pymilvus import MilvusClient

OPEN = "import sys; from pymilvus import MilvusClient; MilvusClient(sys.argv[1])"


def another_process_opens(path):
    return subprocess.run([sys.executable, "-c", OPEN, path], capture_output=True, check=False).returncode == 0


folder = tempfile.mkdtemp(dir=".")
before = threading.active_count()
for number in range(20):
    client = MilvusClient(f"{folder}/{number}.db")
    client.create_collection("c", dimension=4)
    client.insert("c", [{"id": n, "vector": [0.1, 0.2, 0.3, 0.4]} for n in range(10)])
    client.search("c", [[0.1, 0.2, 0.3, 0.4]], limit=1)
    client.close()
    del client
more = threading.active_count() - before
closed = another_process_opens(f"{folder}/0.db")

from milvus_lite.server_manager import server_manager_instance

server_manager_instance.release_server(f"{folder}/0.db")
released = another_process_opens(f"{folder}/0.db")
print(f"pymilvus {version('pymilvus')}, milvus-lite {version('milvus-lite')}, twenty files, each opened and closed:")
print(f"  threads that stay: {more}")
print(f"  another process can open the first file: {closed}; after release_server: {released}")
sys.exit(more < 40 or closed or not released)
PY
done
exit "$changed"
