#!/usr/bin/env bash
# Ray Data gives each actor of a pool whole blocks. read_parquet makes one block of a file of up to 128 MiB, whatever its
# row groups are, and map_batches does not divide it: batch_size only says how much of a block a call gets.
# A reader would expect that a pool of four actors divides 20 000 rows that are read in batches of 500.
# So a corpus of short texts in one file is encoded by one actor, in one process's time. The other actors load their
# models and stay idle. A warning appears only after the pool has started, and names neither the file nor this remedy:
# repartition(target_num_rows_per_block=500) before map_batches makes blocks that all actors share.
# Expected: four actors work in both cases.
# Seen: ray 2.60.0: one actor gets all 20 000 rows. After repartition, four actors work.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet "ray[data]==2.60.0" pyarrow==26.0.1 numpy==2.4.6 pandas==3.1.1 ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
RAY_USAGE_STATS_ENABLED=0 venv/bin/python -W ignore - 2>errors <<'PY' || { code=$?; tail -n 20 errors >&2; exit "$code"; }
import logging
import os
import sys
import time
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
ray.init(num_cpus=4, object_store_memory=100 * 1024**2, **quiet)
context = ray.data.DataContext.get_current()
context.enable_progress_bars = False
rows = pa.table({"text": [f"text {number}" for number in range(20_000)]})
pq.write_table(rows, "corpus.parquet", row_group_size=500)


class Encode:
    def __call__(self, batch):
        time.sleep(0.05)  # so that one actor cannot take all blocks before the others have started
        return {"process": np.full(len(batch["text"]), os.getpid())}


def rows_of_each_actor(dataset):
    made = dataset.map_batches(Encode, batch_size=500, concurrency=4, num_cpus=0.25)
    return sorted(Counter(row["process"] for row in made.take_all()).values(), reverse=True)


read = rows_of_each_actor(ray.data.read_parquet("corpus.parquet"))
divided = rows_of_each_actor(ray.data.read_parquet("corpus.parquet").repartition(target_num_rows_per_block=500))
print(f"ray {ray.__version__}: rows of each actor: {read}. After repartition: {divided}.")
sys.exit(read != [20_000] or len(divided) != 4)
PY
