"""Fills a collection with records. After an error or Ctrl-C, a message says what is stored and how to continue."""

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from splade_integrations.cli.blocks import encode_blocks
from splade_integrations.cli.interrupting import InterruptedRun, was_interrupted
from splade_integrations.cli.milvus_store import Store, StoreError
from splade_integrations.milvus.defaults import MAX_TEXT_BYTES
from splade_integrations.milvus.interrupted import clean_up
from splade_integrations.records import Record
from splade_integrations.sparse import to_dicts

if TYPE_CHECKING:
    from splade_integrations.encoder import SpladeEncoder
    from splade_integrations.evaluation.retrievers import DenseEncoder

__all__ = ["CHUNK_ROWS", "Counts", "fill", "keeping_what_is_stored"]

# The number of documents that are encoded and written together. Ctrl-C can lose the work on at most this many
# documents. --resume also looks up this many ids at a time.
CHUNK_ROWS = 256


@dataclass
class Counts:
    """How many documents a run added, how many were in the collection already, and how many were too long and cut."""

    added: int = 0
    already_there: int = 0
    cut: int = 0


def fill(
    store: Store,
    records: Iterable[Record],
    encoder: "SpladeEncoder",
    dense_encoder: "DenseEncoder | None",
    *,
    resume: bool,
    counts: Counts,
    advance: Callable[[int], None],
) -> None:
    """Encode records and store them.

    Args:
        store: The collection.
        records: The records.
        encoder: The SPLADE encoder.
        dense_encoder: The dense model, or None for a collection without dense vectors.
        resume: Whether to leave out records whose ids are stored already.
        counts: The counts of this run, which this function updates.
        advance: Called with the number of finished records since the last call.
    """

    def missing() -> Iterator[Record]:
        source = iter(records)
        while chunk := list(islice(source, CHUNK_ROWS)):
            known = store.known([record.id for record in chunk]) if resume else set()
            counts.already_there += len(known)
            advance(len(known))
            yield from (record for record in chunk if record.id not in known)

    for block in encode_blocks(encoder, missing(), advance=advance, block_rows=CHUNK_ROWS):
        dense = None if dense_encoder is None else dense_encoder.encode(block.texts)
        store.add(block.records, to_dicts(block.weights), dense)
        counts.added += len(block.records)
        counts.cut += sum(len(text.encode("utf-8", "replace")) > MAX_TEXT_BYTES for text in block.texts)


@contextmanager
def keeping_what_is_stored(store: Store, counts: Counts, *, created: bool) -> Iterator[None]:
    """Clean up if filling a collection fails or is interrupted, and say in the error what is stored.

    Args:
        store: The collection.
        counts: The counts that `fill` updates.
        created: Whether this run has created the collection. A new collection is dropped if it stayed empty.
    """
    try:
        yield
    except BaseException as err:
        stayed_empty = created and not counts.added
        _clean_up(store, stayed_empty=stayed_empty, interrupted=was_interrupted(err))
        if was_interrupted(err):
            raise InterruptedRun(
                "interrupted; nothing was stored." if stayed_empty else _how_to_continue(store, counts)
            ) from err
        stored = f"{counts.added} documents were stored before this error. Fix its cause and use --resume."
        if stayed_empty:
            stored = "Nothing was stored."
        if isinstance(err, StoreError):
            raise OSError(f"Milvus: {err.message.rstrip('.')}. {stored}") from err
        if counts.added and isinstance(err, ValueError | OSError):
            # The error's own class may need more arguments than a message, so its base class is raised instead.
            kind = OSError if isinstance(err, OSError) else ValueError
            raise kind(f"{err} {stored}") from err
        raise


def _clean_up(store: Store, *, stayed_empty: bool, interrupted: bool) -> None:
    """Drop the collection if it stayed empty. If not, call `store.finish`, except after Ctrl-C.

    `store.finish` takes long and only makes searches faster, so a user who pressed Ctrl-C need not wait for it. Errors
    in this function are ignored, so that only the error that ended the run is reported.
    """
    with suppress(Exception):
        if stayed_empty:
            clean_up(store.drop)
        elif not interrupted:
            store.finish()


def _how_to_continue(store: Store, counts: Counts) -> str:
    shown = _without_token(sys.argv[1:])
    again = [argument for argument in shown if argument not in ("--replace", "--resume")]
    with_token = " this command, adding --token" if len(shown) < len(sys.argv) - 1 else ""
    return (
        f"interrupted; {counts.added + counts.already_there:,} documents are in {store.name!r} of {store.uri} and can "
        f"be searched. Continue with{with_token}: splade {shlex.join(again)} --resume"
    )


def _without_token(arguments: list[str]) -> list[str]:
    """Return the arguments without `--token` and its value, because a token must not be printed."""
    before = ["", *arguments]
    return [
        argument
        for previous, argument in zip(before, arguments, strict=False)
        if "--token" not in (previous, argument) and not argument.startswith("--token=")
    ]
