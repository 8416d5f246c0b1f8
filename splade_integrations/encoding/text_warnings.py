"""Counts the texts that a model cannot read well, and logs at most two warnings about them for each call of an encoder.

The first warning is about texts that were truncated. It can name a text splitter to use. The second warning is about
texts that consist mostly of unknown tokens.
"""

import logging
from contextvars import ContextVar

from splade_integrations.encoding.tokenizer import TokenIds

__all__ = ["TextWarnings", "splitter_of_caller"]

logger = logging.getLogger(__name__)

# The text splitter that the warning names, as code of the framework that calls the encoder. "{size}" stands for the
# number of tokens that fit into the model. With None, the warning names no splitter. A thread that copies the caller's
# context sees the same value.
splitter_of_caller: ContextVar[str | None] = ContextVar("splitter_of_caller", default=None)


class TextWarnings:
    """Counts all texts and tokens of one call of an encoder, the truncated texts, and the lost and unknown tokens.

    Args:
        max_length: The largest number of tokens of a window (a part of a long text), special tokens included.
        max_content_tokens: The largest number of tokens of a window, special tokens excluded.
        max_windows: The largest number of windows of a text.
        unknown_token: The token that stands for words that are not in the vocabulary, such as [UNK].
    """

    def __init__(self, max_length: int, max_content_tokens: int, max_windows: int, unknown_token: str | None) -> None:
        self._max_length, self._max_windows = max_length, max_windows
        self._max_content_tokens = max_content_tokens
        self._unknown_token = unknown_token
        self._texts = self._truncated = self._unknown_texts = 0
        self._tokens = self._tokens_lost = 0  # of the texts before they were cut
        self._content_tokens = self._unknown_tokens = 0  # of the texts after they were cut, without special tokens

    def count(self, token_ids: TokenIds) -> None:
        """Add the numbers of one block of texts."""
        specials = self._max_length - self._max_content_tokens
        self._texts += len(token_ids.windows)
        self._truncated += token_ids.truncated
        self._tokens += token_ids.tokens
        self._tokens_lost += token_ids.tokens_lost
        self._unknown_texts += token_ids.unknown_texts
        self._content_tokens += sum(map(len, token_ids.ids)) - specials * len(token_ids.ids)
        self._unknown_tokens += token_ids.unknown_tokens

    def warn(self) -> None:
        """Log one warning if a text was truncated, and one if a text consists mostly of unknown tokens."""
        if self._truncated:
            windows = self._max_windows > 1
            logger.warning(
                "%d of %d texts are longer than %smax_length=%d tokens and were truncated: %.1f %% of all tokens "
                "were lost. Split texts into chunks of %d tokens at most%s or raise max_length if the model "
                "allows it%s.",
                self._truncated, self._texts, f"{self._max_windows} windows of " if windows else "", self._max_length,
                100 * self._tokens_lost / self._tokens, self._max_content_tokens, _advice(self._max_content_tokens),
                ", or raise max_windows" if windows else "",
            )  # fmt: skip
        if self._unknown_texts:
            share = 100 * self._unknown_tokens / self._content_tokens
            logger.warning(
                "%d of %d texts are mostly %s, which stands for words that are not in the model's vocabulary. In this "
                "call, %.1f %% of all tokens are unknown. Searches hardly find such texts. Use a model for the "
                "language of the texts.",
                self._unknown_texts, self._texts, self._unknown_token, share,
            )  # fmt: skip


def _advice(size: int) -> str:
    """Return the part of the warning that names the caller's splitter.

    Example:
        >>> in_use = splitter_of_caller.set("MySplitter(size={size})")
        >>> _advice(254)
        ', with MySplitter(size=254),'
        >>> splitter_of_caller.reset(in_use)
        >>> _advice(254)
        ','
    """
    splitter = splitter_of_caller.get()
    return "," if splitter is None else f", with {splitter.format(size=size)},"
