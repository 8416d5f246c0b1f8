"""Encodes texts block by block. While the model works on one block, the next block is tokenised.

This module also adds prompts, joins the windows of a text, drops the terms of special tokens, prunes rows and reports
progress.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from splade_integrations.encoding.lookup import DenseRowModel, Progress
from splade_integrations.encoding.roles import Role, RoleEncoder
from splade_integrations.encoding.tokenizer import TokenIds
from splade_integrations.encoding.truncation import Truncation
from splade_integrations.sparse import Pruning, drop_terms, max_over_groups

__all__ = [
    "RoleSettings",
    "ShowProgress",
    "TokenCount",
    "count_tokens",
    "encode_block",
    "one_ahead",
    "reporting",
    "stream_rows",
    "stream_rows_with_dense",
]

logger = logging.getLogger(__name__)

ShowProgress = bool | Callable[[int], object]  # a function gets the number of texts encoded since the last call
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class RoleSettings:
    """The settings for encoding the texts of one role, which is either documents or queries.

    Args:
        prompt: Text to put before each text.
        max_windows: The largest number of windows that a text is cut into. Each window has at most as many tokens as
            the encoder's `max_length`. With 1, a text is cut off after `max_length` tokens.
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
        encoders: The encoder of each role. This call loads the encoder of `role`, unless it is already loaded.
        role: "document" or "query".
        settings: The settings of the role.
        texts: The texts. They are read at most one block ahead.
        block_rows: The number of rows of a block.
        show_progress: True shows a progress bar on stderr. A function is called with the number of texts encoded since
            the last call.
        total: The number of texts, for the progress bar.
    Yields:
        Blocks of (block_rows, dim) float32, in the order of the texts. The last block may be shorter. If texts
        were truncated, one warning at the end says how many, and which share of the tokens was lost. If most tokens of
        a text are unknown to the vocabulary, another warning says so. Both warnings come even if the caller stops
        early.
    """
    encoder = encoders[role]

    def encode(token_ids: TokenIds, progress: Progress) -> csr_array:
        return _rows(encoder, settings, token_ids, progress)

    return _stream(encoder, settings, texts, encode, block_rows, show_progress, total)


def stream_rows_with_dense(
    encoder: RoleEncoder,
    settings: RoleSettings,
    texts: Iterable[str],
    *,
    block_rows: int,
    show_progress: ShowProgress = False,
    total: int | None = None,
) -> Iterator[tuple[csr_array, NDArray[np.float32]]]:
    """Do what `stream_rows` does, and yield each block of rows together with the dense vectors of its texts.

    One pass of the model computes both.

    Args:
        encoder: The encoder. Its model must be one that gives each token a weight.
        settings: The settings of the role. `max_windows` must be 1.
        texts: As in `stream_rows`.
        block_rows: As in `stream_rows`.
        show_progress: As in `stream_rows`.
        total: As in `stream_rows`.
    Yields:
        Blocks of (block_rows, dim) and (block_rows, hidden size) float32. The dense vectors have length 1.
    """
    model = encoder.rows
    assert isinstance(model, DenseRowModel)

    def encode(token_ids: TokenIds, progress: Progress) -> tuple[csr_array, NDArray[np.float32]]:
        rows, dense = model.encode_with_dense(token_ids.ids, progress)
        return _kept_terms(rows, encoder, settings), dense

    return _stream(encoder, settings, texts, encode, block_rows, show_progress, total)


def _stream(
    encoder: RoleEncoder,
    settings: RoleSettings,
    texts: Iterable[str],
    encode: Callable[[TokenIds, Progress], _Out],
    block_rows: int,
    show_progress: ShowProgress,
    total: int | None,
) -> Iterator[_Out]:
    """Yield `encode(token ids, progress)` for each block of texts. See `stream_rows`."""

    def tokenize(block: list[str]) -> TokenIds:
        return _tokenize(encoder, settings, block)

    found = _Warnings(encoder, settings)
    try:
        with reporting(show_progress, total) as report:
            for token_ids in one_ahead(tokenize, _blocks(texts, block_rows)):
                found.count(token_ids)
                yield encode(token_ids, _counting_texts(report, token_ids))
    finally:  # also if the caller stops early
        found.warn()


def encode_block(encoder: RoleEncoder, settings: RoleSettings, texts: list[str]) -> csr_array:
    """Encode one block of texts. The rows are those of `stream_rows`, but a single query takes half as long.

    Args:
        encoder: The encoder of the role.
        settings: The settings of the role.
        texts: N texts. All of them are encoded as one block.
    Returns:
        (N, dim) float32.
    """
    token_ids = _tokenize(encoder, settings, texts)
    if token_ids.truncated or token_ids.unknown_texts:
        found = _Warnings(encoder, settings)
        found.count(token_ids)
        found.warn()
    return _rows(encoder, settings, token_ids, _ignored)


@dataclass(frozen=True)
class TokenCount:
    """How many tokens a text has, special tokens included, and how many of them are cut off when it is encoded."""

    tokens: int
    tokens_lost: int


def count_tokens(encoder: RoleEncoder, settings: RoleSettings, texts: list[str]) -> list[TokenCount]:
    """Count the tokens of N texts, with the prompt of the role."""
    counted = (_tokenize(encoder, settings, [text]) for text in texts)
    return [TokenCount(ids.tokens, ids.tokens_lost) for ids in counted]


def _tokenize(encoder: RoleEncoder, settings: RoleSettings, texts: list[str]) -> TokenIds:
    prompt = settings.prompt
    return encoder.tokenize([prompt + text for text in texts] if prompt else texts, settings.max_windows)


def _rows(
    encoder: RoleEncoder, settings: RoleSettings, token_ids: TokenIds, progress: Callable[[int], object]
) -> csr_array:
    """Return the rows of the texts with these token ids."""
    rows = max_over_groups(encoder.rows.encode(token_ids.ids, progress), token_ids.windows)
    return _kept_terms(rows, encoder, settings)


def _ignored(number: int) -> None:
    """Report no progress."""


def _kept_terms(rows: csr_array, encoder: RoleEncoder, settings: RoleSettings) -> csr_array:
    """Drop the terms of special tokens, if the settings say so, and prune the rest."""
    if settings.drops_special_terms:
        rows = drop_terms(rows, encoder.special_terms)
    return settings.pruning.apply(rows)


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


@contextmanager
def reporting(show_progress: ShowProgress, total: int | None) -> Iterator[Callable[[int], object]]:
    """Yield the function that gets the number of texts encoded since its last call."""
    if show_progress is not True:
        yield show_progress or _ignored
        return
    from tqdm.auto import tqdm  # imported late, because few calls show a bar

    with tqdm(total=total, unit="text", desc="SPLADE") as progress:
        yield progress.update


class _Warnings:
    """Counts what a call should warn about: texts that were cut, and texts that consist mostly of unknown tokens."""

    def __init__(self, encoder: RoleEncoder, settings: RoleSettings) -> None:
        content = encoder.tokenize.max_content_tokens
        self._truncation = Truncation(encoder.max_length, content, settings.max_windows)
        self._unknown = _Unknown(encoder)

    def count(self, token_ids: TokenIds) -> None:
        self._truncation.count(
            texts=len(token_ids.windows),
            truncated=token_ids.truncated,
            tokens=token_ids.tokens,
            lost=token_ids.tokens_lost,
        )
        self._unknown.count(token_ids)

    def warn(self) -> None:
        self._truncation.warn()
        self._unknown.warn()


class _Unknown:
    """Counts all texts and tokens so far, the texts that consist mostly of unknown tokens, and the unknown tokens."""

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
                "%d of %d texts are mostly %s, which stands for words that are not in the model's vocabulary. In this "
                "call, %.1f %% of all tokens are unknown. Searches hardly find such texts. Use a model for the "
                "language of the texts.",
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
