"""`splade encode`: encodes the texts of a file, and writes their sparse vectors to another file or to stdout."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from splade_integrations.cli.interrupting import saying_if_interrupted
from splade_integrations.cli.options import Input, InputOptions, Json, Model, ModelOptions
from splade_integrations.cli.terminal import note, print_json, say_what_is_left_out

if TYPE_CHECKING:
    from splade_integrations.cli.blocks import Block

__all__ = ["encode"]


def encode(
    input: Input,
    model: Model,
    output: Annotated[
        str, typer.Option("--output", "-o", help="File that ends in .npz, .parquet or .jsonl; - prints JSON lines.")
    ] = "-",
    queries: Annotated[bool, typer.Option("--queries", help="Encode the texts as queries, not as documents.")] = False,
    keep_text: Annotated[bool, typer.Option("--keep-text", help="Also write the text of each vector.")] = False,
    *,
    input_options: InputOptions,
    model_options: ModelOptions,
    as_json: Json = False,
) -> None:
    """Encode the texts of a file as sparse vectors.

    While the command runs, it keeps only the ids in memory, which take about 100 bytes per text. With .npz, it also
    keeps all vectors in memory. The output file appears only when it is complete.

    Examples:

      splade encode corpus.jsonl -m prithivida/Splade_PP_en_v2 -o corpus.npz

      head -3 notes.txt | splade encode - -m prithivida/Splade_PP_en_v2
    """
    from splade_integrations.cli.blocks import encode_blocks
    from splade_integrations.cli.loading import load_encoder
    from splade_integrations.cli.progress import progress
    from splade_integrations.cli.writing import whole_file, writer_of

    if as_json and output == "-":
        raise ValueError(
            "--json must be given with --output, got --json alone. Without --output, the vectors go to standard "
            "output, so the JSON summary cannot go there as well. Name an output file, or leave --json out."
        )
    write = writer_of(output)
    records = input_options.records(input)
    total = records.count()
    say_what_is_left_out(records)
    left = "the vectors on standard output may be incomplete." if output == "-" else f"{output} was not written."
    with saying_if_interrupted(lambda: left), whole_file(output) as file:
        pruning = model_options.pruning()
        encoder = load_encoder(model, model_options.for_encoder(query_pruning=pruning, document_pruning=pruning))
        terms = 0

        def counted(blocks: "Iterator[Block]") -> "Iterator[Block]":
            nonlocal terms
            for block in blocks:
                terms += block.weights.nnz
                yield block

        with progress("Encoding", total) as advance:
            blocks = encode_blocks(encoder, iter(records), queries=queries, advance=advance)
            count = write(file, counted(blocks), keep_text=keep_text)
    summary = {
        "output": output,
        "texts": count,
        "dim": encoder.dim,
        "active_dims": round(terms / max(count, 1), 1),
        "model": model,
    }
    if as_json:
        print_json(summary)
    else:
        note(f"{count:,} texts, {summary['active_dims']} terms each on average, written to {output}.")
