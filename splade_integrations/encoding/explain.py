"""Explains why a document matches a query: what each shared term adds, and which words the weights come from.

`render.py` draws the explanations.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from splade_integrations.encoding.pipeline import RoleSettings, encode
from splade_integrations.encoding.render import Rendered
from splade_integrations.encoding.roles import RoleEncoder
from splade_integrations.encoding.terms import Place, Term
from splade_integrations.encoding.tokenizer import TokenOffsets, token_names

__all__ = ["EncodedText", "Explanation", "explain", "explain_stored", "readable_tokens"]


# The result of `_start_mark` for each tokenizer. It is kept, because `_start_mark` reads the whole vocabulary, which
# takes longer than explaining a document.
_marks: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


@dataclass(frozen=True)
class EncodedText:
    """A text, its row of term weights, and the encoder that made the row.

    Args:
        text: The text, without the prompt.
        row: The term weights of the text. (1, V), where V is the size of the vocabulary.
        encoder: The encoder that made the row.
        settings: The settings with which the row was made.
    """

    text: str
    row: csr_array
    encoder: RoleEncoder
    settings: RoleSettings

    @classmethod
    def of(cls, text: str, encoder: RoleEncoder, settings: RoleSettings) -> "EncodedText":
        """Encode a text."""
        return cls(text, encode([text], encoder, settings), encoder, settings)

    def windows(self) -> list[TokenOffsets]:
        """Return the tokens of each window that the prompt and the text are cut into."""
        return self.encoder.tokenize.offsets(self.settings.prompt + self.text, self.settings.max_windows)


@dataclass(frozen=True)
class Explanation(Rendered):
    """The score of a document for a query, term by term.

    A notebook shows an explanation as highlighted texts with a bar for each term. In a terminal, `rich.print` does the
    same.

    Args:
        query: The query, with lone surrogates replaced.
        document: The document, with lone surrogates replaced.
        score: The inner product of both rows, which is the sum of all contributions. Milvus returns the same score.
        terms: The shared terms, sorted by falling contribution and then by token id.
        query_terms: The number of terms of the query, shared or not.
        document_terms: The number of terms of the document, shared or not.
    """

    query: str
    document: str
    score: float
    terms: tuple[Term, ...] = field(repr=False)
    query_terms: int
    document_terms: int

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as plain data for JSON. Each term also has the key `expansion` (`Term.expansion`)."""
        whole = asdict(self)
        whole["terms"] = [asdict(term) | {"expansion": term.expansion} for term in self.terms]
        return whole


def explain(query: EncodedText, document: EncodedText) -> Explanation:
    """Explain the inner product of two rows.

    Args:
        query: The query.
        document: The document. Its row has as many columns as the query's row.
    """
    shared = _shared(query, document)
    return _explained(
        query, document, shared, *(_locate(text, np.array(shared, np.int32)) for text in (query, document))
    )


def explain_stored(query: EncodedText, documents: Sequence[EncodedText]) -> list[Explanation]:
    """Explain the inner products of a query's row with stored rows, without running the model on the documents.

    If a term is one of the document's own tokens, its `document_place` is the first occurrence of this token. For any
    other term, `document_place` is None, because only the model could tell which token the term is an expansion of.

    Args:
        query: The query.
        documents: N documents with their stored rows.
    """
    every = query.row.indices
    located = _locate(query, every)
    place_of = dict(zip(every.tolist(), located.places, strict=True))
    explanations = []
    for document in documents:
        shared = _shared(query, document)
        of_query = replace(located, places=[place_of[term] for term in shared])
        of_document = _tokens(document, document.windows())
        first = [of_document.token_ids.get(term, [None])[0] for term in shared]
        places = [None if at is None else of_document.tokens[at] for at in first]
        explanations.append(_explained(query, document, shared, of_query, replace(of_document, places=places)))
    return explanations


def _shared(query: EncodedText, document: EncodedText) -> list[int]:
    """Return the token ids of the terms that both rows have, in ascending order."""
    return sorted(set(query.row.indices.tolist()) & set(document.row.indices.tolist()))


def _explained(
    query: EncodedText, document: EncodedText, shared: list[int], of_query: "_Located", of_document: "_Located"
) -> Explanation:
    query_weights, document_weights = (
        dict(zip(text.row.indices.tolist(), text.row.data.tolist(), strict=True)) for text in (query, document)
    )
    texts = [of_query, of_document]
    tokens = token_names(document.encoder.tokenizer, shared)
    readable = readable_tokens(document.encoder.tokenizer, tokens)
    terms = []
    for column, token_id in enumerate(shared):
        query_place = of_query.places[column]
        assert query_place is not None  # a place is None only in a stored document
        terms.append(
            Term(
                token_id=token_id,
                token=tokens[column],
                label=_label(readable[column], token_id, texts),
                query_weight=query_weights[token_id],
                document_weight=document_weights[token_id],
                contribution=query_weights[token_id] * document_weights[token_id],
                in_query=token_id in of_query.token_ids,
                in_document=token_id in of_document.token_ids,
                query_place=query_place,
                document_place=of_document.places[column],
            )
        )
    terms.sort(key=lambda term: -term.contribution)  # a stable sort, so ties stay in the order of token ids
    return Explanation(
        query=of_query.text,
        document=of_document.text,
        score=sum(term.contribution for term in terms),
        terms=tuple(terms),
        query_terms=len(query_weights),
        document_terms=len(document_weights),
    )


def readable_tokens(tokenizer: Any, tokens: list[str]) -> list[str]:
    """Return vocabulary entries in readable form. A piece that continues a word begins with "…".

    This function replaces the marks that tokenizers put into these entries. WordPiece uses ##, and SentencePiece uses
    ▁. Byte-level BPE uses Ġ, and other characters that stand for bytes.

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
        if "\ufffd" in shown:  # the token holds only some bytes of a character
            return token
    if not shown.strip():
        return repr(shown)[1:-1].replace(" ", "␣") or token
    return ("…" if continues and shown[0].isalnum() else "") + shown.strip()


def _start_mark(tokenizer: Any) -> str:
    """Return the mark that the vocabulary puts before the first piece of a word: "Ġ", "▁" or no mark ("")."""
    if (mark := _marks.get(tokenizer)) is None:
        vocabulary = tokenizer.get_vocab()
        counts = {mark: sum(token.startswith(mark) for token in vocabulary) for mark in ("Ġ", "▁")}
        mark = _marks[tokenizer] = max(("", "Ġ", "▁"), key=lambda mark: counts.get(mark, 100))
    return mark


@dataclass(frozen=True)
class _Located:
    """The part of an explanation for one text: its tokens, and the token that each term's weight comes from."""

    text: str
    token_ids: dict[int, list[int]]  # the positions of each token id in `tokens`
    tokens: list[Place]
    places: Sequence[Place | None]


def _locate(text: EncodedText, terms: NDArray[np.int32]) -> _Located:
    """Return the tokens of a text, and the token that each term's weight comes from."""
    windows = text.windows()
    located = _tokens(text, windows)
    positions, shares = np.zeros(len(terms), np.int64), np.zeros(len(terms), np.float32)
    source = _heaviest_windows(text.encoder, windows, terms)
    start = 0
    for number, window in enumerate(windows):
        here = source == number
        if here.any():
            found, shares[here] = text.encoder.rows.locate(window.ids, terms[here])
            positions[here] = start + found
        start += len(window.ids)
    places = [
        replace(located.tokens[at], share=float(share)) for at, share in zip(positions.tolist(), shares, strict=True)
    ]
    return replace(located, places=places)


def _tokens(text: EncodedText, windows: list[TokenOffsets]) -> _Located:
    """Return the tokens of all windows of a text. `places` is empty in the result."""
    tokens: list[Place] = []
    occurrences: dict[int, list[int]] = {}
    for window in windows:
        for place in _places(text.encoder.tokenizer, window, len(text.settings.prompt)):
            if place.start is not None or window.offsets is None:
                occurrences.setdefault(window.ids[place.token_index], []).append(len(tokens))
            tokens.append(replace(place, token_index=len(tokens)))
    return _Located(text=windows[0].text[len(text.settings.prompt) :], token_ids=occurrences, tokens=tokens, places=[])


def _heaviest_windows(encoder: RoleEncoder, windows: list[TokenOffsets], terms: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return, for each of K terms, the number of the window in which the term has its largest weight. (K,)."""
    if len(windows) == 1:
        return np.zeros(len(terms), np.int64)
    weights = encoder.rows.encode([window.ids for window in windows], lambda _: None)[:, terms].toarray()  # (W, K)
    heaviest: NDArray[np.int64] = weights.argmax(axis=0)
    return heaviest


def _places(tokenizer: Any, found: TokenOffsets, prompt: int) -> list[Place]:
    """Return a `Place` for each token of a window. `prompt` is the number of characters of the prompt."""
    readable = readable_tokens(tokenizer, token_names(tokenizer, found.ids))
    places = []
    for position, token in enumerate(readable):
        start, end = found.offsets[position] if found.offsets is not None else (0, 0)
        if end <= start or start < prompt:
            places.append(Place(position, token, None, None, token, None, None, 1.0))
            continue
        word_start, word_end = found.words[position] if found.words is not None else (start, end)
        while (
            word_start < word_end and found.text[word_start].isspace()
        ):  # with byte-level BPE, a word starts with a space
            word_start += 1
        word = found.text[word_start:word_end] or token
        places.append(
            Place(position, token, start - prompt, end - prompt, word, word_start - prompt, word_end - prompt, 1.0)
        )
    return places


def _label(readable: str, token_id: int, texts: list[_Located]) -> str:
    """Return `readable`, and add the word in parentheses if the term is only a piece of a word.

    The word is looked up in the document first, and then in the query.
    """
    for text in reversed(texts):
        for position in text.token_ids.get(token_id, [])[:1]:
            place = text.tokens[position]
            if place.word_start is not None and place.word_end is not None and place.start is not None:
                whole = (place.start, place.end) == (place.word_start, place.word_end)
                return readable if whole else f"{readable} ({place.word})"
    return readable
