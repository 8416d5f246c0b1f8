"""What the command says, and where: results on stdout, everything else on stderr. Knows no model and no file format."""

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["InterruptedRun", "complain", "note", "print_json", "stdout"]


class InterruptedRun(Exception):  # noqa: N818  # not an error: the user's wish
    """Ctrl-C ended the run, and what was done so far is kept; the message says how to continue."""


def stdout() -> "Console":
    """Return a console on stdout, as wide as the terminal."""
    from rich.console import Console  # help and errors do without it

    return Console(highlight=False)


def complain(message: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"splade: {message}\n")


def note(message: str) -> None:
    """Write one line to stderr for a person who watches; write nothing if stderr is not a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{message}\n")


def print_json(value: Any) -> None:
    """Write one JSON value to stdout."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")
