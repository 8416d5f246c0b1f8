"""Make a copy equal to its original, in passes over all rows.

A pass compares the original with the copy page by page. It writes the rows that the copy lacks or holds differently,
and deletes the rows that only the copy has. A pass does not depend on earlier passes. So it can fill an empty copy,
continue an interrupted copy, or find what other programs have changed in the original meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from splade_integrations.milvus.copying.table import Table, equal
from splade_integrations.milvus.ingest import ROWS_PER_FLUSH

__all__ = ["MOST_PASSES", "ROWS_AT_ONCE", "Fill", "Pass", "one_pass", "passes"]

MOST_PASSES = 5
ROWS_AT_ONCE = 256  # the largest number of rows written together. A killed run can lose the work on them.

Row = dict[str, Any]
# Returns rows of the original as the copy must hold them, with the values that only the copy has.
Fill = Callable[[Sequence[Row]], list[Row]]


@dataclass
class Pass:
    """What one pass found.

    Args:
        rows: The number of rows in the original.
        written: The number of rows that the copy lacked or held differently.
        deleted: The number of rows that only the copy had.
    """

    rows: int = 0
    written: int = 0
    deleted: int = 0


def one_pass(
    original: Table,
    copy: Table,
    fill: Fill,
    *,
    as_stored: Callable[[Row], Row] = lambda row: row,
    rows_at_once: int = ROWS_AT_ONCE,
    advance: Callable[[int], object] = lambda _: None,
) -> Pass:
    """Compare all rows, and make the copy equal to the original.

    Args:
        original: The collection to copy. It is only read.
        copy: The copy. It has the fields of the original.
        fill: Adds the values that only the copy has.
        as_stored: Converts a row of the original to the form that the copy stores, without the values that `fill` adds.
        rows_at_once: The largest number of rows that are passed to `fill` and written together.
        advance: Called repeatedly, each time with the number of rows checked (and copied, if the copy needed them)
            since its previous call.
    """
    found = Pass()
    theirs = original.partitions()
    copy.add_partitions(theirs)
    unflushed = 0
    for partition in dict.fromkeys([*theirs, *copy.partitions()]):
        after: Any = None
        while True:
            rows, following = original.page(partition, after) if partition in theirs else ([], None)
            stored = {row[copy.primary]: row for page in copy.pages(partition, after, following) for row in page}
            wanted = {row[original.primary]: as_stored(row) for row in rows}
            extra = [key for key in stored if key not in wanted]
            differing = [row for key, row in wanted.items() if not equal(row, stored.get(key))]
            copy.delete(extra, partition)
            for start in range(0, len(differing), rows_at_once):
                copy.write(fill(differing[start : start + rows_at_once]), partition)
            found.rows += len(rows)
            found.written += len(differing)
            found.deleted += len(extra)
            unflushed += len(differing) + len(extra)
            if unflushed >= ROWS_PER_FLUSH:
                copy.flush_lite()
                unflushed = 0
            advance(len(rows))
            after = following
            if after is None:
                break
    if unflushed:
        copy.flush_lite()
    return found


def passes(run: Callable[[], Pass], most: int = MOST_PASSES) -> list[Pass]:
    """Run passes until one finds no difference, but at most `most` passes."""
    found = [run()]
    while (found[-1].written or found[-1].deleted) and len(found) < most:
        found.append(run())
    return found
