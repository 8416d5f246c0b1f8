"""Search the docstrings of Python's own standard library with dense vectors, with SPLADE, and with both.

    make demo                                 three questions with three searches each, then all 30 with their answers
    make demo Q="wait for several threads"    your own question

The first run indexes the docstrings twice, through LangChain and through LlamaIndex. The two collections are in a
milvus-lite file under .cache/, or on the server at MILVUS_URI (with MILVUS_TOKEN). Later runs reuse these collections.
"""

import gc
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from demo_tables import DEPTH, SIDES, TOP, Rankings, closing, hits, side_by_side, what_happened
from dense import MiniLM
from rich.console import Console
from stdlib_corpus import Entry, read_corpus_once
from stdlib_questions import QUESTIONS
from stdlib_search import Models, Search, langchain_search, llama_index_search
from transformers.utils import logging as transformers_logging

from splade_integrations import SpladeEncoder
from splade_integrations.models.offline import splade_model_path

# Three of the thirty questions. A sentence below each table says at which rank each search has the expected answer.
SHOWN = (
    "run a program and capture what it prints",
    "turn a relative link into an absolute URL",
    "a scratch folder that deletes itself when I am done",
)

console = Console(highlight=False)


def main(own_questions: Sequence[str]) -> None:
    logging.getLogger("splade_integrations").setLevel(logging.ERROR)  # hides warnings about docstrings that are cut
    transformers_logging.disable_progress_bar()  # a local model loads so quickly that no bar is needed
    entries = _read()
    models = _load(entries)
    searches = _open(entries, models)
    shown = [*own_questions] or [*SHOWN]
    models.encode_queries_together([*shown, *(() if own_questions else (question.text for question in QUESTIONS))])
    rankings = {question: _ask(question, searches["LangChain"], DEPTH) for question in shown}
    _say(_compared(rankings, searches["LlamaIndex"]))
    _say(f"Numbers are ranks. “–” means that a search does not have the hit among its first {DEPTH}.", "")
    expected = {question.text: question.expected for question in QUESTIONS}
    pages = {entry.name: entry for entry in entries}
    for question in shown:
        console.print(side_by_side(question, rankings[question], pages, models.encoder, expected.get(question, ())))
        console.print()
        if question in expected:
            _say(what_happened(rankings[question], expected[question]), "")
    if not own_questions:
        rankings = {question.text: _ask(question.text, searches["LangChain"], TOP) for question in QUESTIONS}
        console.print(hits(rankings))
        console.print()
        _say(closing(rankings), "")
        _say("Next: ask your own question, or index your own texts:")
        _say('  make demo Q="…"', "  .venv/bin/splade index --help")  # a command on a line of its own is not wrapped
    gc.freeze()  # exits faster: garbage collection then skips the rows of milvus-lite


def _read() -> list[Entry]:
    started = time.perf_counter()
    entries = read_corpus_once(_cache_folder())
    version = ".".join(map(str, sys.version_info[:3]))
    _say(f"{len(entries)} docstrings of Python {version}'s standard library, read in {_since(started)}.")
    return entries


def _load(entries: Sequence[Entry]) -> Models:
    started = time.perf_counter()
    models = Models(SpladeEncoder(splade_model_path(), max_length=256), MiniLM(bfloat16_on_amx=True), entries)
    _say(f"A SPLADE model (4.4 M parameters) and a dense model (all-MiniLM-L6-v2), loaded in {_since(started)}.")
    return models


def _open(entries: Sequence[Entry], models: Models) -> dict[str, Search]:
    """Open both collections, fill those that lack entries, and say how long each part took."""
    uri, token = os.environ.get("MILVUS_URI") or _database_file(), os.environ.get("MILVUS_TOKEN", "")
    searches, took, encoded = {}, [], 0.0
    for framework, open_search in {"LangChain": langchain_search, "LlamaIndex": llama_index_search}.items():
        started = time.perf_counter()
        searches[framework] = open_search(entries, models, uri, token)
        now = models.dense_rows.seconds + models.sparse_rows.seconds
        took.append(f"{framework} {time.perf_counter() - started - (now - encoded):.0f} s")
        encoded = now
    if encoded:
        _say(
            f"Encoded by SPLADE in {models.sparse_rows.seconds:.0f} s and by the dense model in "
            f"{models.dense_rows.seconds:.0f} s. Later runs reuse the rows."
        )
    _say(f"Two collections in {_relative(uri)}, {'stored' if encoded else 'opened'}: {', '.join(took)}.")
    return searches


def _ask(question: str, search: Search, k: int) -> Rankings:
    return {side: search(question, side, k) for side in SIDES}


def _compared(rankings: Mapping[str, Rankings], other: Search) -> str:
    """Ask the same questions through the other framework, and say whether the first hits are the same."""
    different = [
        f"“{question}” ({SIDES[side]})"
        for question, of_sides in rankings.items()
        for side, names in of_sides.items()
        if other(question, side, DEPTH)[:TOP] != list(names[:TOP])
    ]
    if different:
        return f"LangChain and LlamaIndex give different hits for {', '.join(different)}. Below are LangChain's."
    return (
        f"Asked through LangChain and through LlamaIndex: both give the same first {TOP} hits in the same order, for "
        "dense, SPLADE and hybrid search. So each table stands for both."
    )


def _say(*sentences: str) -> None:
    """Print paragraphs. In a wide terminal, lines have at most 100 characters, so that they are easy to read."""
    for sentence in sentences:
        console.print(sentence, width=min(console.width, 100))


def _since(started: float) -> str:
    return f"{time.perf_counter() - started:.1f} s"


def _relative(uri: str) -> str:
    return uri.removeprefix(f"{Path.cwd()}/")


def _database_file() -> str:
    """Return the path of a milvus-lite file.

    Each version of Python has its own file, because the docstrings differ between versions.
    """
    return str(_cache_folder() / f"demo-python{sys.version_info.major}.{sys.version_info.minor}.db")


def _cache_folder() -> Path:
    folder = Path(__file__).resolve().parent.parent / ".cache"
    folder.mkdir(exist_ok=True)
    return folder


if __name__ == "__main__":
    main(sys.argv[1:])
