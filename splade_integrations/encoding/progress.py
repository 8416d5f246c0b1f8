"""Reports how many texts have been encoded, to a progress bar or to a function of the caller."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["ShowProgress", "counting_texts", "reporting"]

# True shows a progress bar. A function is called with the number of texts encoded since its last call.
ShowProgress = bool | Callable[[int], object]


@contextmanager
def reporting(show_progress: ShowProgress, total: int | None) -> Iterator[Callable[[int], object]]:
    """Yield a function that reports progress. It takes the number of texts encoded since its last call."""
    if show_progress is not True:
        yield show_progress or _ignored
        return
    from tqdm.auto import tqdm  # imported here, because few calls show a progress bar

    with tqdm(total=total, unit="text", desc="SPLADE") as progress:
        yield progress.update


def counting_texts(report: Callable[[int], object], texts: int, windows: int) -> Callable[[int], object]:
    """Return a function that turns a number of encoded windows into a number of encoded texts, and reports it.

    Args:
        report: Called with the number of texts encoded since its last call.
        texts: The number of texts.
        windows: The number of windows into which the texts are cut. Only a long text has more than one window.

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
