"""Search the docstrings of Python's own standard library with dense vectors, with SPLADE, and with both.

    make demo                                 a few questions, then 30 fixed ones with expected answers
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

from dense import MiniLM
from rich.console import Console
from rich.table import Table
from rich.text import Text
from stdlib_corpus import Entry, read_corpus_once
from stdlib_questions import QUESTIONS
from stdlib_search import Models, Search, Side, langchain_search, llama_index_search
from transformers.utils import logging as transformers_logging

from splade_integrations import SpladeEncoder
from splade_integrations.models.offline import splade_model_path

SHOWN = (
    "a temporary folder that deletes itself",
    "RFC 2822 date header",
    "split a shell command line into words",
)
SIDES: dict[Side, str] = {"dense": "dense", "sparse": "SPLADE", "hybrid": "hybrid"}
TOP = 5

console = Console(highlight=False)


def main(questions: Sequence[str]) -> None:
    started = time.perf_counter()
    logging.getLogger("splade_integrations").setLevel(logging.ERROR)  # hides the warnings that long docstrings are cut
    transformers_logging.disable_progress_bar()  # a local model loads so quickly that no bar is needed
    entries = read_corpus_once(_cache_folder())
    console.print(
        f"{len(entries)} functions, methods and classes of Python {sys.version.split()[0]}'s standard library"
    )
    models = Models(SpladeEncoder(splade_model_path(), max_length=256), MiniLM(), entries)
    uri, token = os.environ.get("MILVUS_URI") or _database_file(), os.environ.get("MILVUS_TOKEN", "")
    searches = {
        "LangChain": langchain_search(entries, models, uri, token),
        "LlamaIndex": llama_index_search(entries, models, uri, token),
    }
    console.print(f"Two collections of {len(entries)} rows in {uri}, ready after {time.perf_counter() - started:.0f} s")
    pages = {entry.name: entry for entry in entries}
    models.encode_queries_together([*(questions or SHOWN), *(() if questions else (q.text for q in QUESTIONS))])
    for question in questions or SHOWN:
        for framework, search in searches.items():
            console.print(_side_by_side(framework, question, search, models, pages), "")
    if not questions:
        console.print(_hits("LangChain", searches["LangChain"]))
    gc.freeze()  # exits faster: garbage collection then skips the rows of milvus-lite


def _side_by_side(framework: str, question: str, search: Search, models: Models, entries: Mapping[str, Entry]) -> Table:
    """Return a table of the best answers of each search.

    Under each answer of SPLADE and of hybrid search are the terms that it shares with the question.
    """
    title = Text.assemble((question, "bold"), f"  ({framework})")
    table = Table(title=title, title_justify="left", title_style="", expand=True)
    for heading in SIDES.values():
        table.add_column(heading, ratio=1, overflow="fold")
    columns = []
    for side in SIDES:
        names = search(question, side, TOP)
        cells = [Text(_broken_at_dot(name)) for name in names]
        if side != "dense":
            shared = _shared_terms(question, [entries[name].page for name in names], models)
            for cell, terms in zip(cells, shared, strict=True):
                cell.append("\n" + " ".join(terms), style="dim")
        columns.append(cells)
    for answers in zip(*columns, strict=True):
        table.add_row(*answers)
    return table


def _broken_at_dot(name: str) -> str:
    """Break a dotted name into two lines if it is too long for its column."""
    column = console.width // len(SIDES) - 4  # 4 for a cell's borders and padding
    head, _, tail = name.rpartition(".")
    return f"{head}\n.{tail}" if len(name) > column and head else name


def _shared_terms(question: str, pages: Sequence[str], models: Models, most: int = 4) -> list[list[str]]:
    """Return, for each page, the tokens that add most to its sparse score.

    A token adds its weight in the question times its weight in the page.
    """
    contributions = models.encode_pages(pages).multiply(models.encode_queries([question]))
    return [[token for token, _ in terms] for terms in models.encoder.decode(contributions, top_k=most)]


def _hits(framework: str, search: Search) -> Table:
    """Return a table of the fixed questions: the rank of the first expected answer in the top five of each search."""
    table = Table(title=f"30 fixed questions: rank of the first expected answer in the top {TOP}", title_justify="left")
    table.add_column("question", overflow="fold")
    for heading in SIDES.values():
        table.add_column(heading, justify="right")
    found = dict.fromkeys(SIDES, 0)
    for question in QUESTIONS:
        row = []
        for side in SIDES:
            names = search(question.text, side, TOP)
            ranks = [rank for rank, name in enumerate(names, start=1) if name in question.expected]
            found[side] += bool(ranks)
            row.append(str(ranks[0]) if ranks else "–")
        table.add_row(question.text, *row)
    table.add_section()
    table.add_row(f"hit@{TOP} of {len(QUESTIONS)}", *(str(hits) for hits in found.values()), style="bold")
    table.caption = f"Asked through {framework}."
    return table


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
