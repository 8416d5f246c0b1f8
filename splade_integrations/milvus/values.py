"""Check metadata and vectors, and return them in the form that pymilvus accepts. This module does not need pymilvus.

Metadata must be read back exactly as it was given. Metadata that Milvus would change is refused, and the message names
the document and the key.
"""

import math
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

__all__ = ["INT64", "UncheckedText", "check_dense", "check_metadata", "sparse_row"]

INT64 = range(-(2**63), 2**63)
_LARGEST_TERM = 2**32 - 2  # Milvus's largest token id
_LARGEST_WEIGHT = float(np.finfo(np.float32).max)


class UncheckedText(str):
    """A text that pymilvus sends without checking each of its characters. This package has already checked the text.

    pymilvus treats the text for a VARCHAR field as a list of strings, and checks the type and length of each character.
    For texts of a thousand characters, these checks take up to a tenth of the time for adding documents. To avoid these
    checks, iterating over an `UncheckedText` yields a single item, the whole text.
    """

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        return iter((str(self),))


def check_metadata(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a copy of the metadata in plain JSON types, or raise if JSON cannot hold a value.

    NumPy numbers become Python numbers. A tuple or a datetime is refused, because it would be read back as another
    type.

    Args:
        metadata: The metadata.
        name: The metadata's name in the message, such as `metadatas[3]`.
    Raises:
        TypeError, ValueError: JSON cannot hold a value. The message names the keys that lead to the value.

    Example:
        >>> check_metadata({"year": 1936, "tags": ["logic"]}, "metadatas[0]")
        {'year': 1936, 'tags': ['logic']}
        >>> check_metadata({"path": {1, 2}}, "metadatas[0]")
        Traceback (most recent call last):
        TypeError: metadatas[0]['path'] must be a value that JSON can hold (…), got set {1, 2}. …
    """
    if isinstance(metadata, _Checked):
        return metadata
    if not isinstance(metadata, Mapping):
        raise TypeError(f"{name} must be a dict, got {type(metadata).__name__}. Give {{}} if there is no metadata.")
    try:
        return _Checked(_plain(metadata, (name,)))
    except RecursionError as err:
        raise ValueError(
            f"{name} must have values that are nested at most a few hundred levels deep, got deeper ones. Store them "
            "as a text."
        ) from err


class _Checked(dict[str, Any]):
    """Metadata that has been checked.

    A store checks the metadata of all documents before it writes the first document. This class marks checked metadata,
    so that it is not checked again when it is written.
    """


def sparse_row(terms: Mapping[int, float], position: int) -> csr_array:
    """Return a document's terms as a sparse array of one row, or raise if Milvus cannot hold a term.

    The array has the shape (1, largest token id + 1). pymilvus encodes such an array in four fifths of the time that it
    needs for a dict.

    Args:
        terms: {token id: weight}.
        position: The text's position in the call, for messages.
    Raises:
        TypeError: `terms` is not a dict.
        ValueError: Milvus cannot hold a term. The message names the term.

    Example:
        >>> sparse_row({9: 0.5, 2: 1.0}, 0).toarray().shape
        (1, 10)
    """
    if not isinstance(terms, Mapping):
        raise TypeError(
            f"the sparse vector of texts[{position}] must be a dict {{token id: weight}}, got {type(terms).__name__}. "
            "Change the sparse embedding's embed_documents so that it returns dicts. splade_integrations.to_dicts "
            "converts scipy rows to dicts."
        )
    try:
        ids, weights = np.array([*terms]), np.array([*terms.values()])
    except ValueError:  # NumPy cannot make one array of numbers and lists
        raise _wrong_term(terms, position) from None
    if not terms:
        ids = np.empty(0, np.int64)
    elif not _milvus_holds(ids, weights):
        raise _wrong_term(terms, position)
    row = (weights.astype(np.float32), ids.astype(np.int64), [0, len(terms)])
    return csr_array(row, (1, int(ids.max(initial=0)) + 1))


def check_dense(vector: Any, whose: str) -> Any:
    """Return a dense vector, or raise if one of its numbers is NaN or infinite. milvus-lite would store such numbers.

    Args:
        vector: The vector, of shape (D,). A value that is not a vector of floats is returned unchanged, because
            pymilvus checks it.
        whose: The owner of the vector, for the message, such as `texts[3]`.
    Raises:
        ValueError: A number is NaN or infinite.

    Example:
        >>> check_dense([0.5, float("nan")], "texts[3]")
        Traceback (most recent call last):
        ValueError: the dense vector of texts[3] must have finite numbers, got nan at position 1. Correct what the dense
        embedding returns.
    """
    try:
        numbers = np.asarray(vector)
    except ValueError:
        return vector
    if numbers.dtype.kind == "f" and not (finite := np.isfinite(numbers).reshape(-1)).all():
        place = int(finite.argmin())
        raise ValueError(
            f"the dense vector of {whose} must have finite numbers, got {numbers.reshape(-1)[place]} at position "
            f"{place}. Correct what the dense embedding returns."
        )
    return vector


def _milvus_holds(ids: NDArray[Any], weights: NDArray[Any]) -> bool:
    """Return whether a sparse vector in Milvus can hold these token ids and weights, both of shape (n,)."""
    if ids.ndim > 1 or weights.ndim > 1 or ids.dtype.kind not in "biu" or weights.dtype.kind not in "biuf":
        return False
    finite = (np.abs(weights.astype(np.float64)) <= _LARGEST_WEIGHT).all()
    return bool(ids.min() >= 0 and ids.max() <= _LARGEST_TERM and finite)


def _wrong_term(terms: Mapping[Any, Any], position: int) -> ValueError:
    """Return an error that names the first term that Milvus cannot hold."""

    def fits(value: object, number: type, least: float, largest: float) -> bool:
        return isinstance(value, number) and bool(least <= value <= largest)  # type: ignore[operator]

    wrong = [
        (term, weight)
        for term, weight in terms.items()
        if not (fits(term, Integral, 0, _LARGEST_TERM) and fits(weight, Real, -_LARGEST_WEIGHT, _LARGEST_WEIGHT))
    ]
    return ValueError(
        f"the sparse vector of texts[{position}] must have integers from 0 to {_LARGEST_TERM} as token ids, and finite "
        f"float32 numbers as weights, got {wrong[0] if wrong else terms!r:.80}. Correct what the sparse "
        "embedding's embed_documents returns."
    )


def _plain(value: Any, path: tuple[Any, ...]) -> Any:
    """Return a copy of a value in plain JSON types, or raise if JSON cannot hold it. NumPy numbers are converted."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item(), path)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as err:
            raise ValueError(
                f"{_place(path)} must be valid Unicode, got a lone surrogate. Replace it: "
                "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')."
            ) from err
        return str.__str__(value)
    if isinstance(value, int):
        if value not in INT64:
            raise ValueError(f"{_place(path)} must fit into 64 bits, got {value}. Make it a str.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{_place(path)} must be a finite number, got {value}. Drop it, or use None.")
        return float(value)
    if isinstance(value, list):
        return [_plain(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(
                    f"the keys of {_place(path)} must be str, got {type(key).__name__} {key!r}. Make each key a str."
                )
            _plain(key, (*path, key))
        return {str.__str__(key): _plain(item, (*path, key)) for key, item in value.items()}
    raise TypeError(
        f"{_place(path)} must be a value that JSON can hold (str, int, float, bool, None, list, dict), got "
        f"{type(value).__name__} {value!r:.80}. Convert it to a str or a list."
    )


def _place(path: tuple[Any, ...]) -> str:
    name, *keys = path
    return f"{name}" + "".join(f"[{key!r}]" for key in keys)
