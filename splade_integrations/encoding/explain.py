"""Why does a document match a query? The terms that both share, what each adds to the score, and where it comes from.

Plain data, computed from one query and one document by an encoder's sides. Draws nothing: `rendering.py` does.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from splade_integrations.encoding.tokenizer import TokenIds, TokenPlaces
from splade_integrations.encoding.transformer import EncodingSide

__all__ = ["EncodedText", "Explanation", "Place", "Term", "explain", "readable_tokens"]


@dataclass(frozen=True)
class EncodedText:
    """A text, its row, and what made it.

    Args:
        text: The text, without the prompt.
        prompt: What was put before it.
        row: Its term weights. (1, V).
        side: The side that encoded it.
        max_windows: Most windows that it was cut into.
    """

    text: str
    prompt: str
    row: csr_array
    side: EncodingSide
    max_windows: int = 1


@dataclass(frozen=True)
class Place:
    """The token that a term's weight comes from.

    Args:
        token_index: Its position among the token ids that the model read, prompt and special tokens included. The
            windows of a long document count as one after the other.
        token: The token as a person reads it.
        start: Where it begins in the text, in characters; None where it is not in the text (a special token, the
            prompt) or the tokenizer does not say.
        end: Where it ends.
        word: The word of the text that it is a piece of, or the token itself.
        word_start: Where the word begins, or None.
        word_end: Where the word ends, or None.
        share: How much of the weight comes from this token. Under max pooling all of it, 1; under sum pooling this
            is the token with the largest share.
    """

    token_index: int
    token: str
    start: int | None
    end: int | None
    word: str
    word_start: int | None
    word_end: int | None
    share: float


@dataclass(frozen=True)
class Term:
    """A vocabulary term that query and document share.

    Args:
        token_id: Its column.
        token: The vocabulary's entry, such as "##ing".
        label: The entry as a person reads it: "…ing (turing)" for a piece of a word of the text.
        query_weight: Its weight in the query.
        document_weight: Its weight in the document.
        contribution: The product of both: its part of the score.
        in_query: Whether the query's own tokens have it; if not, the query was expanded by it.
        in_document: Whether the document's own tokens have it; if not, the document was expanded by it.
        query_place: Where in the query its weight comes from.
        document_place: Where in the document its weight comes from.
    """

    token_id: int
    token: str
    label: str
    query_weight: float
    document_weight: float
    contribution: float
    in_query: bool
    in_document: bool
    query_place: Place
    document_place: Place

    @property
    def expansion(self) -> bool:
        """Whether it is an expansion on either side: a match that comparing the texts' tokens would not find."""
        return not (self.in_query and self.in_document)


@dataclass(frozen=True)
class Explanation:
    """The score of a document for a query, term by term.

    It shows itself as highlighted text and bars in a notebook, and in a terminal through `rich.print`.

    Args:
        query: The query, lone surrogates replaced.
        document: The document; likewise.
        score: The inner product: what Milvus returns. The sum of all contributions.
        terms: The shared terms by falling contribution, ties by token id.
        query_terms: How many terms the query has, shared or not.
        document_terms: How many the document has.
    """

    query: str
    document: str
    score: float
    terms: tuple[Term, ...] = field(repr=False)
    query_terms: int
    document_terms: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as JSON takes it; each term says whether it is an `expansion`."""
        whole = asdict(self)
        whole["terms"] = [asdict(term) | {"expansion": term.expansion} for term in self.terms]
        return whole

    def _repr_html_(self) -> str:
        from splade_integrations.encoding.render import to_html

        return to_html(self)

    def __rich_console__(self, console: Any, options: Any) -> Iterable[Any]:
        from splade_integrations.encoding.render import to_rich

        return to_rich(self, options.max_width)

    def plot(self, ax: Any = None, *, top_k: int = 15) -> Any:
        """Draw a bar for each term by matplotlib.

        Args:
            ax: Axes to draw into. None makes a figure.
            top_k: Most bars; the others are drawn as one.
        Returns:
            The axes.
        Raises:
            OptionalDependencyError: matplotlib is not installed.
        """
        from splade_integrations.encoding.render import plot

        return plot(self, ax, top_k=top_k)


def explain(query: EncodedText, document: EncodedText) -> Explanation:
    """Explain the inner product of two rows.

    Args:
        query: The query.
        document: The document; its row is of the same width.
    """
    query_weights, document_weights = (
        dict(zip(text.row.indices.tolist(), text.row.data.tolist(), strict=True)) for text in (query, document)
    )
    shared = sorted(query_weights.keys() & document_weights.keys())
    sides = [_locate(text, np.array(shared, np.int32)) for text in (query, document)]
    tokens = document.side.tokenizer.convert_ids_to_tokens(shared)
    readable = readable_tokens(document.side.tokenizer, tokens)
    terms = []
    for column, token_id in enumerate(shared):
        places = [side.places[column] for side in sides]
        terms.append(
            Term(
                token_id=token_id,
                token=tokens[column],
                label=_label(readable[column], token_id, sides),
                query_weight=query_weights[token_id],
                document_weight=document_weights[token_id],
                contribution=query_weights[token_id] * document_weights[token_id],
                in_query=token_id in sides[0].token_ids,
                in_document=token_id in sides[1].token_ids,
                query_place=places[0],
                document_place=places[1],
            )
        )
    terms.sort(key=lambda term: -term.contribution)  # stable: ties stay by token id
    return Explanation(
        query=sides[0].text,
        document=sides[1].text,
        score=sum(term.contribution for term in terms),
        terms=tuple(terms),
        query_terms=len(query_weights),
        document_terms=len(document_weights),
    )


def readable_tokens(tokenizer: Any, tokens: list[str]) -> list[str]:
    """Vocabulary entries as a person reads them; a piece that continues a word begins with "…".

    Knows the marks of WordPiece (##), byte-level BPE (Ġ, and its stand-ins for bytes) and SentencePiece (▁).

    Example:
        >>> from transformers import AutoTokenizer
        >>> readable_tokens(AutoTokenizer.from_pretrained(model_folder), ["turing", "##ing", "[SEP]"])
        ['turing', '…ing', '[SEP]']
    """
    mark = _start_mark(tokenizer)
    special = set(tokenizer.all_special_tokens)
    return [token if token in special else _readable(tokenizer, token, mark) for token in tokens]


def _readable(tokenizer: Any, token: str, mark: str) -> str:
    if not mark:
        continues, shown = token.startswith("##"), token.removeprefix("##")
    else:
        continues = not token.startswith(mark)
        shown = tokenizer.convert_tokens_to_string([token]) if mark == "Ġ" else token.replace(mark, " ")
        if "\ufffd" in shown:  # a part of a character
            return token
    if not shown.strip():
        return repr(shown)[1:-1].replace(" ", "␣") or token
    return ("…" if continues and shown[0].isalnum() else "") + shown.strip()


def _start_mark(tokenizer: Any) -> str:
    """What the vocabulary puts before the first piece of a word: Ġ, ▁, or nothing."""
    vocabulary = tokenizer.get_vocab()
    return max(("", "Ġ", "▁"), key=lambda mark: sum(token.startswith(mark) for token in vocabulary) if mark else 100)


@dataclass(frozen=True)
class _Located:
    """One text's part of an explanation: its tokens, and the place of each shared term."""

    text: str
    token_ids: dict[int, list[int]]  # the positions of each token id
    tokens: list[Place]
    places: list[Place]


def _locate(text: EncodedText, terms: NDArray[np.int32]) -> _Located:
    windows = text.side.tokenize.places(text.prompt + text.text, text.max_windows)
    tokens: list[Place] = []
    occurrences: dict[int, list[int]] = {}
    positions, shares = np.zeros(len(terms), np.int64), np.zeros(len(terms), np.float32)
    source = _heaviest_windows(text.side, windows, terms)
    for number, window in enumerate(windows):
        here = source == number
        if here.any():
            found, shares[here] = text.side.locate(window.ids, terms[here])
            positions[here] = len(tokens) + found
        for place in _places(text.side.tokenizer, window, len(text.prompt)):
            if place.start is not None or window.pieces is None:
                occurrences.setdefault(window.ids[place.token_index], []).append(len(tokens))
            tokens.append(replace(place, token_index=len(tokens)))
    return _Located(
        text=windows[0].text[len(text.prompt) :],
        token_ids=occurrences,
        tokens=tokens,
        places=[replace(tokens[at], share=float(share)) for at, share in zip(positions.tolist(), shares, strict=True)],
    )


def _heaviest_windows(side: EncodingSide, windows: list[TokenPlaces], terms: NDArray[np.int32]) -> NDArray[np.int64]:
    """The window in which each term weighs most. (K,)."""
    if len(windows) == 1:
        return np.zeros(len(terms), np.int64)
    ids = [window.ids for window in windows]
    token_ids = TokenIds(ids, windows=[len(ids)], truncated=0, tokens_lost=0, tokens=sum(map(len, ids)))
    weights = side.encode(token_ids, lambda _: None)[:, terms].toarray()  # (W, K)
    heaviest: NDArray[np.int64] = weights.argmax(axis=0)
    return heaviest


def _places(tokenizer: Any, found: TokenPlaces, prompt: int) -> list[Place]:
    """Each token of a text as a place in it, `prompt` characters having been put before it."""
    readable = readable_tokens(tokenizer, tokenizer.convert_ids_to_tokens(found.ids))
    places = []
    for position, token in enumerate(readable):
        start, end = found.pieces[position] if found.pieces is not None else (0, 0)
        if end <= start or start < prompt:
            places.append(Place(position, token, None, None, token, None, None, 1.0))
            continue
        word_start, word_end = found.words[position] if found.words is not None else (start, end)
        while word_start < word_end and found.text[word_start].isspace():  # byte-level BPE counts the space before
            word_start += 1
        word = found.text[word_start:word_end] or token
        places.append(
            Place(position, token, start - prompt, end - prompt, word, word_start - prompt, word_end - prompt, 1.0)
        )
    return places


def _label(readable: str, token_id: int, sides: list[_Located]) -> str:
    """`readable`, and for a piece of a word the word itself: the document's, else the query's."""
    for side in reversed(sides):
        for position in side.token_ids.get(token_id, [])[:1]:
            place = side.tokens[position]
            if place.word_start is not None and place.word_end is not None and place.start is not None:
                whole = (place.start, place.end) == (place.word_start, place.word_end)
                return readable if whole else f"{readable} ({place.word})"
    return readable
