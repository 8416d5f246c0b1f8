"""Options that several commands share, and the encoder that they make."""

from typing import Annotated, Any

import typer

from splade_integrations.encoder import SpladeEncoder
from splade_integrations.sparse import Pruning

__all__ = [
    "Backend",
    "DenseModel",
    "Device",
    "Dtype",
    "Json",
    "MaxActiveDims",
    "MaxLength",
    "Model",
    "Token",
    "Uri",
    "load_encoder",
    "pruning_to",
]

Model = Annotated[
    str, typer.Option("--model", "-m", help="SPLADE model: a folder, or a name on the hub.", show_default=False)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:n or mps.", rich_help_panel="Model")]
Dtype = Annotated[
    str, typer.Option(help="auto, float32, bfloat16, float16, or int8 on a CPU.", rich_help_panel="Model")
]
Backend = Annotated[
    str, typer.Option(help="torch, or openvino on a CPU, fastest with --dtype int8.", rich_help_panel="Model")
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        help="Most tokens of a text; longer ones are cut.", rich_help_panel="Model", show_default="the model's"
    ),
]
MaxActiveDims = Annotated[
    int | None,
    typer.Option(help="Keep this many terms of a text, the heaviest.", rich_help_panel="Model", show_default="all"),
]
DenseModel = Annotated[
    str | None,
    typer.Option(
        "--dense",
        help="Dense model for the other side: a folder or hub name that sentence-transformers loads.",
        show_default="none",
    ),
]
Uri = Annotated[str, typer.Option(help="Milvus: a file that ends in .db, or http://host:19530.")]
Token = Annotated[
    str, typer.Option(help="Of a server: user:password, or a key.", envvar="MILVUS_TOKEN", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def load_encoder(model: str, **options: Any) -> SpladeEncoder:
    """The encoder of these options; those that are None are left to the model."""
    return SpladeEncoder(model, **{name: value for name, value in options.items() if value is not None})


def pruning_to(max_active_dims: int | None) -> Pruning | None:
    """What keeps so many terms of a text; None leaves it to the model."""
    return None if max_active_dims is None else Pruning(max_active_dims=max_active_dims)
