"""`splade search`: searches a collection that `splade index` filled, by dense vectors, by SPLADE, or by both."""

from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splade_integrations.cli.options import CollectionName, ComputeOptions, Json, Token, Uri
from splade_integrations.cli.terminal import print_json, stdout

if TYPE_CHECKING:
    from splade_integrations.cli.milvus_store import Store
    from splade_integrations.encoder import SpladeEncoder
    from splade_integrations.models.fingerprint import Fingerprint

__all__ = ["search"]


class Mode(StrEnum):
    """Which vectors of a collection are searched."""

    hybrid = "hybrid"
    dense = "dense"
    sparse = "sparse"


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The question.")],
    uri: Uri = "./splade.db",
    collection: CollectionName = "splade",
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="hybrid fuses the dense and the sparse ranking.",
            show_default="hybrid if there are dense vectors, else sparse",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Number of documents to return.")] = 5,
    expr: Annotated[str, typer.Option("--filter", help='Milvus filter, such as pk != "7".')] = "",
    why: Annotated[bool, typer.Option("--explain", help="Show why each document matches.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="SPLADE model.", show_default="the collection's own")
    ] = None,
    dense: Annotated[str | None, typer.Option(help="Dense model.", show_default="the collection's own")] = None,
    token: Token = "",
    *,
    compute: ComputeOptions,
    as_json: Json = False,
) -> None:
    """Search a collection by dense or sparse vectors, or by both.

    Hybrid search fuses both rankings by reciprocal rank fusion (k = 60).

    Examples:

      splade search "how do I cancel" --uri corpus.db

      splade search "how do I cancel" --uri corpus.db --mode sparse --explain
    """
    if "://" not in uri and not Path(uri).exists():
        raise FileNotFoundError(f"{uri} must be a Milvus file, but it does not exist. Make it with: splade index.")
    from splade_integrations.cli.loading import load_dense_encoder
    from splade_integrations.cli.milvus_store import Store
    from splade_integrations.cli.tables import hits_table, print_explained
    from splade_integrations.sparse import to_dicts

    with closing(Store(uri, collection, token)) as store:
        if not store.exists():
            raise ValueError(
                f"the collection {collection!r} must be in {uri}, but it is not. Make it with: splade index."
            )
        dense_name = dense or store.dense_model()
        chosen = _choose_mode(store, mode, dense_name)
        encoder = None
        if chosen is not Mode.dense or why:
            encoder = _load_encoder(store, model, compute)
        terms = None if encoder is None else to_dicts(encoder.encode_queries([query]))[0]
        vector = None
        if chosen is not Mode.sparse and dense_name is not None:
            vector = load_dense_encoder(dense_name, device=compute.device).encode([query])[0]
        hits = store.search(chosen.value, terms, vector, k, expr)
    explanations = [encoder.explain(query, hit.text) for hit in hits] if why and encoder is not None else []
    if as_json:
        found = [
            {"rank": rank, "id": hit.id, "score": hit.score, "text": hit.text} for rank, hit in enumerate(hits, start=1)
        ]
        for entry, explanation in zip(found, explanations, strict=False):
            entry["explanation"] = explanation.to_dict()
        print_json(found)
    elif not hits:
        stdout().print("Nothing found.")
    elif explanations:
        print_explained(stdout(), hits, explanations, chosen.value)
    else:
        stdout().print(hits_table(hits, chosen.value))


def _choose_mode(store: "Store", mode: Mode | None, dense_name: str | None) -> Mode:
    has_dense = "dense" in store.fields() and dense_name is not None
    chosen = mode or (Mode.hybrid if has_dense else Mode.sparse)
    if chosen is not Mode.sparse and not has_dense:
        raise ValueError(f"--mode {chosen} needs dense vectors, but {store.name!r} has none. Use --mode sparse.")
    return chosen


def _load_encoder(store: "Store", model: str | None, compute: ComputeOptions) -> "SpladeEncoder":
    """Load `model`, or the model that the collection names. Refuse a model whose queries do not fit the collection."""
    from splade_integrations.cli.loading import load_encoder

    kept = store.fingerprint()
    name = model or (kept.model if kept is not None else None)
    if name is None:
        raise ValueError(
            f"the collection {store.name!r} does not say which model made it. Name the model with --model."
        )
    if kept is None:
        return load_encoder(name, compute.for_encoder())
    # --explain encodes the found documents again. They must be cut and pruned as they were for the collection.
    # Otherwise an explanation would not add up to the score.
    options = compute.for_encoder(max_length=kept.max_length, document_pruning=kept.document_pruning)
    encoder = load_encoder(name, options)
    _check_queries(kept, encoder.fingerprint)
    return encoder


def _check_queries(kept: "Fingerprint", given: "Fingerprint") -> None:
    """Raise ValueError if an encoder encodes queries differently from the collection's own encoder."""
    differing = kept.query_differences(given)
    if differing:
        advice = "Leave --model out" if "weights" in differing else "Search from Python with the same options"
        raise ValueError(
            f"the query's encoder must be the one that the collection was made with: {kept.describe(differing)}; got "
            f"{given.describe(differing)}. {advice}, or index again."
        )
