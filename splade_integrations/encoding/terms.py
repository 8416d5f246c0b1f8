"""Plain data about the terms that a query and a document share, and about the tokens that their weights come from."""

from dataclasses import dataclass

__all__ = ["Place", "Term"]


@dataclass(frozen=True)
class Place:
    """The token that a term's weight comes from, and its position in the text.

    Args:
        token_index: The position of the token among all token ids that the model reads, the prompt and special tokens
            included. If a long document is cut into windows, positions continue from one window to the next.
        token: The token in readable form.
        start: Where the token begins in the text, in characters. None if the token is not in the text (a special
            token, or part of the prompt) or if the tokenizer does not return positions.
        end: Where the token ends in the text, or None.
        word: The word of the text that the token is a piece of. For a token that is not in the text, the token itself.
        word_start: Where the word begins in the text, or None.
        word_end: Where the word ends in the text, or None.
        share: The share of the term's weight that comes from this token. With max pooling, the share is 1, because the
            whole weight comes from one token. With sum pooling, several tokens add to the weight, and this `Place` is
            the token that adds most.
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
        contribution: What the term adds to the score: the product of both weights.
        in_query: Whether the term is one of the query's own tokens. If not, it is an expansion of the query.
        in_document: Whether the term is one of the document's own tokens. If not, it is an expansion of the document.
        query_place: The token of the query that the query weight comes from.
        document_place: The token of the document that the document weight comes from. None if the term is an expansion
            and its weight was read from a collection, because then only the model could find the token.
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
        """Whether the term is an expansion of the query, of the document, or of both."""
        return not (self.in_query and self.in_document)
