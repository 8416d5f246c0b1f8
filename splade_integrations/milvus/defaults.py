"""Defaults for hybrid retrieval, and the limits of Milvus's fields. This module does not need pymilvus.

A side is one kind of vector in a collection: dense, sparse (SPLADE) or BM25. A hybrid search searches several sides.
Each side returns its best hits, the candidates. Fusion combines the candidates of all sides into one ranking.
"""

from splade_integrations.adapter import EMPTY_QUERY, document_terms, is_blank, query_terms

__all__ = [
    "CONTENT_COLUMN",
    "DOCUMENT_COLUMN",
    "MAX_TEXT_BYTES",
    "MOST_CANDIDATES",
    "READ_TIMEOUT",
    "ROWS_PER_WRITE",
    "WRITE_TIMEOUT",
    "candidates",
    "check_varchar",
    "cut_text",
    "document_terms",
    "has_terms",
    "is_blank",
    "query_terms",
]

MOST_CANDIDATES = 16_384  # the largest number of hits that a Milvus server returns for one search
MAX_TEXT_BYTES = 65_535  # the largest size of a VARCHAR, Milvus's type for texts, in bytes of UTF-8
# The largest number of rows in one write. Building and sending a much larger message would hold up the event loop, even
# from another thread, because only one of Python's threads runs at a time.
ROWS_PER_WRITE = 100
# Two columns that LlamaIndex's stores need for adding nodes to a collection. The first holds a node's JSON without its
# text. The second holds the id of the document from which the node's text comes. Collections that `splade index`
# creates have both columns. LlamaIndex's own stores call the second column "doc_id". This package uses a name
# that users do not give to their own fields, so that the column is not mistaken for a user's field.
CONTENT_COLUMN = "_node_content"
DOCUMENT_COLUMN = "_doc_id"
# Timeouts, in seconds. Without a timeout, pymilvus tries 75 times, with pauses of up to 3 s, before it reports that a
# server is down.
READ_TIMEOUT = 30.0
WRITE_TIMEOUT = 120.0


def candidates(k: int) -> int:
    """Return the number of hits to fetch from each side before fusion, for `k` results.

    With fewer than 100 hits from each side, the results are worse than with 100. On the Cranfield dataset, nDCG@10 is
    .4104 with 20 hits from each side, and .4224 with 100 or 1000 hits.

    Example:
        >>> candidates(4), candidates(50)
        (100, 500)
    """
    return max(k, min(max(100, 10 * k), MOST_CANDIDATES))


def has_terms(terms: dict[int, float]) -> bool:
    """Return whether a query's sparse vector, {token id: weight}, can find documents.

    An empty vector finds no documents. Neither does `EMPTY_QUERY`, the vector that stands for a query without terms.
    """
    return any(weight != 0 and term not in EMPTY_QUERY for term, weight in terms.items())


def check_varchar(text: str, name: str, advice: str = "Split it into chunks.", limit: int = MAX_TEXT_BYTES) -> None:
    """Raise if a Milvus VARCHAR cannot hold a text.

    Args:
        text: The text.
        name: The text's name in the message, such as `texts[3]`.
        advice: What the message tells the user to do if the text is too long.
        limit: The largest size that the field can hold, in bytes of UTF-8.
    Raises:
        ValueError: The text is too long, or not valid Unicode.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as err:
        raise ValueError(
            f"{name} must be valid Unicode, got a lone surrogate. Replace it: "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')."
        ) from err
    if size > limit:
        raise ValueError(
            f"{name} must be at most {limit} bytes of UTF-8 (the limit of its field in Milvus), got {size}. {advice}"
        )


def cut_text(text: str) -> str:
    """Return `text` in a form that a Milvus VARCHAR can hold: valid Unicode, cut after the last character that fits."""
    return text.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode(errors="ignore")
