"""Measure the peak memory of `splade encode` for 1 000, 10 000 and 100 000 short lines, for each output format.

python -m benchmarks.encode_memory [--lines 100000] [--model MODEL] [--json OUT]
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import describe_environment, write_json
from splade_integrations.models.offline import splade_model_path

_WORDS = ("folder", "file", "query", "search", "index", "model", "term", "weight", "token", "score", "river", "stone")


def main() -> None:
    """Print the peak memory for each number of lines and each format. Each combination runs in a new process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--lines", type=int, default=100_000, help="largest number of lines to encode (default: %(default)s)"
    )
    parser.add_argument(
        "--model", default=splade_model_path(), help="SPLADE checkpoint (default: the demo's small model)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write all figures to this file")
    options = parser.parse_args()
    most = options.lines
    generator = random.Random(0)
    runs: list[dict[str, Any]] = []
    print(describe_environment())
    print(f"{'lines':>8} {'format':>8} {'peak MB':>8} {'seconds':>8} {'output MB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for lines in (1000, most // 10, most):
            texts = Path(folder) / "texts.txt"
            texts.write_text("".join(" ".join(generator.choices(_WORDS, k=6)) + "\n" for _ in range(lines)))
            for suffix in ("jsonl", "parquet", "npz"):
                output = Path(folder) / f"vectors.{suffix}"
                seconds, peak = _encode(texts, output, options.model)
                size = output.stat().st_size / 1e6
                print(f"{lines:8} {suffix:>8} {peak:8.0f} {seconds:8.0f} {size:10.1f}", flush=True)
                runs.append({"lines": lines, "format": suffix, "peak_mb": peak, "seconds": seconds, "output_mb": size})
    write_json(options.json, {"question": "memory of splade encode", "model": options.model, "runs": runs})


def _encode(texts: Path, output: Path, model: str) -> tuple[float, float]:
    """Return the seconds and the peak resident MB of one run."""
    command = "from splade_integrations.cli import main; main()"
    arguments = ["encode", str(texts), "-m", model, "-o", str(output)]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", command, *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"splade encode failed with status {status}.")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
