"""`splade index`: texts of a file into a Milvus collection, to go on where a Ctrl-C left it."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Annotated, Any

import typer

from splade_integrations.cli.encode import (
    IdField,
    Input,
    InputFormatOption,
    TextField,
    TitleField,
    encode_blocks,
    records_of,
)
from splade_integrations.cli.options import (
    Backend,
    DenseModel,
    Device,
    Dtype,
    Json,
    MaxActiveDims,
    MaxLength,
    Model,
    Token,
    Uri,
    load_encoder,
    pruning_to,
)
from splade_integrations.cli.terminal import InterruptedRun, note, print_json, progress
from splade_integrations.encoder import SpladeEncoder
from splade_integrations.models.fingerprint import differences, name_of
from splade_integrations.records import Record, Records
from splade_integrations.sparse import to_dicts

__all__ = ["index"]

# Documents encoded and written together: what a Ctrl-C can lose, and what is asked for at once when going on.
_CHUNK = 256


def index(
    input: Input,
    model: Model,
    uri: Uri = "./splade.db",
    collection: Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")] = "splade",
    dense: DenseModel = None,
    token: Token = "",
    resume: Annotated[bool, typer.Option("--resume", help="Add what the collection lacks; skip ids it has.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Drop a collection of this name first.")] = False,
    input_format: InputFormatOption = None,
    text_field: TextField = "text",
    title_field: TitleField = "title",
    id_field: IdField = None,
    max_active_dims: MaxActiveDims = None,
    max_length: MaxLength = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    backend: Backend = "torch",
    as_json: Json = False,
) -> None:
    """Put the texts of a file into a Milvus collection, with a dense side if you name a model for it.

    Ctrl-C leaves a usable collection; the same command with --resume goes on.

    [bold]Examples[/bold]

      splade index corpus.jsonl -m prithivida/Splade_PP_en_v2 --uri corpus.db

      splade index corpus.jsonl -m prithivida/Splade_PP_en_v2 --dense sentence-transformers/all-MiniLM-L6-v2
    """
    if resume and replace:
        raise ValueError("--resume and --replace must not both be given. Choose one.")
    records = records_of(input, input_format, text_field, title_field, id_field)
    total = records.count()
    next(iter(records)) if input != "-" else None  # a broken file is found before a model is loaded
    from splade_integrations.cli.milvus_store import Store, StoreError

    store = Store(uri, collection, token)
    try:
        goes_on = store.exists() and not replace
        if goes_on and not resume:
            raise ValueError(
                f"the collection {collection!r} must be new, and is in {uri} already. Add to it by --resume, or drop "
                "it by --replace."
            )
        encoder = load_encoder(
            model,
            max_length=max_length,
            device=device,
            dtype=dtype,
            backend=backend,
            document_pruning=pruning_to(max_active_dims),
        )
        if goes_on:
            _check_models(store, encoder, dense)
        dense_encoder = None if dense is None else _load_dense(dense, max_length, device)
        if not goes_on:
            width = None if dense_encoder is None else len(dense_encoder.encode(["width"])[0])
            store.create(encoder.fingerprint, dense, width)
        counts = {"added": 0, "there": 0}
        try:
            with progress("Indexing", total) as advance:
                _fill(store, records, encoder, dense_encoder, resume, counts, advance)
        except BaseException as err:
            with suppress(Exception):  # on a full disk, say; the first error is the one to tell
                store.finish()
            if isinstance(err, KeyboardInterrupt):
                raise InterruptedRun(_how_to_go_on(counts, collection, uri)) from err
            stored = f"{counts['added']} documents before it are stored; mend it and use --resume."
            if isinstance(err, StoreError):
                raise OSError(f"Milvus: {err.message.rstrip('.')}. {stored}") from err
            if counts["added"] and isinstance(err, ValueError | OSError):
                kind = OSError if isinstance(err, OSError) else ValueError  # its own type may want more arguments
                raise kind(f"{err} {stored}") from err
            raise
        store.finish()
        summary = {"collection": collection, "uri": uri, "added": counts["added"], "already_there": counts["there"]}
        if as_json:
            print_json(summary)
        else:
            note(f"{counts['added']:,} documents added, {counts['there']:,} there already, in {collection!r} of {uri}.")
    finally:
        store.close()


def _check_models(store: Any, encoder: SpladeEncoder, dense: str | None) -> None:
    """Refuse other models than those that the collection was made with."""
    kept, given = store.fingerprint(), encoder.fingerprint
    differing = differences(kept, given) if kept is not None else []
    if differing or store.dense_model() != dense:
        made_by = name_of(kept or {}, differing)
        raise ValueError(
            f"the collection {store.name!r} must go on with what it was made by, {made_by} and the dense model "
            f"{store.dense_model()}, got {name_of(given, differing)} and {dense}. Name the same, or start anew by "
            "--replace."
        )


def _fill(
    store: Any, records: Records, encoder: Any, dense_encoder: Any, resume: bool, counts: dict[str, int], advance: Any
) -> None:
    def lacking() -> Iterator[Record]:
        source = iter(records)
        for chunk in iter(lambda: list(islice(source, _CHUNK)), []):
            there = store.known([record.id for record in chunk]) if resume else set()
            counts["there"] += len(there)
            advance(len(there))
            yield from (record for record in chunk if record.id not in there)

    for block in encode_blocks(encoder, lacking(), advance=advance, block_rows=_CHUNK):
        dense = None if dense_encoder is None else dense_encoder.encode(block.texts or [])
        store.add(block.ids, block.texts or [], to_dicts(block.weights), dense)
        counts["added"] += len(block.ids)


def _load_dense(name: str, max_length: int | None, device: str) -> Any:
    from splade_integrations.evaluation.retrievers import load_dense

    return load_dense(name, max_length=max_length, device=device)


def _without_token(arguments: list[str]) -> list[str]:
    """Arguments that may be printed: a token belongs in no log."""
    before = ["", *arguments]
    return [
        argument
        for previous, argument in zip(before, arguments, strict=False)
        if "--token" not in (previous, argument) and not argument.startswith("--token=")
    ]


def _how_to_go_on(counts: dict[str, int], collection: str, uri: str) -> str:
    shown = _without_token(sys.argv[1:])
    again = [argument for argument in shown if argument not in ("--replace", "--resume")]
    and_token = ", and its token" if len(shown) < len(sys.argv) - 1 else ""
    return (
        f"interrupted; {counts['added'] + counts['there']:,} documents are in {collection!r} of {uri} and can be "
        f"searched. Go on with: splade {shlex.join(again)} --resume{and_token}"
    )
