"""`splade encode`: texts of a file to sparse vectors in a file, in memory that grows by no more than their ids."""

from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import islice
from typing import Annotated

import typer
from scipy.sparse import csr_array

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
from splade_integrations.cli.terminal import note, print_json, progress
from splade_integrations.cli.writing import Block, whole_file, writer_of
from splade_integrations.encoder import SpladeEncoder
from splade_integrations.records import Record, Records, format_of

__all__ = ["InputFormat", "encode", "encode_blocks", "records_of"]

_QUERIES_AT_ONCE = 512


class InputFormat(StrEnum):
    """How the input is written."""

    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"
    lines = "lines"


Input = Annotated[
    str, typer.Argument(metavar="INPUT", help="JSON lines, CSV, Parquet, or lines; - reads lines from stdin.")
]
InputFormatOption = Annotated[
    InputFormat | None, typer.Option(show_default="by the name's ending", rich_help_panel="Input")
]
TextField = Annotated[str, typer.Option(help="Field, or column, of the text.", rich_help_panel="Input")]
TitleField = Annotated[
    str, typer.Option(help='Field put before the text, where there is one; "" puts none.', rich_help_panel="Input")
]
IdField = Annotated[
    str | None,
    typer.Option(help="Field of the id.", show_default="_id or id, else the number", rich_help_panel="Input"),
]


def encode(
    input: Input,
    model: Model,
    output: Annotated[
        str, typer.Option("--output", "-o", help="Ends in .npz, .parquet or .jsonl; - prints JSON lines.")
    ] = "-",
    queries: Annotated[bool, typer.Option("--queries", help="Encode as queries, not as documents.")] = False,
    keep_text: Annotated[bool, typer.Option("--keep-text", help="Write the text beside its vector.")] = False,
    input_format: InputFormatOption = None,
    text_field: TextField = "text",
    title_field: TitleField = "title",
    id_field: IdField = None,
    max_active_dims: MaxActiveDims = None,
    max_length: MaxLength = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    backend: Backend = "torch",
    as_json: Json = False,
) -> None:
    """Encode the texts of a file as sparse vectors.

    Memory grows by the ids alone, some 100 bytes a text; .npz holds its matrix. The output takes its name once whole.

    [bold]Examples[/bold]

      splade encode corpus.jsonl -m prithivida/Splade_PP_en_v2 -o vectors.parquet

      head -3 notes.txt | splade encode - -m prithivida/Splade_PP_en_v2
    """
    write = writer_of(output)
    records = records_of(input, input_format, text_field, title_field, id_field)
    total = records.count()
    with whole_file(output) as file:
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
        terms = 0
        with progress("Encoding", total) as advance:

            def counted() -> Iterator[Block]:
                nonlocal terms
                for block in encode_blocks(encoder, iter(records), queries=queries, advance=advance):
                    terms += block.weights.nnz
                    yield block

            count = write(file, counted(), keep_text=keep_text)
    summary = {
        "output": output,
        "texts": count,
        "dim": encoder.dim,
        "active_dims": round(terms / max(count, 1), 1),
        "model": model,
    }
    if as_json and output != "-":
        print_json(summary)
    else:
        note(f"{count:,} texts, {summary['active_dims']} terms each on average, in {output}.")


def records_of(
    path: str, input_format: InputFormat | None, text_field: str, title_field: str, id_field: str | None
) -> Records:
    """The records of a file, as the options say."""
    return Records(
        path,
        format_of(path) if input_format is None else input_format.value,
        text_field=text_field,
        title_field=title_field or None,
        id_field=id_field,
    )


def encode_blocks(
    encoder: SpladeEncoder,
    records: Iterator[Record],
    *,
    queries: bool = False,
    advance: Callable[[int], object] = lambda _: None,
    block_rows: int | None = None,
) -> Iterator[Block]:
    """Records to blocks of rows, in order, in bounded memory.

    Args:
        encoder: The encoder.
        records: The texts.
        queries: Whether they are queries.
        advance: Told how many more texts are done.
        block_rows: Rows of a block. None leaves that to the encoder, and is 512 for queries.
    """
    waiting: deque[Record] = deque()

    def texts() -> Iterator[str]:
        for record in records:
            waiting.append(record)
            yield record.text

    matrices: Iterator[csr_array]
    if queries:
        source = texts()
        matrices = (
            encoder.encode_queries(window, show_progress=advance)
            for window in iter(lambda: list(islice(source, block_rows or _QUERIES_AT_ONCE)), [])
        )
    else:
        matrices = encoder.stream_documents(texts(), show_progress=advance, block_rows=block_rows)
    for matrix in matrices:
        taken = [waiting.popleft() for _ in range(matrix.shape[0])]
        yield Block([record.id for record in taken], [record.text for record in taken], matrix)
