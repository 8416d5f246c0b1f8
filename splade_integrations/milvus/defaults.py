"""The numbers that make hybrid retrieval right, and what Milvus's fields can hold. Knows no pymilvus.

Fusion, candidates a side, time-outs, placeholders for empty sparse rows, texts that fit a VARCHAR.
"""

import unicodedata

__all__ = [
    "MAX_TEXT_BYTES",
    "MOST_CANDIDATES",
    "READ_TIMEOUT",
    "ROWS_PER_WRITE",
    "RRF_K",
    "WRITE_TIMEOUT",
    "candidates",
    "check_varchar",
    "cut_text",
    "document_terms",
    "has_terms",
    "is_blank",
    "query_terms",
]

RRF_K = 60
MOST_CANDIDATES = 16_384  # more a server refuses
# Bytes of UTF-8 that a text field holds: the most of a Milvus VARCHAR.
MAX_TEXT_BYTES = 65_535
# Rows of one write: its message is built and sent in so little time that an event loop beside it is not held up.
ROWS_PER_WRITE = 100
# Seconds. Without a limit pymilvus tries 75 times, up to 3 s apart, before it says that a server is down.
READ_TIMEOUT = 30.0
WRITE_TIMEOUT = 120.0

# Milvus takes ids up to 2^32 - 2, far above any vocabulary. Two, so that an empty query finds no empty document.
_EMPTY_DOCUMENT = {2**32 - 2: 1e-6}
_EMPTY_QUERY = {2**32 - 3: 1e-6}


def candidates(k: int) -> int:
    """Return how many hits to fetch from each side before fusion, for `k` results.

    Fewer than 100 costs quality: on Cranfield nDCG@10 is .4104 with 20 a side, .4224 with 100 and with 1000.

    Example:
        >>> candidates(4), candidates(50)
        (100, 500)
    """
    return max(k, min(max(100, 10 * k), MOST_CANDIDATES))


def is_blank(text: str) -> bool:
    r"""Return whether a text holds nothing but white space and control characters, so that no query should find it.

    A model gives such a text weights all the same, from its special tokens: they would match many queries.

    Example:
        >>> is_blank(""), is_blank(" \t\u200b"), is_blank("?")
        (True, True, False)
    """
    return all(char.isspace() or unicodedata.category(char) in ("Cc", "Cf") for char in text)


def document_terms(terms: dict[int, float], text: str) -> dict[int, float]:
    """Return a document's sparse row, or a placeholder that Milvus stores and no query finds.

    milvus-lite 3 refuses a whole insert batch that holds an empty vector.

    Args:
        terms: {token id: weight}.
        text: What was embedded. A blank one gets the placeholder whatever its terms.
    """
    return dict(_EMPTY_DOCUMENT) if is_blank(text) or not any(terms.values()) else terms


def query_terms(terms: dict[int, float], text: str) -> dict[int, float]:
    """Return a query's sparse row, or a placeholder that finds nothing. Arguments as `document_terms`."""
    return dict(_EMPTY_QUERY) if is_blank(text) or not any(terms.values()) else terms


def has_terms(terms: dict[int, float]) -> bool:
    """Return whether a query's sparse row can find anything: it is neither empty nor the placeholder."""
    return any(weight != 0 and term not in _EMPTY_QUERY for term, weight in terms.items())


def check_varchar(text: str, name: str, advice: str = "Split it into chunks.", limit: int = MAX_TEXT_BYTES) -> None:
    """Raise if a Milvus VARCHAR cannot hold a text.

    Args:
        text: The text.
        name: What the message calls it, such as `texts[3]`.
        advice: What to do with one that is too long.
        limit: The most bytes of UTF-8.
    Raises:
        ValueError: It is too long, or not valid Unicode.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as err:
        raise ValueError(
            f"{name} must be valid Unicode for Milvus to store it, got a lone surrogate. Replace it: "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')."
        ) from err
    if size > limit:
        raise ValueError(
            f"{name} must be at most {limit} bytes of UTF-8, what a Milvus VARCHAR holds, got {size}. {advice}"
        )


def cut_text(text: str) -> str:
    """Return `text` as a Milvus VARCHAR holds it: valid UTF-8, cut after the last whole character that fits."""
    return text.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode(errors="ignore")
