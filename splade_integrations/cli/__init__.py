"""The console command `splade`: encode, index, search, explain, evaluate, info.

Only `main` lives here, so that without the `cli` extra it can say what to install.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command and end the process by its exit code: 0; 1, a fault of ours; 2, bad input; 130, Ctrl-C."""
    try:
        from splade_integrations.cli.app import run
    except ImportError as err:
        if (err.name or "").split(".")[0] not in {"typer", "rich"}:
            raise
        print(f"splade needs {err.name}. Install it with: pip install 'splade-integrations[cli]'.", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    sys.exit(run(sys.argv[1:]))
