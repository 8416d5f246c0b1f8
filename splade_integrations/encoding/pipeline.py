"""Encodes texts block by block. While the model works on one block, the next block is tokenised.

This module also adds prompts, joins the windows of a text, drops the terms of special tokens, prunes rows and reports
progress.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

from scipy.sparse import csr_array
from tqdm.auto import tqdm

from splade_integrations.encoding.roles import Role, RoleEncoder
from splade_integrations.encoding.tokenizer import TokenIds
from splade_integrations.encoding.truncation import Truncation
from splade_integrations.sparse import Pruning, drop_terms, max_over_groups

__all__ = ["RoleSettings", "ShowProgress", "one_ahead", "stream_rows"]

logger = logging.getLogger(__name__)

ShowProgress = bool | Callable[[int], object]  # a function gets the number of texts encoded since the last call
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class RoleSettings:
    """Settings for the texts of one role, which is either documents or queries, and for their rows.

    Args:
        prompt: Text to put before each text.
        max_windows: The largest number of windows of a text. With 1, texts are cut after the encoder's `max_length`
            tokens.
        drops_special_terms: Whether the terms of special tokens are left out.
        pruning: Which terms of a row are kept.
    """

    prompt: str
    max_windows: int
    drops_special_terms: bool
    pruning: Pruning


def stream_rows(
    encoders: Mapping[Role, RoleEncoder],
    role: Role,
    settings: RoleSettings,
    texts: Iterable[str],
    *,
    block_rows: int,
    show_progress: ShowProgress = False,
    total: int | None = None,
) -> Iterator[csr_array]:
    """Encode texts as they arrive. While the model works on one block, the next block is tokenised.

    Args:
        encoders: The encoder of each role. The one for `role` loads when the first block is requested, at the latest.
        role: "document" or "query".
        settings: The settings of the role.
        texts: The texts. They are read at most one block ahead.
        block_rows: The number of rows of a block.
        show_progress: True shows a progress bar on stderr. A function is called with the number of texts encoded since
            the last call.
        total: The number of texts, for the progress bar.
    Yields:
        Blocks of (block_rows, dim) float32, in the order of the texts. The last block may be shorter. If texts
        were truncated, one warning at the end says how many, and which share of the tokens was lost. If texts are
        mostly unknown to the vocabulary, another warning says so. The warnings come even if the caller stops early.
    """
    encoder, prompt = encoders[role], settings.prompt

    def tokenize(block: list[str]) -> TokenIds:
        return encoder.tokenize([prompt + text for text in block] if prompt else block, settings.max_windows)

    truncation = Truncation(encoder.max_length, encoder.tokenize.max_content_tokens, settings.max_windows)
    unknown = _Unknown(encoder)
    try:
        with tqdm(total=total, unit="text", desc="SPLADE", disable=show_progress is not True) as progress:
            report = show_progress if callable(show_progress) else progress.update
            for token_ids in one_ahead(tokenize, _blocks(texts, block_rows)):
                truncation.count(
                    texts=len(token_ids.windows),
                    truncated=token_ids.truncated,
                    tokens=token_ids.tokens,
                    lost=token_ids.tokens_lost,
                )
                unknown.count(token_ids)
                rows = encoder.rows.encode(token_ids.ids, _counting_texts(report, token_ids))
                rows = max_over_groups(rows, token_ids.windows)
                if settings.drops_special_terms:
                    rows = drop_terms(rows, encoder.tokenizer.all_special_ids)
                yield settings.pruning.apply(rows)
    finally:  # also if the caller stops early
        truncation.warn()
        unknown.warn()


def one_ahead(function: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """Yield `function(item)` for each item. A thread computes the next result while the caller uses the current one.

    Items are read in the caller's thread, at most one ahead of what the caller has requested. If reading an item raises
    an exception, the results of all earlier items are yielded first. A caller that stops early waits until the current
    call of `function` ends. A single item is computed without a thread.

    Args:
        function: The function to call. It must work in any thread.
        items: The arguments, one for each call.

    Example:
        >>> list(one_ahead(len, ["a", "bc"]))
        [1, 2]
    """
    drawn = iter(items)
    first = list(islice(drawn, 1))
    try:
        second = list(islice(drawn, 1))
    except Exception:
        yield from map(function, first)
        raise
    if not second:
        yield from map(function, first)
        return
    started: deque[Future[_Out]] = deque()
    error: Exception | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="splade-prefetch") as thread:
        remaining = chain(first, second, drawn)
        while True:
            try:
                started.append(thread.submit(function, next(remaining)))
            except StopIteration:
                break
            except Exception as err:  # raised below, after all earlier results. Ctrl-C is raised at once
                error = err
                break
            if len(started) > 1:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()
    if error is not None:
        raise error


class _Unknown:
    """Counts all texts and tokens so far, and those that the model's vocabulary lacks."""

    def __init__(self, encoder: RoleEncoder) -> None:
        self._token = encoder.tokenizer.unk_token
        self._specials = encoder.max_length - encoder.tokenize.max_content_tokens
        self._texts = self._unknown_texts = self._tokens = self._unknown_tokens = 0

    def count(self, token_ids: TokenIds) -> None:
        self._texts += len(token_ids.windows)
        self._unknown_texts += token_ids.unknown_texts
        self._tokens += sum(map(len, token_ids.ids)) - self._specials * len(token_ids.ids)
        self._unknown_tokens += token_ids.unknown_tokens

    def warn(self) -> None:
        if self._unknown_texts:
            logger.warning(
                "%d of %d texts are mostly %s, the token for what the model's vocabulary lacks: %.1f %% of the call's "
                "tokens are unknown. Such texts are hardly found. Use a model for the language of the texts.",
                self._unknown_texts, self._texts, self._token, 100 * self._unknown_tokens / self._tokens,
            )  # fmt: skip


def _blocks(texts: Iterable[str], rows: int) -> Iterator[list[str]]:
    drawn = iter(texts)
    while block := list(islice(drawn, rows)):
        yield block


def _counting_texts(report: Callable[[int], object], token_ids: TokenIds) -> Callable[[int], object]:
    """Return a function that takes a number of encoded windows, and gives `report` the number of encoded texts."""
    windows = texts = 0

    def count(more: int) -> None:
        nonlocal windows, texts
        windows += more
        done = windows * len(token_ids.windows) // len(token_ids.ids)
        report(done - texts)
        texts = done

    return count
