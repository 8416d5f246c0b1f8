"""Make the notebooks' tables: wins and losses, the answers of each search, the ranks of expected answers, and terms.

The module also reads the notebooks' small corpus. It works with any framework, because it gets a `Search`: a function
of a question, a side ("dense", "sparse" or "hybrid") and k. The function returns the names of the best k entries.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
from matching_words import matching_words
from stdlib_corpus import Entry, read_corpus_once
from stdlib_questions import QUESTIONS, Question

from splade_integrations import SpladeEncoder

__all__ = ["MODULES", "answers", "questions_of", "ranks", "read_slice", "terms", "wins_and_losses"]

pd.set_option("display.max_colwidth", None)  # pandas would cut off long names and questions

Search = Callable[[str, str, int], list[str]]

# The modules that make up a small part of the demo's corpus. Indexing this part is quick. It is still hard enough that
# each of the three searches misses some expected answers.
MODULES = (
    *("base64", "contextlib", "copy", "difflib", "email.utils", "functools", "hmac", "shlex", "shutil", "tempfile"),
    *("asyncio", "collections", "graphlib", "logging.handlers", "textwrap", "urllib.parse", "zipfile"),
)
SIDES = ("dense", "sparse", "hybrid")
# Questions that show a win and a loss of each search.
SHOWN = (
    "a scratch folder that deletes itself when I am done",
    "decode Ascii85",
    "where is a program on the PATH",
    "start a new log file every night",
)


def read_slice() -> list[Entry]:
    """Return the corpus entries whose module is one of `MODULES`."""
    kept = Path(__file__).resolve().parent.parent / ".cache"
    kept.mkdir(exist_ok=True)
    return [entry for entry in read_corpus_once(kept) if entry.module in MODULES]


def questions_of(entries: Iterable[Entry]) -> list[Question]:
    """Return those of the demo's thirty questions whose expected answers are all among `entries`."""
    names = {entry.name for entry in entries}
    return [question for question in QUESTIONS if names.issuperset(question.expected)]


def wins_and_losses(search: Search, encoder: SpladeEncoder, entries: Iterable[Entry], depth: int = 5) -> pd.DataFrame:
    """Return a table of the questions in `SHOWN`, with the rank of the answer on each side, and the matching words."""
    pages = {entry.name: entry.page for entry in entries}
    rows = {}
    for question in (question for question in QUESTIONS if question.text in SHOWN):
        answer = question.expected[0]
        words = matching_words(question.text, pages[answer], encoder) if answer in pages else []
        found = [_first_rank(search(question.text, side, depth), question.expected) for side in SIDES]
        rows[question.text] = [answer, *found, ", ".join(words) or "none"]
    columns = ["expected answer", *SIDES, "words that SPLADE matches"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("question", axis=1)


def answers(question: str, search: Search, k: int = 3) -> pd.DataFrame:
    """Return a table of the best `k` answers of each side."""
    table = pd.DataFrame({side: search(question, side, k) for side in SIDES}, index=range(1, k + 1))
    return table.rename_axis("rank").rename_axis(question, axis=1)


def ranks(questions: Iterable[Question], search: Search, depth: int = 5) -> pd.DataFrame:
    """Return a table with the rank of each question's first expected answer, or "–" if none is found.

    The last row counts the questions for which an answer is found.
    """
    rows: dict[str, list[str]] = {}
    for question in questions:
        rows[question.text] = [_first_rank(search(question.text, side, depth), question.expected) for side in SIDES]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(SIDES))
    table.loc[f"found in the top {depth}, of {len(rows)}"] = [str((table[side] != "–").sum()) for side in SIDES]
    return table


def terms(question: str, page: str, encoder: SpladeEncoder, top_k: int = 6) -> pd.DataFrame:
    """Return a table of the terms that the question and the page share, largest product first.

    A term's product is its weight in the question times its weight in the page. The score is the sum of all products.
    A term that is a piece of a word begins with "…", and its word follows in parentheses.
    """
    explanation = encoder.explain(question, page)
    rows = [
        (term.label, term.query_weight, term.document_weight, term.contribution) for term in explanation.terms[:top_k]
    ]
    table = pd.DataFrame(rows, columns=["term", "in the question", "in the text", "product"]).set_index("term")
    table.loc["other terms", "product"] = explanation.score - table["product"].sum()
    table.loc["score", "product"] = explanation.score
    return table.round(2).fillna("")


def _first_rank(names: Iterable[str], expected: Iterable[str]) -> str:
    return next((str(rank) for rank, name in enumerate(names, start=1) if name in expected), "–")
