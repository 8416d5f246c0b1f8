"""Run atheris, a fuzzer that follows the branches of the code, on the functions in `checks.targets`.

atheris is not among the development packages, because it has wheels for only a few versions of Python. Install it into
a copy of the environment: pip install atheris.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from checks.figures import Figures

__all__ = ["guided"]


def guided(seconds: int) -> int:
    """Run each target in its own process for `seconds` seconds. Keep inputs that reach new branches in .cache/fuzz."""
    figures = Figures()
    from checks.targets import TARGETS

    for name in TARGETS:
        corpus = Path(".cache/fuzz/guided") / name.replace(" ", "-")
        corpus.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "checks.guided", name, f"-max_total_time={seconds}", "-timeout=20"]
        command += [f"-artifact_prefix={corpus}-failed-", "-rss_limit_mb=4096", "-verbosity=1", str(corpus)]
        done = subprocess.run(command, capture_output=True, text=True)
        said = [line for line in done.stderr.splitlines() if line.startswith(("Done ", "#"))]
        figures.add(f"guided fuzzing of {name}", done.returncode == 0, (said or [done.stderr[-800:]])[-1])
    return figures.exit_status()


def _fuzz(name: str, options: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["splade_integrations"]):
        from checks.targets import TARGETS
    function, takes_bytes = TARGETS[name]

    def one(content: bytes) -> None:
        if takes_bytes:
            function(content)
            return
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            return
        function(value)

    atheris.Setup([name, *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    _fuzz(sys.argv[1], sys.argv[2:])
