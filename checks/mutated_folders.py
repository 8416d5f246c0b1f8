"""Check that damaged model folders load, or are refused with FileNotFoundError or UnsupportedModelError.

    python -m checks.mutated_folders [--count 100] [--seed 0]

For each kind of folder, `--count` copies are damaged at random: a file is deleted, emptied, cut or changed, or one
value of its JSON is replaced. The exit status is 1 if a copy ends in an error of another type.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.workload import quiet
from tests.support.mutated_folders import KINDS, outcomes

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m checks.mutated_folders", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="damaged folders per kind (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choices (default 0)")
    options = parser.parse_args(arguments)
    quiet()
    failed = False
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = outcomes(kind, Path(folder), options.count, options.seed)
                print(f"{kind}: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.items())))
            except AssertionError as err:
                failed = True
                print(err)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
