"""Counts the texts that an encoder truncates, and logs one warning, which can name a text splitter to use."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Truncation", "naming_splitter"]

logger = logging.getLogger(__name__)

# The text splitter of the framework that is calling, as text for the warning. Threads that copy the caller's context
# see the same value.
_splitter: ContextVar[str | None] = ContextVar("splitter", default=None)


@contextmanager
def naming_splitter(splitter: str | None) -> Iterator[None]:
    """Let warnings inside the block name a framework's splitter.

    Args:
        splitter: The splitter, as text for the warning. "{size}" stands for the number of tokens that fit. With None,
            warnings name no splitter.

    Example:
        >>> with naming_splitter("MySplitter(size={size})"):
        ...     print(_advice(254))
        , with MySplitter(size=254),
    """
    token = _splitter.set(splitter)
    try:
        yield
    finally:
        _splitter.reset(token)


class Truncation:
    """Counts all texts and tokens of a call, and those that truncation has affected.

    Args:
        max_length: The largest number of tokens of a text, special tokens included.
        max_content_tokens: The same without special tokens.
        max_windows: The largest number of windows of a text.
    """

    def __init__(self, max_length: int, max_content_tokens: int, max_windows: int) -> None:
        self._max_length, self._max_windows = max_length, max_windows
        self._max_content_tokens = max_content_tokens
        self._texts = self._truncated = self._tokens = self._lost = 0

    def count(self, *, texts: int, truncated: int, tokens: int, lost: int) -> None:
        """Add the numbers of one block of texts."""
        self._texts += texts
        self._truncated += truncated
        self._tokens += tokens
        self._lost += lost

    def warn(self) -> None:
        """Log one warning if a text was truncated."""
        if self._truncated:
            windows = self._max_windows > 1
            logger.warning(
                "%d of %d texts are longer than %smax_length=%d tokens and were truncated: %.1f %% of the call's "
                "tokens were lost. Split texts into chunks of %d tokens at most%s or raise max_length if the model "
                "allows it%s.",
                self._truncated, self._texts, f"{self._max_windows} windows of " if windows else "", self._max_length,
                100 * self._lost / self._tokens, self._max_content_tokens, _advice(self._max_content_tokens),
                ", or max_windows" if windows else "",
            )  # fmt: skip


def _advice(size: int) -> str:
    splitter = _splitter.get()
    return "," if splitter is None else f", with {splitter.format(size=size)},"
