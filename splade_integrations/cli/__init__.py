"""The console command `splade`: encode, index, search, explain, evaluate, info.

This module holds `main` alone, so that it can say what to install if the extra `cli` is missing.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command and end the process with its exit code: 0; 1, our own fault; 2, bad input; 130, Ctrl-C."""
    try:
        from splade_integrations.cli.app import run
    except ImportError as err:
        if err.name != "typer":
            raise
        print("splade needs typer. Install it with: pip install 'splade-integrations[cli]'.", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    sys.exit(run(sys.argv[1:]))
