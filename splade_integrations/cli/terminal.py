"""Writes what the command says: results to stdout, everything else to stderr."""

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["InterruptedRun", "complain", "note", "print_json", "stdout"]


class InterruptedRun(Exception):  # noqa: N818  # the user wanted it, so it is not an error
    """Ctrl-C ended the run, and the work done so far is kept. The message says how to continue."""


def stdout() -> "Console":
    """Return a console on stdout, as wide as the terminal."""
    from rich.console import Console  # imported here because help and errors do not need it

    return Console(highlight=False)


def complain(message: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"splade: {message}\n")


def note(message: str) -> None:
    """Write one line to stderr for a person to read. Write nothing if stderr is not a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{message}\n")


def print_json(value: Any) -> None:
    """Write one JSON value to stdout."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")
