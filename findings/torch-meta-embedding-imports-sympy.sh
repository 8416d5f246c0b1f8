#!/usr/bin/env bash
# The meta device makes layers without memory and without numbers, so that weights can be put into them. torch's Linear
# and LayerNorm are made there at once. An Embedding first fills itself with normally distributed numbers, which the meta
# device computes with torch's Python code for shapes. This code is imported at this moment: sympy, mpmath, torch._dynamo
# and hundreds of other modules, which stay in memory.
# A program that loads a model quickly, with the meta device, meets this in its first second.
# Expected: an Embedding on the meta device takes as long as a Linear layer there, and imports nothing.
# Seen: torch 2.13.0: a Linear layer takes 1.1 ms and imports nothing. An Embedding takes 1.0 s (a second one .7 ms) and
# imports 823 modules, with which the process grows by 72 MiB. Embedding.from_pretrained avoids this.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6 ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
cat > measure.py <<'PY'
import sys, time
from pathlib import Path
import torch
from torch import nn

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

def report(name, make):
    modules, memory, start = set(sys.modules), resident(), time.perf_counter()
    make()
    seconds, new = time.perf_counter() - start, set(sys.modules) - modules
    print(f"{name}: {1000 * seconds:.1f} ms, {len(new)} modules imported, {resident() - memory:.0f} MiB more")
    return {name.partition(".")[0] for name in new}

print("torch", torch.__version__)
report("Linear", lambda: nn.Linear(3, 4, device="meta"))
report("LayerNorm", lambda: nn.LayerNorm(3, device="meta"))
report("Embedding.from_pretrained", lambda: nn.Embedding.from_pretrained(torch.zeros(3, 4)))
found = report("Embedding", lambda: nn.Embedding(3, 4, device="meta"))
report("a second Embedding", lambda: nn.Embedding(3, 4, device="meta"))
sys.exit("sympy" not in found)
PY
venv/bin/python -W ignore measure.py
