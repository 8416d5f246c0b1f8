"""`splade add-sparse`: copies a collection, and adds SPLADE vectors to the copy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splade_integrations.cli.copying import connect, print_estimate, print_report, running
from splade_integrations.cli.options import DatabaseName, Json, Model, ModelOptions, Token, Uri
from splade_integrations.cli.ray_options import RayEncoding
from splade_integrations.dependencies import require_extra
from splade_integrations.options import EncoderOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from splade_integrations.milvus.clients import Connection
    from splade_integrations.sparse import SparseTextEncoder

__all__ = ["add_sparse"]


def add_sparse(
    collection: Annotated[
        str, typer.Option("--collection", "-c", help="Name or alias of the collection.", show_default=False)
    ],
    model: Model,
    uri: Uri = "./splade.db",
    text_field: Annotated[str, typer.Option(help="Field or dynamic key that holds the texts.")] = "text",
    sparse_field: Annotated[
        str | None, typer.Option(help="Name of the new field.", show_default="sparse, or a name that is free")
    ] = None,
    into: Annotated[str | None, typer.Option(help="Name of the new collection.", show_default="NAME_splade")] = None,
    token: Token = "",
    db_name: DatabaseName = "",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue an interrupted run, or compare an existing copy with the original again."
        ),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="At the end, drop the original and give its name to the new collection."),
    ] = False,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place", help="Add the field to the collection itself. Needs Milvus 3. So far not tested on a server."
        ),
    ] = False,
    rows_per_second: Annotated[
        float, typer.Option(help="With --in-place, the largest number of rows to update per second.", min=0.01)
    ] = 500.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print estimates of time and size.")] = False,
    *,
    model_options: ModelOptions,
    ray_options: RayEncoding,
    as_json: Json = False,
) -> None:
    """Copy a collection, and add SPLADE vectors to the copy.

    With SPLADE vectors, a collection of dense vectors is ready for hybrid search. Any program may have made it. The
    copy has the same keys, fields, vectors, partitions and properties as the original. The original stays as it is,
    and programs may go on writing to it. At the end, the command compares both collections, and copies what changed in
    the original meanwhile. If the original already has SPLADE vectors, the copy gets vectors of the given model
    instead.

    With --resume, the command deletes rows of the copy that the original does not have. With --ray, several processes
    encode the texts, and the command's own process reads and writes the rows.

    Examples:

      splade add-sparse --uri http://localhost:19530 -c documents -m prithivida/Splade_PP_en_v2

      splade add-sparse --uri my.db -c documents --text-field body -m MODEL --dry-run
    """
    if dry_run and (resume or replace):
        raise ValueError(
            "--dry-run must be given without --resume and --replace, got it with one of them. Leave out one of the two."
        )
    if in_place and (replace or dry_run or into is not None):
        raise ValueError(
            "--in-place must be given without --into, --replace and --dry-run, got it with one of them. Leave out one "
            "of the two. The three options are about a copy, but --in-place makes no copy."
        )
    if dry_run and ray_options.wanted:
        raise ValueError(
            "--dry-run must be given without --ray, got both. Leave one out. A dry run measures how long encoding "
            "takes in the command's own process."
        )
    ray_options.check()
    options = model_options.for_encoder(document_pruning=model_options.pruning())
    with connect(uri, token, db_name) as connection, _encoder(model, options, ray_options) as encoder:
        from splade_integrations.milvus import copying

        how: dict[str, Any] = {
            "text_field": text_field,
            "sparse_field": sparse_field,
            "text_of": _text_of(connection, collection, text_field),
        }
        if dry_run:
            estimate = copying.estimate_sparse(encoder, collection, connection, into=into, **how)
            print_estimate(estimate, as_json=as_json)
            return
        with running("Adding SPLADE vectors") as advance:
            how |= {"resume": resume, "advance": advance}
            if in_place:
                how["rows_per_second"] = rows_per_second
                report = copying.add_sparse_in_place(encoder, collection, connection, **how)
            else:
                encoders = ray_options.number_of_encoders() if ray_options.wanted else 1
                how["rows_at_once"] = encoders * copying.ROWS_AT_ONCE
                report = copying.add_sparse(encoder, collection, connection, into=into, replace=replace, **how)
    print_report(report, uri, as_json=as_json)


@contextmanager
def _encoder(model: str, options: EncoderOptions, how: RayEncoding) -> Iterator["SparseTextEncoder"]:
    """Load the encoder in this process or, with --ray, in several processes of Ray."""
    if not how.wanted:
        from splade_integrations.cli.loading import load_encoder

        yield load_encoder(model, options)
        return
    with require_extra("ray", module="splade add-sparse --ray"):
        from splade_integrations.ray import RayEncoder, connected

    with connected(how.ray_address):
        yield RayEncoder(
            model,
            actors=how.number_of_encoders(),
            rows_per_batch=how.rows_per_batch or (2048 if how.gpus else 512),
            num_gpus=how.gpus,
            **options,
        )


def _text_of(connection: "Connection", collection: str, text_field: str) -> "Callable[[Mapping[str, Any]], str] | None":
    """Return a function that makes the text to encode from a row. Return None if `text_field` already holds this text.

    Only a collection of LlamaIndex's nodes needs the function. In a row, a node's text is stored without its
    metadata, but its dense vector encodes both. So the function returns both.
    """
    from splade_integrations.milvus.copying import sample_row

    if not (sample_row(connection, collection) or {}).get("_node_content"):
        return None
    from splade_integrations.llama_index.nodes import text_to_embed

    return lambda row: text_to_embed(row, text_field)
