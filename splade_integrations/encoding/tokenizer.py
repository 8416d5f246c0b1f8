"""Turns texts into token ids, and counts the tokens that truncation cuts off.

Truncation never cuts off the special tokens around a text, such as [CLS] and [SEP]. Several threads may use this module
at the same time.
"""

import copy
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Encoding, normalizers

from splade_integrations.encoding.texts import replace_surrogates
from splade_integrations.encoding.tokenizer_file import FileTokenizer, changed_normalization
from splade_integrations.errors import UnsupportedModelError, catchable_panics, first_line
from splade_integrations.forks import ForkSafeLock, this_thread
from splade_integrations.models.repository import Repository
from splade_integrations.sparse import is_integer

__all__ = [
    "TextTokenizer",
    "TokenIds",
    "TokenOffsets",
    "load_tokenizer",
    "lowers_case",
    "resolve_max_length",
    "token_names",
]

logger = logging.getLogger(__name__)

# A long text can be cut into windows of `max_length` tokens. Each window repeats this share of the window before it, so
# most phrases are complete in at least one window.
_OVERLAP = 1 / 8
# The number of texts that are tokenised at once. This number limits the memory that the tokens need: the library
# `tokenizers` returns each token as a string, even if the token is cut off. The strings of one long text need about
# 100 KB.
TEXTS_AT_ONCE = 256
# If a tokenizer's limit on the number of tokens of a text is this number or more, it counts as no limit. A tokenizer
# that states no limit reports 1e30.
_NO_LIMIT = 10**6


@dataclass(frozen=True)
class TokenIds:
    """The token ids of some texts, and the number of tokens lost by truncation.

    Args:
        ids: One list of token ids for each window of each text, special tokens included. The windows of a text are in
            their order in the text.
        windows: The number of windows of each text.
        truncated: The number of texts that were cut.
        tokens_lost: The number of tokens that were cut off.
        tokens: The number of tokens of all texts before they were cut.
        unknown_texts: The number of texts that consist mostly of unknown tokens. An unknown token, such as [UNK],
            stands for words that are not in the vocabulary. Special tokens around a text do not count.
        unknown_tokens: The number of unknown tokens in all texts.
    """

    ids: list[list[int]]
    windows: list[int]
    truncated: int
    tokens_lost: int
    tokens: int
    unknown_texts: int = 0
    unknown_tokens: int = 0


@dataclass(frozen=True)
class TokenOffsets:
    """The tokens of one window of a text, and their positions in the text.

    Args:
        ids: Token ids, special tokens included.
        offsets: The (start, end) of each token in `text`, in characters. A token that is not in the text has (0, 0).
            `offsets` is None if the tokenizer is written in Python, because such a tokenizer does not return offsets.
        words: For each token, the (start, end) of the word that contains the token, in the same form as `offsets`.
        text: The text, with lone surrogates replaced.
    """

    ids: list[int]
    offsets: list[tuple[int, int]] | None
    words: list[tuple[int, int]] | None
    text: str


class TextTokenizer:
    """Tokenises texts into windows of at most `max_length` token ids, with any Hugging Face tokenizer, in any thread.

    A fast tokenizer, which is written in Rust, stores the length at which it truncates texts. If two threads shared a
    tokenizer but set different lengths, each thread would change the results of the other thread. So this class copies
    a tokenizer of transformers and sets the length once. (Only this package uses a `FileTokenizer`, which is therefore
    not copied.) A tokenizer that is written in Python is called under a lock.

    Args:
        tokenizer: A tokenizer of transformers, or a `FileTokenizer`.
        max_length: The largest number of token ids of a window, special tokens included.
        add_special_tokens: Whether to put the model's special tokens, such as [CLS] and [SEP], around a text.
        lower_case: Whether to lowercase texts first, for a tokenizer that does not do so itself.

    Attributes:
        max_content_tokens: The largest number of tokens of a window, special tokens excluded.

    Raises:
        UnsupportedModelError: The tokenizer cannot be copied, because its tokenizer.json contradicts itself.
    """

    def __init__(
        self, tokenizer: Any, max_length: int, *, add_special_tokens: bool = True, lower_case: bool = False
    ) -> None:
        self._python: Any = None
        self._specials = tokenizer.num_special_tokens_to_add() if add_special_tokens else 0
        self.max_content_tokens = max_length - self._specials
        self._add_special_tokens = add_special_tokens
        self._overlap = int(_OVERLAP * max_length)
        self._unknown_id = _unknown_id(tokenizer)
        if getattr(tokenizer, "is_fast", False):
            # Callers may use a tokenizer of transformers as well, so it must not change. Nobody but this package uses a
            # FileTokenizer, and a copy of it would take 20 ms and some megabytes.
            shared = isinstance(tokenizer, FileTokenizer) and not lower_case
            self._rust = tokenizer.backend_tokenizer if shared else _copied(tokenizer.backend_tokenizer)
            self._rust.no_padding()
            if lower_case:  # unlike text.lower(), a normalizer does not change special tokens in a text
                own = [self._rust.normalizer] if self._rust.normalizer else []
                self._rust.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
            self._rust.enable_truncation(max_length, stride=self._overlap, direction=tokenizer.truncation_side)
        else:
            self._python, self._lower_case = copy.deepcopy(tokenizer), lower_case
            self._lock = ForkSafeLock()

    def __call__(self, texts: Sequence[str], max_windows: int = 1) -> TokenIds:
        """Tokenise texts.

        Args:
            texts: N texts. A lone surrogate is replaced by U+FFFD, because no tokenizer accepts lone surrogates.
            max_windows: The largest number of windows of a text. A text of more than `max_length` tokens is cut into
                windows of `max_length` tokens. The tokens that are in none of the first `max_windows` windows are lost.
        """
        # An ASCII text has no surrogates, and isascii() is fast, because it only reads a flag of the string.
        texts = [text if text.isascii() else replace_surrogates(text) for text in texts]
        # A fork must not happen while `tokenizers` holds one of its locks.
        with this_thread.no_fork, catchable_panics():
            return self._call_python(texts, max_windows) if self._python else self._call_rust(texts, max_windows)

    def offsets(self, text: str, max_windows: int = 1) -> list[TokenOffsets]:
        """Cut `text` into the same windows as `__call__`, and return the tokens and their positions in `text`."""
        text = replace_surrogates(text)
        if self._python:
            return [TokenOffsets(ids, None, None, text) for ids in self._call_python([text], max_windows).ids]
        with catchable_panics():
            encoding = self._rust.encode(text, add_special_tokens=self._add_special_tokens)
        windows = []
        for piece in [encoding, *encoding.overflowing][:max_windows]:
            words = []
            for token, word in enumerate(piece.word_ids):
                span = None if word is None else piece.word_to_chars(word)
                words.append(span or piece.offsets[token])
            windows.append(TokenOffsets(piece.ids, piece.offsets, words, text))
        return windows

    def _call_rust(self, texts: list[str], max_windows: int) -> TokenIds:
        ids: list[list[int]] = []
        windows = []
        truncated = tokens_lost = tokens = unknown_texts = unknown_tokens = 0
        for encoding in self._encodings(texts):
            overflowing = encoding.overflowing
            if not overflowing:
                own = encoding.ids
                ids.append(own)
                windows.append(1)
                tokens += len(own)
                if self._unknown_id in own:
                    unknown, mostly = self._unknown([own])
                    unknown_tokens += unknown
                    unknown_texts += mostly
                continue
            pieces = [encoding, *overflowing]
            kept = [piece.ids for piece in pieces[:max_windows]]
            # The number of new tokens in each window after the first. Special tokens and repeated tokens do not count.
            added = [len(piece) - sum(piece.special_tokens_mask) - self._overlap for piece in pieces[1:]]
            lost = sum(added[max_windows - 1 :])
            ids += kept
            windows.append(len(kept))
            truncated += lost > 0
            tokens_lost += lost
            tokens += len(encoding) + sum(added)
            unknown, mostly = self._unknown(kept)
            unknown_tokens += unknown
            unknown_texts += mostly
        return TokenIds(ids, windows, truncated, tokens_lost, tokens, unknown_texts, unknown_tokens)

    def _unknown(self, windows: list[list[int]]) -> tuple[int, bool]:
        """Return the number of unknown tokens of a text, and whether most of its tokens are unknown.

        Special tokens around the text do not count.
        """
        unknown = sum(ids.count(self._unknown_id) for ids in windows)
        return unknown, 2 * unknown > sum(map(len, windows)) - self._specials * len(windows)

    def _encodings(self, texts: list[str]) -> Iterable[Encoding]:
        if len(texts) <= TEXTS_AT_ONCE:
            encodings: list[Encoding] = self._rust.encode_batch_fast(texts, add_special_tokens=self._add_special_tokens)
            return encodings
        return self._encodings_of_many(texts)

    def _encodings_of_many(self, texts: list[str]) -> Iterator[Encoding]:
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[start : start + TEXTS_AT_ONCE]
            yield from self._rust.encode_batch_fast(some, add_special_tokens=self._add_special_tokens)

    def _call_python(self, texts: list[str], max_windows: int) -> TokenIds:
        ids: list[list[int]] = []
        windows = []
        truncated = tokens_lost = tokens = unknown_texts = unknown_tokens = 0
        with self._lock:
            for text in texts:
                text = text.lower() if self._lower_case else text
                content = self._python(text, add_special_tokens=False, verbose=False)["input_ids"]
                step = self.max_content_tokens - self._overlap
                starts = range(0, max(1, len(content) - self._overlap), step)[:max_windows]
                kept = [content[start : start + self.max_content_tokens] for start in starts]
                if self._add_special_tokens:
                    kept = [self._python.build_inputs_with_special_tokens(window) for window in kept]
                lost = max(0, len(content) - starts[-1] - self.max_content_tokens)
                ids += kept
                windows.append(len(kept))
                truncated += lost > 0
                tokens_lost += lost
                tokens += len(content) + self._specials
                unknown, mostly = self._unknown(kept)
                unknown_tokens += unknown
                unknown_texts += mostly
        return TokenIds(ids, windows, truncated, tokens_lost, tokens, unknown_texts, unknown_tokens)


def _copied(backend: Any) -> Any:
    """Return a copy of a fast tokenizer.

    If two tokens have the same id, `tokenizers` loads the file, but its copy lacks one of the tokens.
    """
    try:
        with catchable_panics():
            return copy.deepcopy(backend)
    except Exception as err:  # `tokenizers` raises plain Exception
        raise UnsupportedModelError(
            f"tokenizer.json must give each token an id of its own, got a tokenizer that cannot be copied "
            f"({first_line(err)}). Download the model's tokenizer.json again."
        ) from err


def _unknown_id(tokenizer: Any) -> int:
    """Return the id of the unknown token, such as [UNK], or -1 if the tokenizer has no such token.

    Some tokenizers also put their unknown token at the start or the end of every text. The result is then -1 as well,
    because such a token does not show that a text has unknown words.
    """
    others = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    unknown = tokenizer.unk_token_id
    return -1 if unknown is None or unknown in others else int(unknown)


def lowers_case(tokenizer: Any) -> bool:
    """Return whether a tokenizer lowercases texts itself."""
    if not getattr(tokenizer, "is_fast", False):
        return bool(getattr(tokenizer, "do_lower_case", False))
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and normalizer.normalize_str("Q") == "q"


def token_names(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Return the vocabulary entry of each token id, or `[unused<id>]` for an id that the tokenizer does not have.

    Some models have more output columns than their tokenizer has vocabulary entries.

    Example:
        >>> from transformers import AutoTokenizer
        >>> token_names(AutoTokenizer.from_pretrained(model_folder), [2000, 99_999])
        ['to', '[unused99999]']
    """
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    return [f"[unused{id}]" if token is None else token for id, token in zip(ids, tokens, strict=True)]


def load_tokenizer(repository: Repository, folder: str) -> Any:
    """Return the tokenizer in a folder of a repository. The folder "" is the repository's root.

    Raises:
        FileNotFoundError: The folder has no tokenizer that loads.
        UnsupportedModelError: The files of the tokenizer are damaged.
    """
    from transformers import AutoTokenizer  # takes a second to import

    try:
        with catchable_panics():
            tokenizer = AutoTokenizer.from_pretrained(**repository.location(folder))
        _unknown_id(tokenizer)  # transformers looks up special tokens only now, and may fail
        if not tokenizer.model_max_length > 0:
            raise TypeError(f"model_max_length is {tokenizer.model_max_length!r}")
    except (OSError, ValueError) as err:
        raise FileNotFoundError(
            f"{repository.name!r} must have a tokenizer that loads, got an error ({first_line(err)}). Add the "
            "missing files."
        ) from err
    except Exception as err:  # transformers and tokenizers raise errors of many types
        raise UnsupportedModelError(
            f"{repository.name!r} must have a tokenizer that loads, got damaged files ({type(err).__name__}: "
            f"{first_line(err)}). Download its tokenizer.json and tokenizer_config.json again."
        ) from err
    if (changed := changed_normalization(repository, folder, tokenizer)) is not None:
        logger.warning(
            "The tokenizer.json of %r turns %r into %r. The tokenizer that transformers makes gives %r instead, and "
            "the encoder uses the tokenizer of transformers. If the model was trained with tokenizer.json, write "
            "do_lower_case and strip_accents into tokenizer_config.json.",
            repository.name, *changed,
        )  # fmt: skip
    return tokenizer


def resolve_max_length(requested: int | None, stated: int | None, positions: int | None, tokenizer: Any) -> int:
    """Return the largest number of token ids of a text: `requested` or, if that is None, the model's limit.

    The number includes special tokens. If `requested` is None and the model states no limit, the number is 512.

    Args:
        requested: The number that the user requests, or None.
        stated: The limit that the repository states in its sentence-transformers files, or None.
        positions: The model's number of positions, or None.
        tokenizer: The tokenizer.
    Raises:
        ValueError: `requested` is not an int, exceeds `positions`, or leaves room only for special tokens.
        UnsupportedModelError: The repository states a limit that is not a number, or that leaves room only for special
            tokens.
    """
    least = tokenizer.num_special_tokens_to_add() + 1
    if requested is None:
        limits = [stated or tokenizer.model_max_length, positions]
        for limit in limits:
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or limit < least):
                raise UnsupportedModelError(
                    f"the model must take texts of at least {least} tokens, got a limit of {limit!r}. Correct "
                    "model_max_length in its tokenizer_config.json, or max_position_embeddings in its config.json."
                )
        return int(min((limit for limit in limits if limit is not None and limit < _NO_LIMIT), default=512))
    if not is_integer(requested) or requested < least:
        raise ValueError(
            f"max_length must be an int of at least {least}, got {requested!r}. Use None for the model's own limit."
        )
    if positions is not None and requested > positions:
        raise ValueError(
            f"max_length must be at most {positions}, got {requested}. The model has {positions} positions. Use None "
            "for the model's own limit."
        )
    return int(requested)
