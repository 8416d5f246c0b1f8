#!/usr/bin/env bash
# snapshot_download fetches every file of a model into the hub's cache, for example while a container image is built. If
# the hub cannot be reached later, transformers loads the model from this cache, but only after minutes: it also asks for
# optional files that the repository does not have, such as added_tokens.json and chat_template.jinja. For each of them,
# huggingface_hub tries six times, with pauses of 23 seconds in all, although the connection is refused at once.
# A reader would expect a whole snapshot to load in a second, because the cache holds the list of its files. (A cache
# that from_pretrained itself filled does load fast: it has markers, in the folder .no_exist, for the files that the hub
# does not have. snapshot_download writes no markers.)
# With HF_HUB_OFFLINE=1 or local_files_only=True, the same snapshot loads at once.
# Expected: a tokenizer of three files loads from the cache in about a second, also if the hub is down.
# Seen: transformers 5.24.0, huggingface_hub 1.33.0: 99 s for four absent files. With HF_HUB_OFFLINE=1: less than 1 s.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet "transformers==5.24.0" "huggingface_hub==1.33.0" "tokenizers==0.23.3" ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
# The hub of this finding is a server on this machine with one repository. It is stopped before the tokenizer is loaded.
cat > hub.py <<'PY'
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FILES, COMMIT = Path("model"), "a" * 40


class Hub(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.partition("?")[0]
        file = FILES / path.rpartition("/")[2]
        found = True
        if "/resolve/" in path:
            found = file.is_file()
            content = file.read_bytes() if found else b""
        elif "/tree/" in path:
            content = json.dumps([{"type": "file", "path": f.name, "size": 1, "oid": "x"} for f in FILES.iterdir()])
        else:
            siblings = [{"rfilename": f.name} for f in FILES.iterdir()]
            content = json.dumps({"id": "org/small", "sha": COMMIT, "siblings": siblings})
        content = content if isinstance(content, bytes) else content.encode()
        self.send_response(200 if found else 404)
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
Path("port").write_text(str(server.server_port))
server.serve_forever()
PY
cat > model.py <<'PY'
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "cat": 1}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained("model")
open("model/config.json", "w").write('{"model_type": "bert"}')
PY
cat > load.py <<'PY'
import time

from transformers import AutoTokenizer

start = time.monotonic()
tokenizer = AutoTokenizer.from_pretrained("org/small", cache_dir="cache")
assert tokenizer("cat")["input_ids"] == [1]
print(round(time.monotonic() - start, 1))
PY
venv/bin/python model.py > /dev/null 2> errors || { tail -n 20 errors >&2; exit 1; }
venv/bin/python hub.py & hub=$!
while [ ! -s port ]; do sleep 0.1; done
HF_ENDPOINT="http://127.0.0.1:$(cat port)"
export HF_ENDPOINT
venv/bin/python -c 'from huggingface_hub import snapshot_download as get; get("org/small", cache_dir="cache")' 2> errors ||
  { kill "$hub"; tail -n 20 errors >&2; exit 1; }
kill "$hub"
wait "$hub" 2> /dev/null || true
online=$(venv/bin/python load.py 2> errors) || { tail -n 20 errors >&2; exit 1; }
asked=$(grep -o 'resolve/[a-z]*/[a-z_.]*' errors | sort -u | sed 's|.*/||' | tr '\n' ' ')
offline=$(HF_HUB_OFFLINE=1 venv/bin/python load.py 2> errors) || { tail -n 20 errors >&2; exit 1; }
echo "A whole snapshot of a tokenizer loads in $online s while the hub is down (asked for: $asked)," \
  "and in $offline s with HF_HUB_OFFLINE=1."
venv/bin/python -c 'import sys; sys.exit(not (float(sys.argv[1]) > 15 and float(sys.argv[2]) < 15))' "$online" "$offline"
