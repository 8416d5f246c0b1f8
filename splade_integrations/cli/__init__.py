"""The console command `splade`.

Its subcommands are info, encode, index, add-sparse, copy, compact, search, explain, evaluate and serve. This module
imports only the standard library, so that it works even without the package's extra `cli`. If this extra is not
installed, `main` prints what to install.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command and exit with its exit code. The docstring of `cli.app.run` lists the codes."""
    try:
        from splade_integrations.cli.app import run
    except ImportError as err:
        if err.name != "typer":
            raise
        print("splade needs typer. Install it with: pip install 'splade-integrations[cli]'.", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    sys.exit(run(sys.argv[1:]))
