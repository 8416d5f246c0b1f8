"""`splade index`: puts the texts of a file or a folder into a Milvus collection. --resume continues an earlier run."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splade_integrations.cli.interrupting import saying_if_interrupted
from splade_integrations.cli.options import (
    CollectionName,
    DatabaseName,
    DenseModel,
    Input,
    InputOptions,
    Json,
    Model,
    ModelOptions,
    Token,
    Uri,
)
from splade_integrations.cli.ray_options import RayOptions
from splade_integrations.cli.terminal import complain, print_json, say_what_is_left_out, stdout

if TYPE_CHECKING:
    from splade_integrations.cli.filling import Counts
    from splade_integrations.cli.milvus_store import Store
    from splade_integrations.encoder import SpladeEncoder
    from splade_integrations.options import EncoderOptions
    from splade_integrations.records import Record

__all__ = ["index"]


def index(
    input: Input,
    model: Model,
    uri: Uri = "./splade.db",
    collection: CollectionName = "splade",
    keep: Annotated[
        str | None,
        typer.Option(help='Fields to keep as metadata, such as year,author; "" for none.', show_default="all"),
    ] = None,
    chunk: Annotated[
        bool, typer.Option("--chunk", help="Cut each text into chunks that fit into the models' maximum length.")
    ] = False,
    dense: DenseModel = None,
    bm25: Annotated[bool, typer.Option("--bm25", help="Also make a BM25 index in Milvus.")] = False,
    language: Annotated[
        str | None, typer.Option(help="Language of the texts, for --bm25.", show_default="english")
    ] = None,
    token: Token = "",
    db_name: DatabaseName = "",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Add only documents whose ids are not stored yet. With --ray, also replace changed documents.",
        ),
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="First drop the old collection of this name.")] = False,
    *,
    input_options: InputOptions,
    model_options: ModelOptions,
    ray_options: RayOptions,
    as_json: Json = False,
) -> None:
    """Put the texts of a file or a folder into a Milvus collection.

    A .txt, .md or .rst file is one text. With --chunk, it is cut into several texts. With "--input-format lines", each
    line is a text.

    In JSON lines, CSV and Parquet, all fields except the text and the id become metadata. "splade search" shows the
    metadata, and its --filter can use it. With --dense, the collection also gets dense vectors. With --bm25, it also
    gets a BM25 index.

    After Ctrl-C, the texts that are already in the collection can be searched. To add the other texts, run the same
    command with --resume.

    Examples:

      splade index corpus.jsonl -m prithivida/Splade_PP_en_v2 --uri corpus.db

      splade index notes/ -m MODEL --chunk --dense all-MiniLM-L6-v2 --bm25

      splade index corpus.parquet -m MODEL --uri http://host:19530 --ray-address head:6379
    """
    ray_options.check()
    if ray_options.wanted and input == "-":
        raise ValueError(
            "INPUT must be a file or a folder with --ray, got standard input (-). Write the texts to a file first. "
            "Ray's processes cannot read standard input."
        )
    if resume and replace:
        raise ValueError("--resume and --replace must not be given together, got both. Choose one.")
    if language is not None and not bm25:
        raise ValueError(
            f"--language must be given with --bm25, got only --language {language}. Add --bm25, or leave it out."
        )
    kept = None if keep is None else sorted({name.strip() for name in keep.split(",")} - {""})
    records = input_options.records(input, kept)
    total = records.count()  # reads all records, so that a broken record is found before a model is loaded
    say_what_is_left_out(records)
    from splade_integrations.cli.filling import Counts, fill, keeping_what_is_stored
    from splade_integrations.cli.loading import load_dense_encoder, load_encoder
    from splade_integrations.cli.milvus_store import Store
    from splade_integrations.cli.progress import progress
    from splade_integrations.cli.splitting import splitter
    from splade_integrations.records import in_chunks

    counts = Counts()

    def kept_if_interrupted() -> str:
        if ray_options.wanted:
            return f"the documents that were stored in {collection!r} of {uri} are kept. Continue with --resume."
        return f"{counts.added:,} documents were added to {collection!r} of {uri}."

    with (
        saying_if_interrupted(kept_if_interrupted),
        closing(Store(uri, collection, token, db_name)) as store,
    ):
        continues = _check_is_free(store, resume=resume, replace=replace)
        pruning = model_options.pruning()
        options = model_options.for_encoder(document_pruning=pruning)
        # `model` may be the address of an encoder's server (`splade serve`), which can only encode. But --chunk needs
        # the model's tokenizer, and with --ray, each process loads the model. So these options need the model itself.
        encoder = load_encoder(model, options, itself=chunk or ray_options.wanted)
        settings: dict[str, Any] = {"keep": kept, "chunk": chunk}
        if continues:
            store.complete(encoder.fingerprint)
            _check_models(store, encoder, dense, bm25=bm25)
            store.check_language(language)
            _check_settings(store, settings)
        dense_encoder = None
        if dense is not None:
            dense_encoder = load_dense_encoder(dense, max_length=model_options.max_length, device=model_options.device)
        texts: Iterable[Record] = records
        if chunk:
            texts = in_chunks(records, splitter(encoder, dense_encoder))
        if not continues:
            width = None if dense_encoder is None else len(dense_encoder.encode(["width"])[0])
            store.create(encoder.fingerprint, dense, width, (language or "english") if bm25 else None, settings)
        if ray_options.wanted:
            from splade_integrations.cli.ray_index import index_on_ray, print_summary

            read = _reader(input, input_options, kept, model, options, dense, model_options, chunk=chunk)
            report = index_on_ray(
                store, read, None if chunk else total, model, options, dense, ray_options, resume=continues
            )
            _say_what_is_cut(report.cut)
            if as_json:
                facts = {"collection": store.name, "uri": store.uri, **report.summary()}
                print_json({**facts, "left_out": getattr(records, "left_out", {})})
            else:
                print_summary(report, f"{store.name!r} of {store.uri}", "chunks" if chunk else "documents")
            return
        with (
            keeping_what_is_stored(store, counts, created=not continues),
            progress("Indexing", None if chunk else total) as advance,
        ):
            fill(store, texts, encoder, dense_encoder, resume=resume, counts=counts, advance=advance)
        store.finish()
    _report(store, counts, getattr(records, "left_out", {}), total, chunk=chunk, as_json=as_json)


def _reader(
    input: str,
    input_options: InputOptions,
    kept: list[str] | None,
    model: str,
    options: "EncoderOptions",
    dense: str | None,
    model_options: ModelOptions,
    *,
    chunk: bool,
) -> "Callable[[], Iterable[Record]]":
    """Return a function that reads records, and cuts them if `chunk` is true. Ray calls it in another process."""
    path = str(Path(input).resolve())

    def read() -> "Iterable[Record]":
        from splade_integrations.cli.loading import load_dense_encoder, load_encoder
        from splade_integrations.cli.splitting import splitter
        from splade_integrations.records import in_chunks

        records = input_options.records(path, kept)
        if not chunk:
            return records
        other = None
        if dense is not None:
            other = load_dense_encoder(dense, max_length=model_options.max_length, device="cpu")
        return in_chunks(records, splitter(load_encoder(model, options, itself=True), other))

    return read


def _check_is_free(store: "Store", *, resume: bool, replace: bool) -> bool:
    """Return whether this run adds to an existing collection.

    Raises:
        ValueError: The collection exists, and neither --resume nor --replace is given. Or --replace is given, and the
            name is an alias.
    """
    if not store.exists():
        return False
    if replace:
        store.check_name()
    elif not resume:
        raise ValueError(
            f"the collection {store.name!r} must be new, but {store.uri} has it already. Add to it with --resume, or "
            "drop it with --replace."
        )
    return resume


def _check_models(store: "Store", encoder: "SpladeEncoder", dense: str | None, *, bm25: bool) -> None:
    """Raise ValueError if the collection was made with other models, or lacks the BM25 index that --bm25 asks for."""
    if bm25 and "bm25" not in store.sides:
        raise ValueError(
            f"with --bm25, the collection {store.name!r} must have a BM25 index, got a collection that was made "
            "without --bm25. Leave --bm25 out, or start again with --replace."
        )
    if "sparse" not in store.sides or ("dense" in store.sides and store.dense_model() is None):
        raise ValueError(
            f"the collection {store.name!r} must have SPLADE vectors, and must name the model of its dense vectors (if "
            "it has any), got a collection that another package made. Add to it through that package, or index into a "
            "new collection with -c."
        )
    kept, given = store.fingerprint(), encoder.fingerprint
    differing = [] if kept is None else kept.differences(given)
    if differing or store.dense_model() != dense:
        made_with = "a model that it does not name" if kept is None else kept.describe(differing)
        raise ValueError(
            f"the collection {store.name!r} must be continued with the models that it was made with, {made_with} and "
            f"the dense model {store.dense_model()}, got {given.describe(differing)} and the dense model {dense}. "
            "Name the collection's models, or start again with --replace."
        )


def _check_settings(store: "Store", given: dict[str, Any]) -> None:
    """Raise ValueError if the collection was made with other settings. All its documents need the same settings."""

    def said(value: Any) -> str:
        return "not given" if value is None else repr(",".join(value)) if isinstance(value, list) else str(value)

    for name, made_with in store.settings().items():
        if given[name] != made_with:
            raise ValueError(
                f"--{name} must be the same as when the collection {store.name!r} was made ({said(made_with)}), got "
                f"{said(given[name])}. Change it, or start again with --replace."
            )


def _report(
    store: "Store", counts: "Counts", left_out: Mapping[str, int], texts: int | None, *, chunk: bool, as_json: bool
) -> None:
    _say_what_is_cut(counts.cut)
    if as_json:
        facts = {"added": counts.added, "already_there": counts.already_there, "cut": counts.cut}
        print_json({"collection": store.name, "uri": store.uri, **facts, "left_out": left_out})
    else:
        what = "chunks" if chunk else "documents"
        source = f" They come from {texts:,} texts." if chunk and texts is not None else ""
        added = f"{counts.added:,} {what} added, {counts.already_there:,} already in {store.name!r} of {store.uri}."
        stdout().print(
            added + source,
            markup=False,
            soft_wrap=True,
        )


def _say_what_is_cut(cut: int) -> None:
    if cut:
        complain(
            f"{cut:,} texts are longer than the 65,535 bytes that Milvus stores, so their ends are not stored. "
            "Cut them into chunks with --chunk."
        )
