"""`splade search`: ask a collection that `splade index` filled, by its dense side, by SPLADE, or by both."""

from dataclasses import fields
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from splade_integrations.cli.options import Backend, Device, Dtype, Json, Token, Uri, load_encoder
from splade_integrations.cli.terminal import print_json, stdout
from splade_integrations.models.fingerprint import Fingerprint, differences, name_of
from splade_integrations.sparse import Pruning, to_dicts

__all__ = ["search"]


class Mode(StrEnum):
    """Which side is asked."""

    hybrid = "hybrid"
    dense = "dense"
    sparse = "sparse"


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The question.")],
    uri: Uri = "./splade.db",
    collection: Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")] = "splade",
    mode: Annotated[
        Mode | None, typer.Option(help="hybrid fuses both sides by rank.", show_default="hybrid if it has a dense side")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many documents.")] = 5,
    expr: Annotated[str, typer.Option("--filter", help='Milvus filter, such as pk != "7".')] = "",
    why: Annotated[bool, typer.Option("--explain", help="Show why each document matches.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="SPLADE model.", show_default="the collection's own")
    ] = None,
    dense: Annotated[str | None, typer.Option(help="Dense model.", show_default="the collection's own")] = None,
    token: Token = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    backend: Backend = "torch",
    as_json: Json = False,
) -> None:
    """Search a collection: dense, sparse, or both fused by reciprocal rank.

    [bold]Examples[/bold]

      splade search "how do I cancel" --uri corpus.db

      splade search "how do I cancel" --uri corpus.db --mode sparse --explain
    """
    from splade_integrations.cli.milvus_store import Store

    if "://" not in uri and not _is_there(uri):
        raise FileNotFoundError(f"{uri} must be a Milvus file, and is not there. Make one by: splade index.")
    store = Store(uri, collection, token)
    try:
        if not store.exists():
            raise ValueError(f"the collection {collection!r} must be in {uri}, and is not. Make it by: splade index.")
        kept = store.fingerprint() or {}
        splade_name, dense_name = model or kept.get("model"), dense or store.dense_model()
        has_dense = "dense" in store.fields() and dense_name is not None
        chosen = mode or (Mode.hybrid if has_dense else Mode.sparse)
        if chosen is not Mode.sparse and not has_dense:
            raise ValueError(f"--mode {chosen} needs a dense side, and {collection!r} has none. Use --mode sparse.")
        encoder = None
        if chosen is not Mode.dense or why:
            if splade_name is None:
                raise ValueError(f"the collection {collection!r} does not say which model made it. Name it by --model.")
            encoder = load_encoder(
                splade_name,
                max_length=kept.get("max_length"),
                device=device,
                dtype=dtype,
                backend=backend,
                document_pruning=_kept_pruning(kept),  # explanations then sum to the score
            )
            _check_query_side(kept, encoder.fingerprint)
        terms = to_dicts(encoder.encode_queries([query]))[0] if encoder is not None else None
        vector = None
        if chosen is not Mode.sparse:
            vector = _dense_query(dense_name or "", query, device)
        hits = store.search(chosen.value, terms, vector, k, expr)
    finally:
        store.close()
    explanations = [encoder.explain(query, hit.text) if why and encoder is not None else None for hit in hits]
    if as_json:
        print_json(
            [
                {"rank": rank, "id": hit.id, "score": hit.score, "text": hit.text}
                | ({"explanation": explanation.to_dict()} if explanation is not None else {})
                for rank, (hit, explanation) in enumerate(zip(hits, explanations, strict=True), start=1)
            ]
        )
        return
    _show(hits, explanations, chosen)


def _show(hits: list[Any], explanations: list[Any], mode: Mode) -> None:
    screen = stdout()
    if not hits:
        screen.print("Nothing found.")
        return
    if any(explanation is not None for explanation in explanations):
        for rank, (hit, explanation) in enumerate(zip(hits, explanations, strict=True), start=1):
            screen.rule(Text(f"{rank}. {hit.id}  ({mode} score {hit.score:.4f})"), align="left")
            screen.print(explanation)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", justify="right")
    table.add_column(f"{mode} score", justify="right", no_wrap=True)
    table.add_column("id", overflow="fold")
    table.add_column("text", overflow="fold", ratio=1)
    for rank, hit in enumerate(hits, start=1):
        text = " ".join(hit.text.split())
        table.add_row(str(rank), f"{hit.score:.4f}", Text(hit.id), Text(text if len(text) <= 160 else text[:159] + "…"))
    screen.print(table)


def _kept_pruning(kept: Fingerprint) -> Pruning | None:
    """How the collection's documents were pruned; None where it does not say."""
    rules = {
        field.name: kept[f"document_{field.name}"] for field in fields(Pruning) if f"document_{field.name}" in kept
    }
    return Pruning(**rules) if rules else None


def _check_query_side(kept: Fingerprint, given: Fingerprint) -> None:
    """Refuse an encoder whose queries do not fit; how documents were cut and pruned is no matter of a query."""
    differing = [
        key for key in differences(kept, given) if key in ("weights", "special_terms") or key.startswith("query_")
    ]
    if kept and differing:
        advice = "Leave --model out" if "weights" in differing else "Search from Python with the same options"
        raise ValueError(
            f"the query's encoder must be the one that the collection was made by, {name_of(kept, differing)}, got "
            f"{name_of(given, differing)}. {advice}, or index anew."
        )


def _dense_query(name: str, query: str, device: str) -> Any:
    from splade_integrations.evaluation.retrievers import load_dense

    return load_dense(name, device=device).encode([query])[0]


def _is_there(uri: str) -> bool:
    from pathlib import Path

    return Path(uri).exists()
