"""Run a copy: create the new collection, and make it equal to the original in one or more passes over all rows.

A property of the new collection, called its mark, records which collection was copied.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from splade_integrations.milvus.clients import Connection
from splade_integrations.milvus.copying.definition import Definition, call
from splade_integrations.milvus.copying.numbering import check_numbering, finish_numbering
from splade_integrations.milvus.copying.passes import MOST_PASSES, ROWS_AT_ONCE, Fill, Row, one_pass, passes
from splade_integrations.milvus.copying.report import Report
from splade_integrations.milvus.copying.table import Table
from splade_integrations.milvus.fingerprint import record
from splade_integrations.models.fingerprint import Fingerprint

__all__ = ["Job", "mark_of", "write_mark"]

# Users' collections hold this key, so it must never change.
_MARK = "splade_integrations.copy"


def mark_of(properties: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the mark that a copy's properties hold, {"original": …, "complete": …, …}, or None if there is none."""
    text = properties.get(_MARK)
    return json.loads(text) if text else None


def write_mark(connection: Connection, name: str, mark: Mapping[str, Any]) -> None:
    """Store a mark in a collection's properties. It says which collection is copied, or which field is filled."""
    call(connection, "alter_collection_properties", collection_name=name, properties={_MARK: json.dumps(mark)})


@dataclass(frozen=True, kw_only=True)
class Job:
    """A copy to make.

    Args:
        definition: The definition of the original.
        original_name: The usual name of the original. The original may have a temporary name while it is replaced.
        source: The server or file of the original.
        target: The server or file of the copy.
        name: The copy's name.
        fill: Completes rows of the original with the values that only the copy has.
        as_stored: Converts a row of the original to the form that the copy stores, without the values that `fill` adds.
        added: The fields that only the copy has. See `Definition.make`.
        left_out: The fields of the original that the copy does not get.
        properties: The copy's properties.
        text: The copy's description.
        fingerprint: The fingerprint of the encoder that made the copy's SPLADE vectors, if it is known.
        sparse_field: The field that `fill` fills, or None.
        rows_at_once: The largest number of rows that are passed to `fill` and written together.
        mark: Further JSON values for the mark. They distinguish this copy from other copies of the original.
    """

    definition: Definition
    original_name: str
    source: Connection
    target: Connection
    name: str
    fill: Fill = list
    as_stored: Callable[[Row], Row] = lambda row: row
    added: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    fingerprint: Fingerprint | None = None
    sparse_field: str | None = None
    rows_at_once: int = ROWS_AT_ONCE
    mark: Mapping[str, Any] = field(default_factory=dict)

    @property
    def original(self) -> Table:
        """The rows of the original."""
        return Table.of(self.source, self.definition.name, self.definition, self.left_out)

    @property
    def copy(self) -> Table:
        """The rows of the copy, without the values that `fill` adds."""
        new = tuple(name for name in self.added if name != self.sparse_field)
        return Table.of(self.target, self.name, self.definition, self.left_out).with_fields(new)

    def load(self) -> None:
        """Load the original, because only a loaded collection can be read."""
        call(self.source, "load_collection", collection_name=self.definition.name, timeout=None)

    def check(self, *, resume: bool) -> None:
        """Raise a ValueError if the copy cannot be made, before anything is written. The original must be loaded.

        Args:
            resume: Whether a copy that already exists may be continued.
        """
        where = self.target.uri
        if self.source is self.target and self.name in (self.original_name, self.definition.name):
            raise ValueError(
                f"the copy must have a different name from the original, got {self.name!r} for both. Choose another "
                "name."
            )
        if not call(self.target, "has_collection", collection_name=self.name):
            check_numbering(self.definition, self.original, self.target)
            return
        there = Definition.read(self.target, self.name)
        mark = mark_of(there.properties)
        if there.name != self.name or mark is None:
            raise ValueError(
                f"the copy's name must be free, or be the name of a copy to continue, got {self.name!r}, the name of "
                f"another collection or alias in {where}. Choose another name for the copy."
            )
        if not resume:
            raise ValueError(
                f"the copy's name must be free, got {self.name!r}, the name of a copy of {mark['original']!r} in "
                f"{where}. Continue that copy with --resume (in Python: resume=True), or choose another name."
            )
        if {**mark, "complete": False} != self._mark(complete=False):
            raise ValueError(
                f"the copy {self.name!r} must be continued as it was begun ({_said(mark)}), got "
                f"{_said(self._mark(complete=False))}. Give the same options, or choose another name for the copy."
            )
        if mark["complete"] and there.aliases:
            raise ValueError(
                f"the copy {self.name!r} must have no alias when it is compared with its original again, got the alias "
                f"{there.aliases[0]!r}. Rows that a program has added through the alias would be deleted. If no "
                "program writes to the alias, drop it first."
            )

    def run(
        self,
        *,
        resume: bool = False,
        advance: Callable[[int], object] = lambda _: None,
        most_passes: int = MOST_PASSES,
    ) -> Report:
        """Make the copy, or continue it. See `add_sparse` for the arguments."""
        self.load()
        self.check(resume=resume)
        self._make()
        return self.compare(advance=advance, most_passes=most_passes)

    def compare(self, *, advance: Callable[[int], object] = lambda _: None, most_passes: int = MOST_PASSES) -> Report:
        """Compare the original with the existing copy, and write what differs, until both are equal.

        See `add_sparse` for the arguments. At most `most_passes` passes are made.
        """
        original, copy = self.original, self.copy
        how: Any = {"as_stored": self.as_stored, "rows_at_once": self.rows_at_once, "advance": advance}
        found = passes(lambda: one_pass(original, copy, self.fill, **how), most_passes)
        unsettled = found[-1].written + found[-1].deleted
        if not unsettled:
            every = copy.with_fields((self.sparse_field,) if self.sparse_field else ())
            finish_numbering(self.definition, every, found[-1].rows)
            self._set_mark(complete=True)
        return Report(
            original=self.original_name,
            collection=self.name,
            sparse_field=self.sparse_field,
            rows=found[-1].rows,
            written=sum(one.written for one in found),
            deleted=sum(one.deleted for one in found),
            passes=len(found),
            unsettled=unsettled,
            aliases=self.definition.aliases,
        )

    def _make(self) -> None:
        mark = {_MARK: json.dumps(self._mark(complete=False))}
        self.definition.make(
            self.target,
            self.name,
            added=self.added,
            left_out=self.left_out,
            properties={**self.properties, **mark},
            text=self.text,
        )
        record(self.target.client, self.name, self.fingerprint)
        self._set_mark(complete=False)  # a copy that was complete may be incomplete now

    def _mark(self, *, complete: bool) -> dict[str, Any]:
        return {"original": self.original_name, "complete": complete, **self.mark}

    def _set_mark(self, *, complete: bool) -> None:
        write_mark(self.target, self.name, self._mark(complete=complete))


def _said(mark: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value!r:.100}" for name, value in mark.items() if name != "complete")
