"""`splade search`: searches a collection by one or several kinds of vectors, and explains the hits with --explain."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from splade_integrations.cli.options import (
    CollectionName,
    ComputeOptions,
    DatabaseName,
    FieldNames,
    Json,
    Token,
    Uri,
    check_milvus_file,
    field_names,
)
from splade_integrations.cli.terminal import print_json, stdout

if TYPE_CHECKING:
    from splade_integrations.cli.milvus_store import Store
    from splade_integrations.encoder import SpladeEncoder
    from splade_integrations.fusion import Fusion
    from splade_integrations.models.fingerprint import Fingerprint
    from splade_integrations.models.spec import SpecialTerms

__all__ = ["load_query_encoder", "search"]


class Mode(StrEnum):
    """The kind of vectors to search. `hybrid` searches several kinds."""

    hybrid = "hybrid"
    dense = "dense"
    sparse = "sparse"
    bm25 = "bm25"


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The question.")],
    uri: Uri = "./splade.db",
    collection: CollectionName = "splade",
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="Kind of vectors to search. hybrid searches several kinds, and fuses the rankings as the collection "
            "states, or else by reciprocal rank.",
            show_default="hybrid if there are several kinds of vectors, else sparse",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Number of documents to return.")] = 5,
    expr: Annotated[str, typer.Option("--filter", help='Milvus filter, such as year > 2000 and id != "7".')] = "",
    why: Annotated[bool, typer.Option("--explain", help="Show why SPLADE finds each document.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="SPLADE model.", show_default="the collection's own")
    ] = None,
    dense: Annotated[str | None, typer.Option(help="Dense model.", show_default="the collection's own")] = None,
    token: Token = "",
    db_name: DatabaseName = "",
    fields: FieldNames = None,
    *,
    compute: ComputeOptions,
    as_json: Json = False,
) -> None:
    """Search a collection by one or several kinds of vectors.

    Hybrid search fuses the rankings by the fusion that "splade evaluate --fit --write" has stored in the collection. If
    no fusion is stored, it uses reciprocal rank fusion (k = 60) of all kinds of vectors.

    In --filter, id is the document's id, and any other name is a metadata key.

    The command also searches collections that other packages made. It finds the fields by their names and types.
    Use --fields to name the fields that it does not find.

    Examples:

      splade search "how do I cancel" --uri corpus.db --filter "year > 2000"

      splade search "how do I cancel" --uri corpus.db --mode sparse --explain
    """
    check_milvus_file(uri)
    from splade_integrations.cli.loading import load_dense_encoder
    from splade_integrations.cli.milvus_store import existing_store
    from splade_integrations.cli.tables import hits_table, print_explained
    from splade_integrations.sparse import to_dicts

    with existing_store(uri, collection, token, db_name, field_names(fields)) as store:
        dense_name = dense or store.dense_model()
        fusion = _choose_fusion(store, mode, dense_name)
        if why:
            _check_explainable(fusion)
        shown = fusion.sides[0] if len(fusion.sides) == 1 else "hybrid"
        encoder = load_query_encoder(store, model, compute, itself=why) if "sparse" in fusion.sides else None
        queries: dict[Any, Any] = {"bm25": query}
        if encoder is not None:
            queries["sparse"] = to_dicts(encoder.encode_queries([query]))[0]
        if "dense" in fusion.sides and dense_name is not None:
            queries["dense"] = load_dense_encoder(dense_name, device=compute.device).encode([query])[0]
        queries = {side: queries[side] for side in fusion.sides}
        hits = store.search(queries, fusion, k, expr)
        explanations, places = [], []
        if why and encoder is not None and hits:
            ids = [hit.id for hit in hits]
            explanations = encoder.explain_stored(
                query, [hit.text for hit in hits], store.stored_rows(ids, encoder.dim)
            )
            places = store.places(queries, ids, fusion, k, expr) if len(fusion.sides) > 1 else []
    if as_json:
        found = [
            {"rank": rank, "id": hit.id, "score": hit.score, "text": hit.text, "metadata": hit.metadata}
            for rank, hit in enumerate(hits, start=1)
        ]
        for entry, explanation in zip(found, explanations, strict=False):
            entry["explanation"] = explanation.to_dict()
        for entry, place in zip(found, places, strict=False):
            entry["sides"] = place
        print_json(found)
    elif not hits:
        hint = " A filter finds nothing if no document has the field that it names." if expr else ""
        stdout().print(f"Nothing found.{hint}")
    elif explanations:
        print_explained(stdout(), hits, explanations, places, shown)
    else:
        stdout().print(hits_table(hits, shown))


def _choose_fusion(store: "Store", mode: Mode | None, dense_name: str | None) -> "Fusion":
    """Return the fusion, which names the sides (kinds of vectors) to search.

    The dense side can be searched only if its model is known.
    """
    from splade_integrations.fusion import Fusion

    usable = tuple(side for side in store.sides if side != "dense" or dense_name is not None)
    if not usable:
        raise ValueError(
            f"a search needs a model for each kind of vectors, but the collection {store.name!r} has only dense "
            "vectors and does not name their model. Name it with --dense."
        )
    wanted = Fusion(sides=(mode.value,)) if mode not in (None, Mode.hybrid) and mode is not None else store.fusion
    missing = [side for side in wanted.sides if side not in usable]
    if missing and mode is None:  # without --mode, sides that cannot be searched are left out
        return Fusion(sides=usable)
    if missing or (mode is Mode.hybrid and len(usable) == 1):
        lacking = missing[0] if missing else "dense"
        raise ValueError(
            f"--mode {mode} needs {lacking} vectors, but {store.name!r} has none"
            + (" of a known model. Name the model with --dense, or use" if lacking in store.sides else ". Use")
            + f" --mode {usable[0]}."
        )
    return wanted


def _check_explainable(fusion: "Fusion") -> None:
    """Raise ValueError if a search does not use SPLADE, because only SPLADE's scores can be explained."""
    if "sparse" not in fusion.sides:
        raise ValueError(
            f"--explain must be given with a search that uses SPLADE, got a search by {' and '.join(fusion.sides)}. "
            "Give --mode sparse, or leave --explain out. Only SPLADE's scores can be explained by terms. To see how "
            'SPLADE scores a document that this search found, run: splade explain "QUERY" "TEXT" -m MODEL.'
        )


def load_query_encoder(
    store: "Store", model: str | None, compute: ComputeOptions, *, itself: bool = False
) -> "SpladeEncoder":
    """Load `model`. If `model` is None, load the model whose name the collection stores.

    Raises:
        ValueError: The model encodes queries differently from the collection's own model, or no model is known. Or
            `itself` is true and the model is the address of a server, which can encode but not explain.
    """
    from splade_integrations.cli.loading import load_encoder

    kept = store.fingerprint()
    name = model or (kept.model if kept is not None else None)
    if name is None:
        raise ValueError(
            f"the collection {store.name!r} does not say which model made it. Name the model with --model."
        )
    if kept is None:
        return load_encoder(name, compute.for_encoder(), itself=itself)
    options = compute.for_encoder(
        max_length=kept.max_length,
        document_pruning=kept.document_pruning,
        special_terms=cast("SpecialTerms | None", kept.special_terms),
    )
    encoder = load_encoder(name, options, itself=itself)
    _check_queries(kept, encoder.fingerprint)
    return encoder


def _check_queries(kept: "Fingerprint", given: "Fingerprint") -> None:
    """Raise ValueError if an encoder encodes queries differently from the collection's own encoder."""
    differing = kept.query_differences(given)
    if differing:
        advice = "Leave --model out" if "weights" in differing else "Search from Python with the same options"
        raise ValueError(
            f"the query's encoder must be the one that the collection was made with, {kept.describe(differing)}, got "
            f"{given.describe(differing)}. {advice}, or index again."
        )
