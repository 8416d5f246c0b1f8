"""Say which words of a question SPLADE finds in a text, as whole words instead of pieces of the vocabulary."""

from splade_integrations import SpladeEncoder

__all__ = ["matching_words"]


def matching_words(question: str, page: str, encoder: SpladeEncoder, most: int = 4) -> list[str]:
    """Return the pairs of words that add most to a SPLADE score, best first.

    Args:
        question: The question.
        page: The text that was found.
        encoder: The SPLADE model.
        most: The largest number of pairs.
    Returns:
        A word that is in both texts, or "word of the question → word of the page". A pair that adds less than a tenth
        of the score is left out.

    Example:
        >>> matching_words("delete a folder", "Remove a directory tree.", SpladeEncoder(model_folder))
        ['delete → Remove']
    """
    shares: dict[tuple[str, str], float] = {}
    shown: dict[tuple[str, str], str] = {}
    explanation = encoder.explain(question, page)
    for term in explanation.terms:
        asked, written = term.query_place, term.document_place
        if written is None or asked.start is None or written.start is None:
            continue  # the weight comes from [CLS] or [SEP], which stand for no word
        pair = (asked.word.lower(), written.word.lower())
        if all(any(map(str.isalnum, word)) for word in pair):
            shares[pair] = shares.get(pair, 0.0) + term.contribution
            shown.setdefault(pair, written.word if pair[0] == pair[1] else f"{asked.word} → {written.word}")
    best = sorted((pair for pair in shares if shares[pair] >= explanation.score / 10), key=lambda pair: -shares[pair])
    return [shown[pair] for pair in best[:most]]
