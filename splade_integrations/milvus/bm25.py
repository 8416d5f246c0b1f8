"""Split text into words for BM25. This module does not need pymilvus.

Milvus's BM25 function splits a text into words with an analyzer. On a server, the analyzer drops stop words and stems
the other words. milvus-lite 3 ignores the analyzer's stemmer without a warning. So on milvus-lite 3, this module splits
each text, drops stop words, and stems the other words. An additional field of the collection holds the resulting words.
Queries are processed in the same way.
"""

import re
import threading
import unicodedata
from collections.abc import Mapping
from functools import cache
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.milvus.filters import Engine

__all__ = ["ENGLISH", "analyzer_of", "analyzer_params", "language_of", "split_words", "stores_words"]

ENGLISH = "english"

# The languages that Milvus's analyzer can stem. For the languages in `_STOPPED`, Milvus also has stop words.
_STEMMED = (
    "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian", "italian", "norwegian",
    "portuguese", "romanian", "russian", "spanish", "swedish", "tamil", "turkish",
)  # fmt: skip
_STOPPED = set(_STEMMED) - {"greek", "romanian", "tamil", "turkish"}

_local = threading.local()  # a stemmer must not be used by two threads at once


def split_words(text: str, language: str = ENGLISH) -> list[str]:
    """Split a text into words in lower case, drop the stop words, and stem the other words with Snowball.

    Args:
        text: The text.
        language: The language, such as "english". If bm25s has no stop words for the language, all words are kept.
    Raises:
        OptionalDependencyError: bm25s or PyStemmer is not installed.
        ValueError: The language is unknown.
    Source:
        The default word pattern and the stop words of bm25s, and the stemmers of https://snowballstem.org.

    Example:
        >>> split_words("The cats are running!"), split_words("Die Katzen laufen", "german")
        (['cat', 'run'], ['katz', 'lauf'])
    """
    stemmers = _local.__dict__
    if language not in stemmers:
        stemmers[language] = _stemmer(language)
    stop_words = _stop_words(language)
    text = unicodedata.normalize("NFC", text)
    if language == "turkish":  # in Turkish, the lower case of İ is i, and that of I is ı
        text = text.replace("İ", "i").replace("I", "ı")
    words = [word for word in _word().findall(text.lower()) if word not in stop_words]
    stems: list[str] = stemmers[language].stemWords(words)
    return stems


def analyzer_of(bm25: bool | str | Mapping[str, Any]) -> str | Mapping[str, Any] | None:
    """Return the analyzer that a store's option `bm25` names, or None if the option is a bool.

    Raises:
        TypeError, ValueError: The option is not a bool, a known language or a dict.
    """
    if isinstance(bm25, bool):
        return None
    if isinstance(bm25, str):
        _check_language(bm25)
    elif not isinstance(bm25, Mapping) or not bm25:
        raise TypeError(
            f"bm25 must be a bool, a language or a dict with Milvus's analyzer parameters, got {bm25!r}. Use True for "
            "English."
        )
    return bm25


def _check_language(language: str) -> None:
    """Raise a ValueError if there is no stemmer for a language."""
    known = _stemmers().algorithms()
    if language not in known:
        raise ValueError(
            f"bm25 must be True, one of the languages {', '.join(known)}, or a dict with Milvus's analyzer parameters, "
            f"got {language!r}. Use True for English."
        )


def stores_words(analyzer: str | Mapping[str, Any], engine: Engine) -> bool:
    """Return whether a new collection needs an additional field for the words of each text."""
    return isinstance(analyzer, str) and engine is Engine.LITE3


def analyzer_params(analyzer: str | Mapping[str, Any], engine: Engine) -> dict[str, Any]:
    """Return the parameters of Milvus's analyzer for a new collection.

    Args:
        analyzer: A language, or the parameters themselves.
        engine: The engine that will hold the collection.
    Raises:
        ValueError: The language is unknown, or milvus-lite 3 would ignore a part of the parameters.

    Example:
        >>> analyzer_params("english", Engine.SERVER)
        {'type': 'english'}
        >>> analyzer_params("german", Engine.SERVER)["filter"][2]
        {'type': 'stemmer', 'language': 'german'}
    """
    if isinstance(analyzer, Mapping):
        if engine is Engine.LITE3 and (analyzer.keys() - {"tokenizer"} or analyzer.get("tokenizer") != "standard"):
            raise ValueError(
                f"bm25 must be True or a language on milvus-lite 3, got {dict(analyzer)!r}. milvus-lite 3 ignores most "
                "parameters of an analyzer. Use bm25=True, or a Milvus server."
            )
        return dict(analyzer)
    if engine is Engine.SERVER and analyzer == ENGLISH:
        return {"type": "english"}
    if engine is not Engine.LITE3 and analyzer not in _STEMMED:
        raise ValueError(
            f"bm25 must be one of the languages that Milvus stems ({', '.join(_STEMMED)}), got {analyzer!r}. For "
            "another language, give the parameters of an analyzer, such as {'tokenizer': 'icu'}."
        )
    stemmer = {"type": "stemmer", "language": analyzer}
    if engine is Engine.LITE3:  # milvus-lite 3 ignores the stemmer, but `language_of` reads its language
        return {"tokenizer": "standard", "filter": [stemmer]}
    stop_words = [{"type": "stop", "stop_words": [f"_{analyzer}_"]}] if analyzer in _STOPPED else []
    return {"tokenizer": "standard", "filter": ["lowercase", *stop_words, stemmer]}


def language_of(params: Mapping[str, Any]) -> str | None:
    """Return the language whose words an analyzer stems, or None if the analyzer does not stem.

    Args:
        params: The parameters of the analyzer.

    Example:
        >>> language_of({"type": "english"}), language_of({"tokenizer": "standard"})
        ('english', None)
    """
    if params.get("type") == ENGLISH:
        return ENGLISH
    stemmers = [one for one in params.get("filter", []) if isinstance(one, Mapping) and one.get("type") == "stemmer"]
    return str(stemmers[0]["language"]) if stemmers else None


@cache
def _word() -> re.Pattern[str]:
    """Return the pattern of a word: two or more letters, digits, underscores, combining accents or vowel signs."""
    marks = "".join(chr(code) for code in range(0x300, 0x1F000) if unicodedata.category(chr(code)).startswith("M"))
    return re.compile(rf"[\w{re.escape(marks)}]{{2,}}")


def _stemmer(language: str) -> Any:
    _check_language(language)
    return _stemmers().Stemmer(language)


def _stemmers() -> Any:
    with require_extra("milvus", module="BM25"):
        import Stemmer
    return Stemmer


@cache
def _stop_words(language: str) -> frozenset[str]:
    with require_extra("milvus", module="BM25"):
        from bm25s import stopwords
    name = "EN" if language == ENGLISH else language.upper()
    return frozenset(getattr(stopwords, f"STOPWORDS_{name}", ()))
