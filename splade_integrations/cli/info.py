"""`splade info`: what a model is, how it loads, and its licence, from its small files; no weights are loaded."""

import re
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from splade_integrations.cli.options import Json
from splade_integrations.cli.terminal import print_json, stdout
from splade_integrations.models.layouts import describe, stated_positions
from splade_integrations.models.repository import Repository, path_in

__all__ = ["info", "licence"]


def info(
    model: Annotated[str, typer.Argument(help="A folder, or a name on the hub.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.", show_default="main")] = None,
    as_json: Json = False,
) -> None:
    """Show what a model is: architecture, vocabulary, both sides, prompts, pruning, licence. Loads no weights.

    [bold]Example[/bold]

      splade info prithivida/Splade_PP_en_v2
    """
    repository = Repository(model, {"revision": revision})
    found = _facts(repository)
    if as_json:
        print_json(found)
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in found.items():
        table.add_row(Text(name.replace("_", " "), style="bold"), Text("not stated" if value is None else str(value)))
    stdout().print(table)


def licence(repository: Repository) -> str | None:
    """The licence that a repository's model card states, or None."""
    card = repository.path("README.md")
    if card is None:
        return None
    front = re.match(r"\ufeff?---\s*\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    stated = re.search(r"^licen[sc]e:\s*['\"]?([^'\"\n]+)", front.group(1), re.MULTILINE) if front else None
    return stated.group(1).strip() if stated else None


def _facts(repository: Repository) -> dict[str, Any]:
    description = describe(repository)
    document, query = description.document, description.query
    transformer = document.transformer or query.transformer
    config: dict[str, Any] = {}
    if transformer is not None:
        config = transformer.repository.json(path_in(transformer.folder, "config.json")) or {}
    same = document == query
    return {
        "model": repository.name,
        "licence": licence(repository),
        "architecture": ", ".join(config.get("architectures") or []) or None,
        "layers": config.get("num_hidden_layers", config.get("n_layers")),
        "hidden_size": config.get("hidden_size", config.get("dim")),
        "vocabulary": config.get("vocab_size"),
        "stored_as": config.get("dtype", config.get("torch_dtype")),
        "max_length": (transformer.max_length if transformer else None) or stated_positions(config),
        "documents": str(document),
        "queries": "as documents" if same else str(query),
        "max_active_dims": description.max_active_dims or "all",
        "special_terms": "kept" if description.special_terms == "keep" else "dropped",
    }
