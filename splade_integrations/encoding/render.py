"""Shows why a document matches a query: in a notebook (HTML), in a terminal (rich) or as a picture (matplotlib).

For each term that the query and the document share, a bar shows what the term adds to the score. A term that is in the
document has a solid bar. An expansion, which is a term that only the model adds, has a hatched bar. So readers can tell
the two kinds of terms apart even in black and white.
"""

from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from splade_integrations.dependencies import require_extra
from splade_integrations.encoding.terms import Term

__all__ = ["Rendered", "highlights", "plot", "to_html", "to_rich"]

_SHOWN = 15
# If a text is long, a terminal shows only this many characters before and after the word that adds most to the score.
_CONTEXT = 300
_LEGEND = {True: "in the document", False: "expansion of the document"}


class Rendered:
    """An explanation that can be shown in a notebook, in a terminal through `rich.print`, and as a picture.

    Attributes:
        query: The query.
        document: The document.
        score: The sum of the contributions of all shared terms.
        terms: The terms that the query and the document share, sorted by falling contribution.
        query_terms: The number of terms of the query, shared or not.
        document_terms: The number of terms of the document, shared or not.
    """

    query: str
    document: str
    score: float
    terms: tuple[Term, ...]
    query_terms: int
    document_terms: int

    def _repr_html_(self) -> str:
        return to_html(self)

    def __rich_console__(self, console: Any, options: Any) -> Iterable[Any]:
        return to_rich(self, options.max_width)

    def plot(self, ax: Any = None, *, top_k: int = 15) -> Any:
        """Draw a bar for each term with matplotlib.

        Args:
            ax: Axes to draw into. None makes a figure.
            top_k: The largest number of terms to draw. The remaining terms share one more bar.
        Returns:
            The axes.
        Raises:
            OptionalDependencyError: matplotlib is not installed.
        """
        return plot(self, ax, top_k=top_k)


def highlights(explanation: Rendered, *, query: bool = False) -> list[tuple[int, int, float, bool]]:
    """Return the words in a text that contribute to the score.

    Args:
        explanation: The explanation.
        query: Whether to return the words of the query instead of those of the document.
    Returns:
        (start, end, contribution, own) of each word, sorted by start and without overlaps. Several terms can come from
        one word. `own` is False if all of them are expansions, and True if the text itself has at least one of them.
    """
    words: dict[tuple[int, int], tuple[float, bool]] = {}
    for term in explanation.terms:
        place = term.query_place if query else term.document_place
        if place is None or place.word_start is None or place.word_end is None:
            continue
        added, own = words.get((place.word_start, place.word_end), (0.0, False))
        own = own or (term.in_query if query else term.in_document)
        words[place.word_start, place.word_end] = (added + term.contribution, own)
    kept: list[tuple[int, int, float, bool]] = []
    for (start, end), (contribution, own) in sorted(words.items()):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end, contribution, own))
    return kept


def to_html(explanation: Rendered, *, top_k: int = _SHOWN) -> str:
    """Return an HTML fragment, without scripts, with highlighted texts and a bar for each term. All text is escaped."""
    largest = max((term.contribution for term in explanation.terms), default=1.0)
    rows = []
    for term in explanation.terms[:top_k]:
        width = 100 * term.contribution / largest
        fill = "#1b5e9b" if term.in_document else "repeating-linear-gradient(45deg,#1b5e9b 0 2px,transparent 2px 6px)"
        cells = [
            f"<td style='text-align:left'><b>{escape(term.label)}</b></td>",
            *(
                f"<td style='text-align:right'>{value:.2f}</td>"
                for value in (term.query_weight, term.document_weight, term.contribution)
            ),
            f"<td style='width:12em'><div style='width:{width:.1f}%;height:.8em;background:{fill};"
            "border:1px solid #1b5e9b;box-sizing:border-box'></div></td>",
            f"<td style='text-align:left'>{escape(_came_from(term))}</td>",
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = ("term", "query", "document", "product", "", "in the document")
    header = "".join(f"<th style='text-align:{'right' if 0 < n < 4 else 'left'}'>{h}</th>" for n, h in enumerate(heads))
    return (
        "<div style='font-family:sans-serif;max-width:60em;line-height:1.6'>"
        f"<div><b>Query</b> {_marked(explanation, query=True)}</div>"
        f"<div><b>Document</b> {_marked(explanation, query=False)}</div>"
        f"<div style='margin:.5em 0'>{escape(_summary(explanation, top_k))}</div>"
        "<table style='border-collapse:separate;border-spacing:1em .1em;margin-left:-1em'>"
        f"<tr>{header}</tr>{''.join(rows)}</table>"
        "<div style='font-size:85%'>Solid: the term is in the document. Hatched or dotted: "
        f"{_what_expansions_are(explanation)}</div></div>"
    )


def to_rich(explanation: Rendered, width: int, *, top_k: int = _SHOWN) -> Iterator[Any]:
    """Yield what rich prints: both texts with highlighted words, then a table with a bar for each term.

    Args:
        explanation: The explanation.
        width: The number of columns of the terminal.
        top_k: The largest number of terms to show.
    Raises:
        OptionalDependencyError: rich is not installed.
    """
    with require_extra("cli", module="Printing an explanation with rich"):
        from rich import box
        from rich.table import Table
        from rich.text import Text
    for heading, query in (("Query     ", True), ("Document  ", False)):
        text = Text(heading)
        text.append_text(_marked_text(explanation, query=query))
        yield text
    yield Text()
    yield Text(_summary(explanation, top_k))
    bar = max(8, min(30, width - 70))
    largest = max((term.contribution for term in explanation.terms), default=1.0)
    table = Table(box=box.SIMPLE, padding=(0, 1), show_edge=False, width=min(width, 120))
    table.add_column("term", overflow="fold", ratio=2)
    for name in ("query", "doc", "product"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", width=bar, no_wrap=True)
    table.add_column("in the document", overflow="fold", ratio=2)
    for term in explanation.terms[:top_k]:
        cells = max(1, round(bar * term.contribution / largest))
        table.add_row(
            Text(term.label),
            f"{term.query_weight:.2f}",
            f"{term.document_weight:.2f}",
            f"{term.contribution:.2f}",
            Text(("█" if term.in_document else "░") * cells),
            Text(_came_from(term)),
        )
    if explanation.terms:
        yield table
        yield Text(
            "█ and bold: the term is in the document.  ░ and underlined: " + _what_expansions_are(explanation), "dim"
        )


def plot(explanation: Rendered, ax: Any = None, *, top_k: int = _SHOWN) -> Any:
    """Draw a bar for each term. `Rendered.plot` describes the arguments."""
    with require_extra("evaluate", module="Explanation.plot"):
        from matplotlib import pyplot
        from matplotlib.patches import Patch
    shown, rest = explanation.terms[:top_k], explanation.terms[top_k:]
    labels = [_shorten(term.label, 28) for term in shown]
    values = [term.contribution for term in shown]
    if rest:
        labels.append(f"{len(rest)} more")
        values.append(sum(term.contribution for term in rest))
    if ax is None:
        _, ax = pyplot.subplots(figsize=(7, 1.4 + 0.28 * max(1, len(values))), layout="constrained")
    bars = ax.barh(range(len(values)), values, color="white", edgecolor="black", linewidth=0.8)
    for bar, term in zip(bars, shown, strict=False):
        if term.in_document:
            bar.set_facecolor("#1b5e9b")
        else:
            bar.set_hatch("////")
    ax.set_yticks(range(len(values)), labels)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.bar_label(bars, [f"{value:.2f}" for value in values], padding=3, fontsize=8)
    ax.set_xlabel("contribution to the score (query weight × document weight, no unit)")
    ax.set_title(_shorten(explanation.query, 60) + f"\nscore {explanation.score:.2f}", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    patches = {
        _LEGEND[True]: Patch(facecolor="#1b5e9b", edgecolor="black"),
        _LEGEND[False]: Patch(facecolor="white", edgecolor="black", hatch="////"),
    }
    if rest:
        patches["all other terms together"] = Patch(facecolor="white", edgecolor="black")
    ax.legend(patches.values(), patches.keys(), loc="lower right", frameon=False, fontsize=8)
    return ax


def _summary(explanation: Rendered, top_k: int) -> str:
    shared = len(explanation.terms)
    expansions = sum(not term.in_document for term in explanation.terms)
    line = (
        f"Score {explanation.score:.4f}: the query has {explanation.query_terms} terms and the document "
        f"{explanation.document_terms}. They share {shared}, of which {expansions} are expansions of the document."
    )
    rest = explanation.terms[top_k:]
    return line + (f" The {len(rest)} terms not shown add {sum(t.contribution for t in rest):.4f}." if rest else "")


def _what_expansions_are(explanation: Rendered) -> str:
    """Return the end of the legend.

    If the document's vector was read from a collection, it says that the word that an expansion comes from is unknown.
    """
    if any(not term.in_document and term.document_place is None for term in explanation.terms):
        return (
            "an expansion. Stored vectors do not tell which word it expands. `splade explain` runs the model and names "
            "the word."
        )
    return "an expansion of the word in the last column."


def _came_from(term: Term) -> str:
    place = term.document_place
    if place is None:
        return "expansion"
    if place.word_start is None:
        words = f"{place.word} (not a word)"
    else:
        words = place.word if term.in_document else f"expands {place.word}"
    return words + (f" ({100 * place.share:.0f} % of the weight)" if place.share < 1 else "")


def _marked(explanation: Rendered, *, query: bool) -> str:
    text, parts, last = explanation.query if query else explanation.document, [], 0
    found = highlights(explanation, query=query)
    largest = max((contribution for _, _, contribution, _ in found), default=1.0)
    for start, end, contribution, own in found:
        line = "solid" if own else "dotted"
        style = f"background:rgba(255,193,7,{0.15 + 0.6 * contribution / largest:.2f});border-bottom:2px {line} #333"
        parts += [
            escape(text[last:start]),
            f"<span style='{style}' title='adds {contribution:.2f}'>{escape(text[start:end])}</span>",
        ]
        last = end
    return "".join(parts) + escape(text[last:])


def _marked_text(explanation: Rendered, *, query: bool) -> Any:
    """Return the text for a terminal. A long text is cut to the part around the word that adds most to the score."""
    from rich.text import Text

    whole, found = explanation.query if query else explanation.document, highlights(explanation, query=query)
    text = Text(whole)
    for start, end, _, own in found:
        text.stylize("bold" if own else "underline", start, end)
    if len(whole) > 2 * _CONTEXT:
        heaviest = max(found, key=lambda word: word[2], default=(0, 0, 0.0, False))[0]
        first = max(0, min(heaviest - _CONTEXT, len(whole) - 2 * _CONTEXT))
        text = text[first : first + 2 * _CONTEXT]
        text = Text("… " if first else "").append_text(text).append(" …" if first + 2 * _CONTEXT < len(whole) else "")
    # Line breaks become spaces, because a terminal has little room. Other control characters also become spaces,
    # because they would move the cursor.
    plain = "".join(" " if ord(character) < 32 or ord(character) == 127 else character for character in text.plain)
    return Text(plain, spans=text.spans)


def _shorten(text: str, most: int) -> str:
    text = " ".join(text.split()).replace("$", r"\$")  # matplotlib reads maths between dollar signs
    return text if len(text) <= most else text[: most - 1] + "…"
