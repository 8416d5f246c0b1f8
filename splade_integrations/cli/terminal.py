"""Writes the command's output: results to stdout, everything else to stderr."""

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from splade_integrations.records import Folder, Records

__all__ = [
    "complain",
    "note",
    "print_json",
    "say_what_is_left_out",
    "stdout",
]


def stdout() -> "Console":
    """Return a console on stdout, as wide as the terminal."""
    from rich.console import Console  # imported here because help and error messages do not need rich

    return Console(highlight=False)


def complain(message: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"splade: {message}\n")


def note(message: str) -> None:
    """Write one line to stderr if stderr is a terminal. Otherwise write nothing."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{message}\n")


def say_what_is_left_out(records: "Records | Folder") -> None:
    """Write a line to stderr about the files of a folder that are not read, if there are any."""
    message = getattr(records, "left_out_message", str)()
    if message:
        complain(message)


def print_json(value: Any) -> None:
    """Write one JSON value to stdout."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")
