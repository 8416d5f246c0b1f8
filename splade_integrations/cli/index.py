"""`splade index`: puts the texts of a file into a Milvus collection. After Ctrl-C, --resume continues the run."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from splade_integrations.cli.options import (
    CollectionName,
    DenseModel,
    Input,
    InputOptions,
    Json,
    Model,
    ModelOptions,
    Token,
    Uri,
)
from splade_integrations.cli.terminal import InterruptedRun, note, print_json

if TYPE_CHECKING:
    from splade_integrations.cli.milvus_store import Store
    from splade_integrations.encoder import SpladeEncoder
    from splade_integrations.evaluation.retrievers import DenseEncoder
    from splade_integrations.records import Record, Records

__all__ = ["CHUNK_ROWS", "index"]

# The number of documents in a chunk. A chunk is encoded and written as a whole, so Ctrl-C can lose the work on it.
# --resume looks up the ids of one chunk at a time.
CHUNK_ROWS = 256


def index(
    input: Input,
    model: Model,
    uri: Uri = "./splade.db",
    collection: CollectionName = "splade",
    dense: DenseModel = None,
    bm25: Annotated[bool, typer.Option("--bm25", help="Also keep a BM25 index, made by Milvus.")] = False,
    language: Annotated[
        str | None, typer.Option(help="Language of the texts, for --bm25.", show_default="english")
    ] = None,
    token: Token = "",
    resume: Annotated[bool, typer.Option("--resume", help="Add only documents whose ids are not stored yet.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="First drop the collection of this name.")] = False,
    *,
    input_options: InputOptions,
    model_options: ModelOptions,
    as_json: Json = False,
) -> None:
    """Put the texts of a file into a Milvus collection.

    The collection also gets dense vectors if you name a dense model, and a BM25 index with --bm25. After Ctrl-C,
    the texts that are already in the collection can be searched. To add the others, run the same command with
    --resume.

    Examples:

      splade index corpus.jsonl -m prithivida/Splade_PP_en_v2 --uri corpus.db

      splade index corpus.jsonl -m MODEL --dense all-MiniLM-L6-v2 --bm25
    """
    if resume and replace:
        raise ValueError("--resume and --replace must not both be given, got both. Choose one.")
    if language is not None and not bm25:
        raise ValueError(f"--language must be given with --bm25, got {language!r} alone. Add --bm25, or leave it out.")
    records = input_options.records(input)
    total = records.count()
    if input != "-":  # reads the first record, so that a broken file is found before a model is loaded
        next(iter(records))
    from splade_integrations.cli.loading import load_dense_encoder, load_encoder
    from splade_integrations.cli.milvus_store import Store
    from splade_integrations.cli.progress import progress

    with closing(Store(uri, collection, token)) as store:
        continues = store.exists() and not replace
        if continues and not resume:
            raise ValueError(
                f"the collection {collection!r} must be new, but {uri} has it already. Add to it with --resume, or "
                "drop it with --replace."
            )
        pruning = model_options.pruning()
        encoder = load_encoder(model, model_options.for_encoder(document_pruning=pruning))
        if continues:
            _check_models(store, encoder, dense, bm25=bm25)
            store.check_language(language)
        dense_encoder = None
        if dense is not None:
            dense_encoder = load_dense_encoder(dense, max_length=model_options.max_length, device=model_options.device)
        if not continues:
            width = None if dense_encoder is None else len(dense_encoder.encode(["width"])[0])
            store.create(encoder.fingerprint, dense, width, (language or "english") if bm25 else None)
        counts = _Counts()
        with _keeping_what_is_stored(store, counts), progress("Indexing", total) as advance:
            _fill(store, records, encoder, dense_encoder, resume=resume, counts=counts, advance=advance)
        store.finish()
        if as_json:
            print_json(
                {"collection": collection, "uri": uri, "added": counts.added, "already_there": counts.already_there}
            )
        else:
            note(f"{counts.added:,} documents added, {counts.already_there:,} already in {collection!r} of {uri}.")


@dataclass
class _Counts:
    added: int = 0
    already_there: int = 0


def _check_models(store: "Store", encoder: "SpladeEncoder", dense: str | None, *, bm25: bool) -> None:
    """Raise ValueError if the collection names another encoder or another dense model, or lacks a BM25 index."""
    if bm25 and "bm25" not in store.sides:
        raise ValueError(
            f"the collection {store.name!r} must have been made with --bm25 to be continued with it, but it has no "
            "BM25 index. Leave --bm25 out, or start again with --replace."
        )
    kept, given = store.fingerprint(), encoder.fingerprint
    differing = [] if kept is None else kept.differences(given)
    if differing or store.dense_model() != dense:
        made_with = "a model that it does not name" if kept is None else kept.describe(differing)
        raise ValueError(
            f"the collection {store.name!r} must be continued with the models that it was made with: {made_with} and "
            f"the dense model {store.dense_model()}; got {given.describe(differing)} and the dense model {dense}. "
            "Name the collection's models, or start again with --replace."
        )


def _fill(
    store: "Store",
    records: "Records",
    encoder: "SpladeEncoder",
    dense_encoder: "DenseEncoder | None",
    *,
    resume: bool,
    counts: _Counts,
    advance: Callable[[int], None],
) -> None:
    from splade_integrations.cli.blocks import encode_blocks
    from splade_integrations.sparse import to_dicts

    def missing() -> "Iterator[Record]":
        source = iter(records)
        while chunk := list(islice(source, CHUNK_ROWS)):
            known = store.known([record.id for record in chunk]) if resume else set()
            counts.already_there += len(known)
            advance(len(known))
            yield from (record for record in chunk if record.id not in known)

    for block in encode_blocks(encoder, missing(), advance=advance, block_rows=CHUNK_ROWS):
        dense = None if dense_encoder is None else dense_encoder.encode(block.texts)
        store.add(block.ids, block.texts, to_dicts(block.weights), dense)
        counts.added += len(block.ids)


@contextmanager
def _keeping_what_is_stored(store: "Store", counts: _Counts) -> Iterator[None]:
    """Finish the collection even if filling it fails or is interrupted, and say in the error what is stored."""
    from splade_integrations.cli.milvus_store import StoreError

    try:
        yield
    except BaseException as err:
        with suppress(Exception):  # finishing can fail too, for example on a full disk; the first error is reported
            store.finish()
        if isinstance(err, KeyboardInterrupt):
            raise InterruptedRun(_how_to_continue(store, counts)) from err
        stored = f"{counts.added} documents were stored before this error. Fix its cause and use --resume."
        if isinstance(err, StoreError):
            raise OSError(f"Milvus: {err.message.rstrip('.')}. {stored}") from err
        if counts.added and isinstance(err, ValueError | OSError):
            # The error's own type may need more arguments than a message.
            kind = OSError if isinstance(err, OSError) else ValueError
            raise kind(f"{err} {stored}") from err
        raise


def _how_to_continue(store: "Store", counts: _Counts) -> str:
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
