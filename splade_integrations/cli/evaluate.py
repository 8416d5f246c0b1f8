"""`splade evaluate`: retrieval quality and its cost on folders in BEIR layout. `run_evaluation` does the work."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from splade_integrations.cli.options import ModelOptions, Token

__all__ = ["evaluate"]


class Search(StrEnum):
    """Where the embeddings are searched."""

    exact = "exact"
    milvus = "milvus"
    both = "both"


@dataclass(frozen=True, kw_only=True)
class BothModelsOptions(ModelOptions):
    """`ModelOptions` with one length for the SPLADE model and the dense model, which makes them comparable."""

    max_length: Annotated[
        int, typer.Option(help="Most tokens of a text, for both models.", rich_help_panel="Model")
    ] = 256


def evaluate(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER…", help="Folders in BEIR layout.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="SPLADE model: a folder or hub name.",
            show_default="the demo's small one, if installed",
        ),
    ] = None,
    dense: Annotated[
        str | None,
        typer.Option(
            help='Dense model that sentence-transformers loads; "none" goes without.',
            show_default="all-MiniLM-L6-v2",
        ),
    ] = None,
    search: Annotated[Search, typer.Option(help="Exact search, a Milvus collection, or both.")] = Search.exact,
    uri: Annotated[
        str | None, typer.Option(help="Milvus file or server.", show_default="a milvus-lite file, removed afterwards")
    ] = None,
    token: Token = "",
    candidates: Annotated[int, typer.Option(help="Hits of each retriever that fusion sees.")] = 100,
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "--measure", help="A measure of ir_measures; repeat for more.", show_default="nDCG@10 R@100 MRR@10"
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="System to test the others against.", show_default="the last BM25")
    ] = None,
    sweep_dims: Annotated[
        str | None, typer.Option(help='Prunings to try, such as "32,64,128,all".', rich_help_panel="Sweep")
    ] = None,
    sweep_dtype: Annotated[
        str | None, typer.Option(help='Number types to try, such as "float32,bfloat16".', rich_help_panel="Sweep")
    ] = None,
    plot: Annotated[
        str | None, typer.Option(help="Picture of it: .png, .svg or .pdf.", rich_help_panel="Output")
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", help="JSON of everything; - prints it alone.", rich_help_panel="Output")
    ] = None,
    *,
    model_options: BothModelsOptions,
) -> None:
    """Measure how well BM25, dense, SPLADE and their fusions search.

    Each result has a confidence interval, a test against the baseline, and its costs. A folder holds corpus.jsonl,
    queries.jsonl and qrels.tsv. Fusion weights are chosen on a train split (qrels_train.tsv or qrels/train.tsv), if
    there is one, never on the queries that are reported.

    Examples:

      splade evaluate scifact --plot scifact.png

      splade evaluate scifact -m MODEL --search both --sweep-dims 64,128,256,all
    """
    from splade_integrations.cli.run_evaluation import Request, run_evaluation

    run_evaluation(
        Request(
            folders=folders,
            model=model,
            dense=dense,
            searches=("exact", "milvus") if search is Search.both else (search.value,),
            uri=uri,
            token=token,
            candidates=candidates,
            measures=measures,
            baseline=baseline,
            sweep_dims=sweep_dims,
            sweep_dtype=sweep_dtype,
            plot=plot,
            json_file=json_file,
            model_options=model_options,
        )
    )
