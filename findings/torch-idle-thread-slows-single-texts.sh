#!/usr/bin/env bash
# torch computes a matrix product with one thread for each core. GNU's OpenMP, which torch's wheels for Linux contain,
# gives such helper threads to every thread of a program that has ever called torch, and keeps them until that thread
# ends. As soon as there are more of these threads than cores, OpenMP stops spinning at the end of each product, also in
# programs where only one thread computes at a time. Then each product waits until the system has woken the helpers.
# So a server that loads or warms its model in the main thread and answers in another thread computes single texts
# slower than a script does. Nothing else uses the cores meanwhile: the other thread sleeps.
# Expected: a thread that sleeps does not change how long another thread takes.
# Seen: torch 2.13.0, 2 cores, a transformer of BERT-base's size, one text of 12 tokens: 48 ms, and 58 ms (1.2 times)
# while a second thread exists that has called the model three times and now sleeps; 48 ms again after it has ended.
# The figures are medians. On a machine whose cores are busy with other work, the comparison says nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet "torch==2.13.0" ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
cat > measure.py <<'PY'
import statistics, sys, threading, time
import torch
torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(768, 12, 3072, activation="gelu", batch_first=True)
model = torch.nn.TransformerEncoder(layer, 12, enable_nested_tensor=False).eval()
tokens = torch.randn(1, 12, 768)

def milliseconds(calls):
    times = []
    with torch.inference_mode():
        for _ in range(calls):
            start = time.perf_counter()
            model(tokens)
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)

alone, beside = [], []
milliseconds(10)
for _ in range(3):
    alone.append(milliseconds(40))
    asked, may_end = threading.Event(), threading.Event()
    def other():
        milliseconds(3)
        asked.set()
        may_end.wait()  # the thread does nothing from here on
    thread = threading.Thread(target=other)
    thread.start()
    asked.wait()
    time.sleep(0.5)
    beside.append(milliseconds(40))
    may_end.set()
    thread.join()
    time.sleep(0.5)
ratio = statistics.median(slow / fast for slow, fast in zip(beside, alone))
print(f"torch {torch.__version__}, {torch.get_num_threads()} threads: {statistics.median(alone):.1f} ms alone, "
      f"{statistics.median(beside):.1f} ms beside a thread that sleeps: {ratio:.2f} times.")
sys.exit(ratio < 1.08)
PY
venv/bin/python -W ignore measure.py
