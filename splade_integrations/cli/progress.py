"""Shows a progress bar with rate and remaining time, or writes a line now and then if stderr is not a terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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

__all__ = ["SECONDS_BETWEEN_LINES", "progress"]

# If stderr is not a terminal, at least this many seconds pass before the first line, and between two lines. So a short
# run writes no line.
SECONDS_BETWEEN_LINES = 30.0


class _Rate(ProgressColumn):
    """A column that shows texts per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} texts/s")


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar, or lines if stderr is not a terminal.

    Yields a function that must be called with the number of texts that were finished since its last call.

    Args:
        description: The name of the step, shown before the bar.
        total: The number of texts, or None if it is unknown.
    """
    if not sys.stderr.isatty():
        yield _lines(description, total)
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


def _lines(description: str, total: int | None) -> Callable[[int], None]:
    """Return a function that counts finished texts, and writes a line to stderr now and then."""
    start = last = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = done / max(now - start, 1e-9)
        of_total = "" if not total else f" of {total:,}"
        left = "" if not total else f", about {max(total - done, 0) / max(rate, 1e-9):,.0f} s left"
        sys.stderr.write(f"{description}: {done:,}{of_total} texts, {rate:,.0f} texts/s{left}\n")
        sys.stderr.flush()

    return advance
