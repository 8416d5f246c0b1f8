"""Texts through one side of a model, block by block: prompt, windows, special terms, pruning, progress, truncation.

Knows sides and rows; nothing of repositories, devices or adapters.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from scipy.sparse import csr_array
from tqdm.auto import tqdm

from splade_integrations.encoding.prefetch import one_ahead
from splade_integrations.encoding.tokenizer import TokenIds
from splade_integrations.encoding.transformer import EncodingSide
from splade_integrations.sparse import Pruning, drop_terms, max_over_groups

__all__ = ["ShowProgress", "SideSettings", "stream_rows"]

logger = logging.getLogger(__name__)

ShowProgress = bool | Callable[[int], object]  # a function is told how many more texts are done


@dataclass(frozen=True)
class SideSettings:
    """What is done to the texts of one side, and to their rows.

    Args:
        prompt: Put before each text.
        max_windows: Most windows of a text; 1 cuts it at the model's length.
        drops_special_terms: Whether the terms of special tokens are left out.
        pruning: Which terms of a row are kept.
    """

    prompt: str
    max_windows: int
    drops_special_terms: bool
    pruning: Pruning


def stream_rows(
    side: EncodingSide,
    settings: SideSettings,
    texts: Iterable[str],
    *,
    block_rows: int,
    show_progress: ShowProgress = False,
    total: int | None = None,
) -> Iterator[csr_array]:
    """Encode texts as they come, the next block being tokenised while the model works on one.

    Args:
        side: The side.
        settings: What is done beside its own work.
        texts: The texts, drawn at most one block ahead.
        block_rows: Rows of a block.
        show_progress: Show a progress bar on stderr; or a function to tell how many more texts are done.
        total: How many texts there are, for the bar.
    Yields:
        (block_rows, dim) float32, the last one shorter, in input order. At the end, or when the consumer stops, one
        warning says what truncation has cost.
    """
    prompt = settings.prompt

    def tokenize(block: list[str]) -> TokenIds:
        return side.tokenize([prompt + text for text in block] if prompt else block, settings.max_windows)

    truncation = _Truncation(side, settings.max_windows)
    try:
        with tqdm(total=total, unit="text", desc="SPLADE", disable=show_progress is not True) as progress:
            report = show_progress if callable(show_progress) else progress.update
            for token_ids in one_ahead(tokenize, _blocks(texts, block_rows)):
                truncation.count(token_ids)
                rows = side.encode(token_ids, _counting_texts(report, token_ids))
                rows = max_over_groups(rows, token_ids.windows)
                if settings.drops_special_terms:
                    rows = drop_terms(rows, side.tokenizer.all_special_ids)
                yield settings.pruning.apply(rows)
    finally:  # also when the consumer stops early
        truncation.warn()


class _Truncation:
    """What truncation has cost so far."""

    def __init__(self, side: EncodingSide, max_windows: int) -> None:
        self._max_length, self._max_windows = side.max_length, max_windows
        self._room = side.tokenize.room
        self._texts = self._truncated = self._tokens = self._lost = 0

    def count(self, token_ids: TokenIds) -> None:
        self._texts += len(token_ids.windows)
        self._truncated += token_ids.truncated
        self._tokens += token_ids.tokens
        self._lost += token_ids.tokens_lost

    def warn(self) -> None:
        if self._truncated:
            windows = self._max_windows > 1
            logger.warning(
                "%d of %d texts are longer than %smax_length=%d tokens and were truncated: %.1f %% of the call's "
                "tokens were lost. Split texts into chunks of %d tokens at most (LlamaIndex's default: 1 024; set "
                "SentenceSplitter(chunk_size=…)), or raise max_length if the model allows%s.",
                self._truncated, self._texts, f"{self._max_windows} windows of " if windows else "", self._max_length,
                100 * self._lost / self._tokens, self._room, ", or max_windows" if windows else "",
            )  # fmt: skip


def _blocks(texts: Iterable[str], rows: int) -> Iterator[list[str]]:
    drawn = iter(texts)
    while block := list(islice(drawn, rows)):
        yield block


def _counting_texts(report: Callable[[int], object], token_ids: TokenIds) -> Callable[[int], object]:
    """`report` of whole texts, for one who counts windows."""
    windows = texts = 0

    def count(more: int) -> None:
        nonlocal windows, texts
        windows += more
        done = windows * len(token_ids.windows) // len(token_ids.ids)
        report(done - texts)
        texts = done

    return count
