"""Checks the texts that a caller passes. If an item is wrong, the error names the position of the first wrong item."""

from collections.abc import Iterable, Iterator, Mapping, Set

__all__ = ["check_text", "check_texts", "iterate_texts", "replace_surrogates"]

_NO_TEXTS = "texts must be a list (or another ordered iterable) of str, got {}. Pass a list of str."


def check_texts(texts: Iterable[str]) -> list[str]:
    """Return `texts` as a list of str.

    Raises:
        TypeError: `texts` is not an ordered iterable, is a single str, or has an item that is not a str. In the last
            case, the message names the position of the item.
    """
    if type(texts) is list and all(type(text) is str for text in texts):  # the usual case, checked fast
        return list(texts)
    return list(iterate_texts(texts))


def iterate_texts(texts: Iterable[str]) -> Iterator[str]:
    """Return an iterator that checks each item of `texts` when it is reached.

    The type of `texts` is checked by the call itself, before any item is reached.

    Raises:
        TypeError: As in `check_texts`.
    """
    if isinstance(texts, str | bytes):
        raise TypeError(
            f"texts must be a list (or another iterable) of str, got one {type(texts).__name__}. "
            "For one text, pass [text]."
        )
    try:
        items = iter(() if isinstance(texts, Mapping | Set) else texts)
    except TypeError as err:
        raise TypeError(_NO_TEXTS.format(type(texts).__name__)) from err
    if isinstance(texts, Mapping | Set):
        raise TypeError(_NO_TEXTS.format(type(texts).__name__))
    return (check_text(text, position) for position, text in enumerate(items))


def check_text(text: object, position: int) -> str:
    """Return `text` if it is a str.

    Raises:
        TypeError: `text` is not a str. The message names `position`, the position of `text` in the input.
    """
    if not isinstance(text, str):
        raise TypeError(f'texts[{position}] must be a str, got {type(text).__name__}. Drop it or replace it with "".')
    return text


def replace_surrogates(text: str) -> str:
    """Return `text` with each lone surrogate replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        # The utf-16 codec joins two surrogates that form a pair, and replaces lone surrogates.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
