"""The terms that a query and a document share, and where in the texts they come from. Plain data."""

from dataclasses import dataclass

__all__ = ["Place", "Term"]


@dataclass(frozen=True)
class Place:
    """The token that a term's weight comes from.

    Args:
        token_index: Its position among the token ids that the model read, prompt and special tokens included. The
            windows of a long document are counted one after the other.
        token: The token as a person reads it.
        start: Where it begins in the text, in characters; None if it is not in the text (a special token, the
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
        in_query: Whether it is among the query's own tokens; if not, it is an expansion of the query.
        in_document: Whether it is among the document's own tokens; if not, it is an expansion of the document.
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
