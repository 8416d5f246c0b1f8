"""Turns texts into rows of term weights: adds the prompt, tokenises, runs the model, and prunes the rows.

Many texts are split into blocks. While the model works on one block of texts, the next block is tokenised.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from scipy.sparse import csr_array

from splade_integrations.encoding.lookup import Progress
from splade_integrations.encoding.prefetch import one_ahead
from splade_integrations.encoding.progress import ShowProgress, counting_texts, reporting
from splade_integrations.encoding.roles import Role, RoleEncoder
from splade_integrations.encoding.text_warnings import TextWarnings
from splade_integrations.encoding.tokenizer import TokenIds
from splade_integrations.errors import NotFiniteError
from splade_integrations.models.spec import ModelSpec
from splade_integrations.pruning import Pruning
from splade_integrations.sparse import concatenate, drop_terms, max_over_groups

__all__ = [
    "RoleSettings",
    "TokenCount",
    "count_tokens",
    "encode",
    "role_settings",
    "stream_rows",
]


@dataclass(frozen=True)
class RoleSettings:
    """The settings for encoding the texts of one role, which is either documents or queries.

    Args:
        prompt: The string that is put before each text.
        max_windows: The largest number of windows that a text is cut into. Each window has at most as many tokens as
            the encoder's `max_length`. If `max_windows` is 1, a text is cut off after `max_length` tokens.
        drops_special_terms: Whether the terms of special tokens are dropped from the rows.
        pruning: The rules that decide which terms of a row are kept.
    """

    prompt: str
    max_windows: int
    drops_special_terms: bool
    pruning: Pruning


def role_settings(
    spec: ModelSpec, max_windows: int, query_pruning: Pruning | None, document_pruning: Pruning | None
) -> dict[Role, RoleSettings]:
    """Return the settings of both roles of a model.

    Args:
        spec: The spec of the model.
        max_windows: The largest number of windows of a document. Queries have one window.
        query_pruning: The rules that decide which terms of a query are kept. None means the rules in the spec.
        document_pruning: The rules that decide which terms of a document are kept. None means the rules in the spec.
    """
    drops = spec.special_terms == "drop"
    # In inference-free queries, special tokens already have the weight 0.
    drops_in_queries = drops and spec.query.transformer is not None
    return {
        "query": RoleSettings(spec.query.prompt, 1, drops_in_queries, query_pruning or spec.query_pruning),
        "document": RoleSettings(spec.document.prompt, max_windows, drops, document_pruning or spec.document_pruning),
    }


def encode(
    texts: list[str], encoder: RoleEncoder, settings: RoleSettings, show_progress: ShowProgress = False
) -> csr_array:
    """Encode a list of texts, with the same rows and warnings as `stream_rows`.

    If the texts fit in one block and no progress is shown, this function encodes them without `stream_rows`. A single
    query then takes half as long as with `stream_rows`.

    Args:
        texts: N texts.
        encoder: The encoder of the role.
        settings: The settings of the role.
        show_progress: As in `stream_rows`.
    Returns:
        (N, dim) float32.
    """
    if show_progress or not 0 < len(texts) <= encoder.block_rows:
        blocks = stream_rows(texts, encoder, settings, show_progress, total=len(texts))
        return concatenate(list(blocks), encoder.dim)
    token_ids = _tokenize(texts, encoder, settings)
    if token_ids.truncated or token_ids.unknown_texts:
        warnings = _warnings(encoder, settings)
        warnings.count(token_ids)
        warnings.warn()
    try:
        return _rows(token_ids, None, encoder, settings)
    except NotFiniteError as err:
        raise NotFiniteError(_text_of_window(err.position, token_ids)) from err


def stream_rows(
    texts: Iterable[str],
    encoder: RoleEncoder,
    settings: RoleSettings,
    show_progress: ShowProgress = False,
    *,
    total: int | None = None,
    block_rows: int | None = None,
) -> Iterator[csr_array]:
    """Encode texts as they arrive. While the model works on one block, the next block is tokenised.

    Args:
        texts: The texts. At most one block of texts is read ahead.
        encoder: The encoder of the role.
        settings: The settings of the role.
        show_progress: True shows a progress bar on stderr. A function is called with the number of texts encoded since
            its last call.
        total: The number of texts, for the progress bar.
        block_rows: The number of texts in a block. None means the encoder's own number.
    Yields:
        The rows of each block, (block_rows, dim) float32, in the order of the texts. The last block may be shorter. If
        texts were truncated, one warning at the end says how many, and what share of all tokens was lost. If texts
        consist mostly of unknown tokens, another warning says so. Both warnings are logged even if the caller stops
        early.
    """

    def tokenize(block: list[str]) -> TokenIds:
        return _tokenize(block, encoder, settings)

    warnings = _warnings(encoder, settings)
    try:
        with reporting(show_progress, total) as report:
            before = 0  # the number of texts in earlier blocks
            for token_ids in one_ahead(tokenize, _blocks(texts, block_rows or encoder.block_rows)):
                warnings.count(token_ids)
                progress = counting_texts(report, texts=len(token_ids.windows), windows=len(token_ids.ids))
                try:
                    rows = _rows(token_ids, progress, encoder, settings)
                except NotFiniteError as err:
                    raise NotFiniteError(before + _text_of_window(err.position, token_ids)) from err
                yield rows
                before += len(token_ids.windows)
    finally:  # so that the warnings are logged even if the caller stops early
        warnings.warn()


@dataclass(frozen=True)
class TokenCount:
    """The number of tokens of a text, special tokens included, and the number of tokens that the encoder cuts off."""

    tokens: int
    tokens_lost: int


def count_tokens(texts: list[str], encoder: RoleEncoder, settings: RoleSettings) -> list[TokenCount]:
    """Count the tokens of each text, including the prompt of the role."""
    counted = (_tokenize([text], encoder, settings) for text in texts)
    return [TokenCount(ids.tokens, ids.tokens_lost) for ids in counted]


def _tokenize(texts: list[str], encoder: RoleEncoder, settings: RoleSettings) -> TokenIds:
    prompt = settings.prompt
    return encoder.tokenize([prompt + text for text in texts] if prompt else texts, settings.max_windows)


def _rows(token_ids: TokenIds, progress: Progress, encoder: RoleEncoder, settings: RoleSettings) -> csr_array:
    """Run the model on token ids, and return one row for each text, without the terms that the settings drop."""
    rows = max_over_groups(encoder.rows.encode(token_ids.ids, progress), token_ids.windows)
    if settings.drops_special_terms:
        rows = drop_terms(rows, encoder.special_terms)
    return settings.pruning.apply(rows)


def _warnings(encoder: RoleEncoder, settings: RoleSettings) -> TextWarnings:
    return TextWarnings(
        encoder.max_length, encoder.tokenize.max_content_tokens, settings.max_windows, encoder.tokenizer.unk_token
    )


def _text_of_window(position: int, token_ids: TokenIds) -> int:
    """Return the position of the text that a window belongs to."""
    return int(np.searchsorted(np.cumsum(token_ids.windows), position, side="right"))


def _blocks(texts: Iterable[str], rows: int) -> Iterator[list[str]]:
    drawn = iter(texts)
    while block := list(islice(drawn, rows)):
        yield block
