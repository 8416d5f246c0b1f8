"""A filter in the syntax of one engine: an expression, and the rows on which the expression may be wrong.

An engine is a kind of Milvus: milvus-lite 2, milvus-lite 3 or a server.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

# An expression, or a constant: True matches all rows, and False matches no row.
Expression = str | bool


class Said(NamedTuple):
    """An expression that may be wrong on the rows that match `doubt`, and is right on all other rows."""

    expr: Expression
    doubt: Expression = False

    @property
    def reach(self) -> Expression:
        """An expression that matches every row that satisfies the filter, and may match other rows."""
        return either(self.expr, self.doubt)


# Stands for a condition that the engine cannot express: every row must be checked in Python.
UNSAYABLE = Said(False, True)


def both(*expressions: Expression) -> Expression:
    """Return the expression that holds if all of the given expressions hold.

    Example:
        >>> both("a == 1", True, "b == 2"), both("a == 1", False), both()
        ('(a == 1 and b == 2)', False, True)
    """
    return _joined("and", expressions, neutral=True)


def either(*expressions: Expression) -> Expression:
    """Return the expression that holds if at least one of the given expressions holds.

    Example:
        >>> either("a == 1", False, "b == 2"), either("a == 1", True), either()
        ('(a == 1 or b == 2)', True, False)
    """
    return _joined("or", expressions, neutral=False)


def _joined(word: str, expressions: Iterable[Expression], neutral: bool) -> Expression:
    kept = list(dict.fromkeys(each for each in expressions if each is not neutral))
    if (not neutral) in [each for each in kept if isinstance(each, bool)]:
        return not neutral
    if not kept:
        return neutral
    return kept[0] if len(kept) == 1 else f"({f' {word} '.join(str(each) for each in kept)})"


def all_of(parts: Sequence[Said]) -> Said:
    """Return the condition that is true if all parts are true.

    A part is exact if it is right on all rows. If an exact part is false on a row, the whole condition is false on that
    row. So a row needs checking only if every exact part is true on it and another part may be wrong on it.
    """
    doubts = either(*(part.doubt for part in parts))
    certain = [part.expr for part in parts if part.doubt is False]
    return Said(both(*(part.expr for part in parts)), both(doubts, *certain))


def any_of(parts: Sequence[Said]) -> Said:
    """Return the condition that is true if at least one part is true."""
    return Said(either(*(part.expr for part in parts)), either(*(part.doubt for part in parts)))
