"""`splade explain`: why a document matches a query, on the screen, as JSON, as a picture or as a page."""

from pathlib import Path
from typing import Annotated

import typer

from splade_integrations.cli.options import (
    Backend,
    Device,
    Dtype,
    Json,
    MaxActiveDims,
    MaxLength,
    Model,
    load_encoder,
    pruning_to,
)
from splade_integrations.cli.terminal import note, print_json, stdout
from splade_integrations.cli.writing import whole_file
from splade_integrations.dependencies import require_extra

__all__ = ["explain"]


def explain(
    query: Annotated[str, typer.Argument(help="The query.")],
    document: Annotated[str, typer.Argument(help="The document; @FILE reads it from a file.")],
    model: Model,
    plot: Annotated[str | None, typer.Option(help="Draw it into a file: .png, .svg or .pdf.")] = None,
    html: Annotated[str | None, typer.Option(help="Write it as an HTML page.")] = None,
    max_active_dims: MaxActiveDims = None,
    max_length: MaxLength = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    backend: Backend = "torch",
    as_json: Json = False,
) -> None:
    """Show which terms a query and a document share, what each adds to the score, and the words they come from.

    [bold]Example[/bold]

      splade explain "who cracked enigma" "Alan Turing broke the cipher." -m prithivida/Splade_PP_en_v2
    """
    if document.startswith("@"):
        try:
            document = Path(document[1:]).read_text(encoding="utf-8")
        except UnicodeDecodeError as err:
            raise ValueError(f"{document[1:]} must be UTF-8, and is not: {err}. Convert it.") from err
    pruning = pruning_to(max_active_dims)
    encoder = load_encoder(
        model,
        max_length=max_length,
        device=device,
        dtype=dtype,
        backend=backend,
        query_pruning=pruning,
        document_pruning=pruning,
    )
    explanation = encoder.explain(query, document)
    if as_json:
        print_json(explanation.to_dict())
    else:
        stdout().print(explanation)
    if html is not None:
        with whole_file(html) as file:
            page = f"<!doctype html><meta charset=utf-8><title>splade explain</title>{explanation._repr_html_()}\n"
            file.write(page.encode())
        note(f"Page in {html}.")
    if plot is not None:
        with require_extra("evaluate", module="splade explain --plot"):
            import matplotlib
        matplotlib.use("agg")
        with whole_file(plot) as file:
            explanation.plot().figure.savefig(file, format=picture_format(plot), dpi=150)
        note(f"Picture in {plot}.")


def picture_format(path: str) -> str:
    """png, svg or pdf, as the name says.

    Raises:
        ValueError: It says none of them.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in {"png", "svg", "pdf"}:
        raise ValueError(f"--plot must end in .png, .svg or .pdf, got {path!r}. Rename it.")
    return suffix
