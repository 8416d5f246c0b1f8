"""`splade explain`: shows why a document matches a query, on the screen, as JSON, as a picture or as an HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from splade_integrations.cli.options import Json, Model, ModelOptions
from splade_integrations.cli.terminal import note, print_json, stdout

__all__ = ["explain"]


def explain(
    query: Annotated[str, typer.Argument(help="The query.")],
    document: Annotated[str, typer.Argument(help="The text of the document, or @FILE to read it from a file.")],
    model: Model,
    plot: Annotated[str | None, typer.Option(help="Draw the explanation to a file: .png, .svg or .pdf.")] = None,
    html: Annotated[str | None, typer.Option(help="Write the explanation as an HTML page.")] = None,
    *,
    model_options: ModelOptions,
    as_json: Json = False,
) -> None:
    """Show why a document matches a query.

    The output shows the terms that the query and the document share, what each term adds to the score, and which words
    the terms come from.

    Example:

      splade explain "how do I cancel" @page.txt -m prithivida/Splade_PP_en_v2
    """
    from splade_integrations.cli.loading import load_encoder
    from splade_integrations.cli.pictures import picture_format, pyplot_for_files
    from splade_integrations.cli.writing import whole_file

    if document.startswith("@"):
        document = _read(Path(document[1:]))
    pruning = model_options.pruning()
    encoder = load_encoder(
        model, model_options.for_encoder(query_pruning=pruning, document_pruning=pruning), itself=True
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
        note(f"Written: {html}")
    if plot is not None:
        pyplot_for_files()
        with whole_file(plot) as file:
            explanation.plot().figure.savefig(file, format=picture_format(plot), dpi=150)
        note(f"Written: {plot}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise ValueError(f"{path} must be UTF-8, but decoding fails: {err}. Convert the file to UTF-8.") from err
