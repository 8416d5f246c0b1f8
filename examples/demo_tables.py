"""Turn the rankings of the demo's searches into tables and sentences. This module does not search.

A side is a kind of search: dense, sparse (SPLADE) or hybrid.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from matching_words import matching_words
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from stdlib_corpus import Entry
from stdlib_questions import KINDS, QUESTIONS, Question
from stdlib_search import Side

from splade_integrations import SpladeEncoder

__all__ = ["DEPTH", "SIDES", "TOP", "Rankings", "closing", "hits", "side_by_side", "what_happened"]

SIDES: dict[Side, str] = {"dense": "dense", "sparse": "SPLADE", "hybrid": "hybrid"}
TOP = 5  # an answer counts as found if it is among the first five hits
DEPTH = 20  # number of hits of each side, so that a table can also show ranks after the fifth
Rankings = Mapping[Side, Sequence[str]]  # {side: the names of its hits, best first}


def side_by_side(
    question: str, rankings: Rankings, entries: Mapping[str, Entry], encoder: SpladeEncoder, expected: Sequence[str]
) -> Table:
    """Return a table of the best hits of all sides, with the rank that each side gives to each hit.

    Args:
        question: The question.
        rankings: The hits of each side.
        entries: {name: entry} of the corpus.
        encoder: The SPLADE model, which says which words match.
        expected: The names of the entries that answer the question. They are marked with "✓".
    """
    table = Table(title=Text(question, style="bold"), title_justify="left", title_style="", box=None, pad_edge=False)
    for heading in SIDES.values():
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(" ", no_wrap=True)
    table.add_column("hit, with the words that match (question → text)", overflow="fold")
    for name in _best(rankings, expected):
        ranks = (_rank(rankings[side], (name,)) for side in SIDES)
        cell = Text(name, style="bold").append(f"\n{_first_line(entries[name])}", style="not bold")
        if words := matching_words(question, entries[name].page, encoder):
            cell.append(f"\n{', '.join(words)}", style="not bold italic cyan")
        table.add_row(*(_shown(rank) for rank in ranks), "✓" if name in expected else "", cell)
    return table


def what_happened(rankings: Rankings, expected: Sequence[str]) -> str:
    """Say at which rank each side has the first expected answer.

    Example:
        >>> what_happened({"dense": ["a", "b"], "sparse": ["c"], "hybrid": ["b", "c"]}, expected=["b"])
        'The first expected answer (✓): dense 2nd, SPLADE not among the first 20, hybrid 1st.'
    """
    said = []
    for side, heading in SIDES.items():
        rank = _rank(rankings[side], expected)
        said.append(f"{heading} {_ordinal(rank) if rank else f'not among the first {DEPTH}'}")
    return f"The first expected answer (✓): {', '.join(said)}."


def hits(rankings: Mapping[str, Rankings]) -> Table:
    """Return a table of the thirty questions, with the rank of the first expected answer in each search.

    For each kind of question, the table also has the number of answers that are found.

    Args:
        rankings: {question: the hits of each side}.
    """
    title = f"Rank of the expected answer in the first {TOP} hits"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("question", overflow="fold")
    for heading in SIDES.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for kind, questions in KINDS.items():
        found = _found(questions, rankings)
        table.add_row(f"{kind}, found of {len(questions)}", *(str(found[side]) for side in SIDES), style="bold")
        for question in questions:
            ranks = (_rank(rankings[question.text][side][:TOP], question.expected) for side in SIDES)
            table.add_row(Padding(question.text, (0, 0, 0, 2)), *map(_shown, ranks))
        table.add_row()
    found = _found(QUESTIONS, rankings)
    table.add_row(f"all questions, found of {len(QUESTIONS)}", *(str(found[side]) for side in SIDES), style="bold")
    return table


def closing(rankings: Mapping[str, Rankings]) -> str:
    """Say what the thirty questions show, including the answers that hybrid search loses.

    Args:
        rankings: {question: the hits of each side}.
    """
    found = _found(QUESTIONS, rankings)
    ranks = {
        question.text: {side: _rank(rankings[question.text][side][:TOP], question.expected) for side in SIDES}
        for question in QUESTIONS
    }

    def asked(holds: Iterable[str], cases: str) -> str:
        names = list(holds)
        example = f", for instance “{names[0]}”" if names else ""
        return f"{cases} {len(names)} of the {len(QUESTIONS)} questions{example}."

    worst = TOP + 1  # counts as the rank of an answer that is not found
    better, lost, missed = [], [], []
    for text, of in ranks.items():
        dense, sparse, hybrid = (of[side] or worst for side in SIDES)
        if hybrid < min(dense, sparse):
            better.append(text)
        if hybrid > TOP and min(dense, sparse) <= TOP:
            lost.append(text)
        if min(dense, sparse, hybrid) > TOP:
            missed.append(text)
    return " ".join(
        [
            f"What was seen: hybrid search finds {found['hybrid']} of {len(QUESTIONS)} answers, dense search "
            f"{found['dense']}, and SPLADE search {found['sparse']}.",
            asked(better, "Hybrid search ranks the answer above both of its sides for"),
            asked(lost, "It loses the answer, which one of its sides finds, for"),
            asked(missed, "No search finds the answer to"),
            "Thirty questions are few, so a difference of one or two may be luck. And this SPLADE model, with 4.4 M "
            "parameters, is for trying things out: models of full size have 67 M or more.",
        ]
    )


def _best(rankings: Rankings, expected: Sequence[str]) -> list[str]:
    """Return the hits to show, in hybrid search's order.

    They are the first three hits of hybrid search, the first two hits of dense and of sparse search, and the first
    expected answer that each search finds.
    """
    answers = [name for names in rankings.values() for name in [name for name in names if name in expected][:1]]
    names = dict.fromkeys([*rankings["hybrid"][:3], *rankings["dense"][:2], *rankings["sparse"][:2], *answers])
    order = list(rankings["hybrid"])
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def _found(questions: Iterable[Question], rankings: Mapping[str, Rankings]) -> dict[Side, int]:
    return {
        side: sum(_rank(rankings[question.text][side][:TOP], question.expected) > 0 for question in questions)
        for side in SIDES
    }


def _rank(names: Sequence[str], expected: Sequence[str]) -> int:
    """Return the rank of the first expected name, counted from 1, or 0 if there is no expected name."""
    return next((rank for rank, name in enumerate(names, start=1) if name in expected), 0)


def _shown(rank: int) -> str:
    return str(rank) if rank else "–"


def _ordinal(rank: int) -> str:
    return f"{rank}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(rank if rank < 20 else rank % 10, 'th') }"


def _first_line(entry: Entry) -> str:
    line, _, rest = entry.text.partition("\n")
    continues = bool(rest) and not rest.startswith("\n")
    return textwrap.shorten(line, 100, placeholder=" …") + (" …" if continues and not line.endswith(".") else "")
