"""`splade evaluate`: measures retrieval quality and cost on folders in BEIR layout.

This module declares the options. `run_evaluation` does the work.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from splade_integrations.cli.options import DatabaseName, FieldNames, Json, ModelOptions, Token

__all__ = ["evaluate"]


class Search(StrEnum):
    """The kinds of search to evaluate."""

    exact = "exact"
    milvus = "milvus"
    both = "both"


@dataclass(frozen=True, kw_only=True)
class BothModelsOptions(ModelOptions):
    """`ModelOptions` with one `max_length` for both the SPLADE and the dense model."""

    max_length: Annotated[
        int, typer.Option(help="Number of tokens that texts are cut to, for both models.", rich_help_panel="Model")
    ] = 256


def evaluate(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER…", help="Folders in BEIR layout.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="SPLADE model: a folder or hub name.",
            show_default="the demo's small model, if installed",
        ),
    ] = None,
    dense: Annotated[
        str | None,
        typer.Option(
            help='Dense model of sentence-transformers; "none" for no dense model.',
            show_default="all-MiniLM-L6-v2",
        ),
    ] = None,
    search: Annotated[Search, typer.Option(help="Use exact search, a Milvus collection, or both.")] = Search.exact,
    uri: Annotated[
        str | None, typer.Option(help="Milvus file or server.", show_default="a temporary milvus-lite file")
    ] = None,
    token: Token = "",
    db_name: DatabaseName = "",
    candidates: Annotated[int, typer.Option(help="How many hits of each retriever are fused.")] = 100,
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            help="Measure, as ir_measures spells it; repeat the option for more measures.",
            show_default="nDCG@10 R@100 MRR@10",
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Retriever or fusion to test the others against.", show_default="BM25")
    ] = None,
    sweep_dims: Annotated[
        str | None,
        typer.Option(
            help='Prunings of documents to try, such as "64,0.9,0.1max,all". 64 keeps the 64 heaviest terms. 0.9 keeps '
            "the heaviest terms that together hold 0.9 of a text's weight. 0.1max keeps terms with at least 0.1 of a "
            "text's largest weight.",
            rich_help_panel="Sweep",
        ),
    ] = None,
    sweep_dtype: Annotated[
        str | None, typer.Option(help='Number types to try, such as "float32,bfloat16".', rich_help_panel="Sweep")
    ] = None,
    sweep_queries: Annotated[
        str | None,
        typer.Option(
            help='Prunings of queries to try, such as "8,16,0.9,all", written as in --sweep-dims.',
            rich_help_panel="Sweep",
        ),
    ] = None,
    made_queries: Annotated[
        bool, typer.Option("--made-queries", help="Make queries from the documents' own sentences.")
    ] = False,
    fit: Annotated[
        bool, typer.Option("--fit", help="Choose which retrievers to fuse, and by what rule.", rich_help_panel="Fit")
    ] = False,
    write: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Fit a fusion to a collection of this Milvus file or server, and store the fusion in the collection.",
            rich_help_panel="Fit",
        ),
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection",
            "-c",
            help="Name of the collection for --write.",
            show_default="splade",
            rich_help_panel="Fit",
        ),
    ] = None,
    fields: FieldNames = None,
    plot: Annotated[
        str | None, typer.Option(help="Draw the results to a file: .png, .svg or .pdf.", rich_help_panel="Output")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Write the results to a JSON file.", rich_help_panel="Output")
    ] = None,
    *,
    model_options: BothModelsOptions,
    as_json: Json = False,
) -> None:
    """Measure retrieval by BM25, a dense model, SPLADE and fusions.

    A folder in BEIR layout holds corpus.jsonl, queries.jsonl and qrels.tsv. The first table shows the quality of each
    retriever and fusion, with a confidence interval and a significance test against the baseline. The second table
    shows the costs.

    A fusion by weights adds up the weighted scores of several retrievers. If the folder has a train split
    (qrels_train.tsv or qrels/train.tsv), the weights are chosen on the queries of this split, and no results are
    reported for these queries. Without a train split, the weights are equal.

    --fit chooses one retriever or a fusion. The choice is made on the train split. Without a train split, the choice is
    made on all queries, and cross-validation measures how good this choice is. With --write, the choice is made for a
    Milvus collection, and is saved in this collection. "splade search" and this package's stores then use the saved
    choice. The collection may come from any package, but its ids must be the ids of the folder's documents.

    --made-queries is for a folder without judged queries, so only corpus.jsonl is read. A made query is a sentence that
    is taken out of a document. The right answer to the query is this document. Such queries reveal a retriever that is
    far behind the others. They cannot tell which of several good retrievers is the best.

    Examples:

      splade evaluate scifact --plot scifact.png

      splade evaluate scifact -m MODEL --search both --sweep-dims 64,128,256,all

      splade evaluate scifact --fit --write corpus.db
    """
    from splade_integrations.cli.evaluation_request import Request
    from splade_integrations.cli.run_evaluation import run_evaluation

    run_evaluation(
        Request(
            folders=folders,
            model=model,
            dense=dense,
            searches=("exact", "milvus") if search is Search.both else (search.value,),
            uri=uri,
            token=token,
            db_name=db_name,
            candidates=candidates,
            measures=measures,
            baseline=baseline,
            sweep_dims=sweep_dims,
            sweep_dtype=sweep_dtype,
            sweep_queries=sweep_queries,
            plot=plot,
            output=output,
            as_json=as_json,
            model_options=model_options,
            made_queries=made_queries,
            fit=fit,
            write=write,
            collection=collection,
            fields=fields,
        )
    )
