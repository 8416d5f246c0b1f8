"""The terms that a query and a document share, and their places in the texts, as plain data."""

from dataclasses import dataclass

__all__ = ["Place", "Term"]


@dataclass(frozen=True)
class Place:
    """The token that a term's weight comes from.

    Args:
        token_index: The position of the token among the token ids that the model read, prompt and special tokens
            included. In a long document, positions continue from one window to the next.
        token: The token in readable form.
        start: Where the token begins in the text, in characters. None if the token is not in the text (a special
            token, or part of the prompt) or if the tokenizer does not say.
        end: Where the token ends, or None.
        word: The word of the text that the token is a piece of, or the token itself.
        word_start: Where the word begins, or None.
        word_end: Where the word ends, or None.
        share: The share of the weight that comes from this token. Under max pooling it is 1, because all the weight
            comes from one token. Under sum pooling, several tokens share the weight, and this `Place` is the token
            with the largest share.
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
    """A vocabulary term that the query and the document share.

    Args:
        token_id: The token id of the term. It is also the term's column in the encoder's sparse rows.
        token: The term as it is in the vocabulary, such as "##ing".
        label: The term in readable form. If the term is a piece of a word in the text, the label also has the word:
            "…ing (turing)".
        query_weight: The weight of the term in the query.
        document_weight: The weight of the term in the document.
        contribution: The product of both weights, which the term adds to the score.
        in_query: Whether the term is one of the query's own tokens. If not, it is an expansion of the query.
        in_document: Whether the term is one of the document's own tokens. If not, it is an expansion of the document.
        query_place: The place in the query that the weight comes from.
        document_place: The place in the document that the weight comes from. None if the weight was read from a
            collection and the term is an expansion, because then only the model could tell the place.
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
    document_place: Place | None

    @property
    def expansion(self) -> bool:
        """Whether the query or the document lacks the term, so that only the model's expansion makes it match."""
        return not (self.in_query and self.in_document)
