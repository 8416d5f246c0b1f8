"""What the command says, and where: results on stdout, everything else on stderr.

Progress bars with rate and remaining time on a terminal, none elsewhere. Knows no model and no file format.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["InterruptedRun", "complain", "note", "print_json", "progress", "stdout"]


class InterruptedRun(Exception):  # noqa: N818  # not an error: the user's wish
    """Ctrl-C came, and what was done so far is kept; the message says how to go on."""


class _Rate(ProgressColumn):
    """Texts a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} texts/s")


def stdout() -> Console:
    """A console on stdout, in the width of the terminal."""
    return Console(highlight=False)


def complain(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"splade: {message}\n")


def note(message: str) -> None:
    """One line on stderr for a person who watches; nothing where stderr is no terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{message}\n")


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Any]:
    """A progress bar on stderr; call what it yields with the number of further texts done.

    Args:
        description: What is going on.
        total: How many texts there are, or None where nobody knows.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)
