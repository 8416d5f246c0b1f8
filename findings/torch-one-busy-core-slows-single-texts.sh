#!/usr/bin/env bash
# torch computes a single text with one thread for each core. All of them wait at the end of each of a model's hundreds
# of products. If another process keeps one core busy, the thread on this core runs only every few milliseconds, and so
# every product takes some milliseconds instead of some microseconds. The smaller the model, the worse: a small model
# that one thread computes in a few milliseconds takes tens of milliseconds with two threads.
# This is the usual place of a query encoder: a process that shares a machine with a database or other workers.
# Expected: with one of two cores busy, a text takes at most twice as long as before, and not longer than with one
# thread, which needs only the free core.
# Seen: torch 2.13.0, 2 cores, a transformer of 2 layers with 128 dimensions, one text of 12 tokens, beside one busy
# process for each two cores: @@SEEN@@
# The figures are medians. On a machine whose cores are busy with other work, the comparison says nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet "torch==2.13.0" ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
cat > measure.py <<'PY'
import os, statistics, subprocess, sys, time
import torch
torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(128, 2, 512, activation="gelu", batch_first=True)
model = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
decoder = torch.nn.Linear(128, 30522)
tokens = torch.randn(1, 12, 128)

def milliseconds(threads, calls=60):
    torch.set_num_threads(threads)
    times = []
    with torch.inference_mode():
        for _ in range(calls):
            start = time.perf_counter()
            decoder(model(tokens))
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)

cores = os.cpu_count()
if cores < 2:
    sys.exit("This needs two cores: nothing was tried.")
milliseconds(cores)
quiet = {threads: milliseconds(threads) for threads in (cores, 1)}
busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores // 2)]
try:
    time.sleep(1)
    beside = {threads: milliseconds(threads) for threads in (cores, 1)}
finally:
    for process in busy:
        process.kill()
print(f"torch {torch.__version__}, {cores} cores. {cores} threads: {quiet[cores]:.1f} ms quiet, {beside[cores]:.1f} ms beside "
      f"{len(busy)} busy processes. One thread: {quiet[1]:.1f} and {beside[1]:.1f} ms.")
sys.exit(beside[cores] < 3 * beside[1])
PY
venv/bin/python -W ignore measure.py
