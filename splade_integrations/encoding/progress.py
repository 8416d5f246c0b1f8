"""Reports how many texts have been encoded, to a progress bar or to a function of the caller."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["ShowProgress", "counting_texts", "reporting"]

ShowProgress = bool | Callable[[int], object]  # a function gets the number of texts encoded since the last call


@contextmanager
def reporting(show_progress: ShowProgress, total: int | None) -> Iterator[Callable[[int], object]]:
    """Yield the function that gets the number of texts encoded since its last call."""
    if show_progress is not True:
        yield show_progress or _ignored
        return
    from tqdm.auto import tqdm  # imported late, because few calls show a bar

    with tqdm(total=total, unit="text", desc="SPLADE") as progress:
        yield progress.update


def counting_texts(report: Callable[[int], object], texts: int, windows: int) -> Callable[[int], object]:
    """Return a function that gets numbers of encoded windows, and gives `report` the numbers of encoded texts.

    Args:
        report: Gets the number of texts encoded since its last call.
        texts: The number of texts.
        windows: The number of windows into which the texts are cut.

    Example:
        >>> count = counting_texts(print, texts=2, windows=4)
        >>> count(3), count(1)
        1
        1
        (None, None)
    """
    windows_done = texts_done = 0

    def count(more: int) -> None:
        nonlocal windows_done, texts_done
        windows_done += more
        done = windows_done * texts // windows
        report(done - texts_done)
        texts_done = done

    return count


def _ignored(number: int) -> None:
    """Report no progress."""
