"""The options that several commands share. Each option is declared only once.

Some options are declared one by one. Other options are the fields of a dataclass, which is called a group. A command
has one parameter for a whole group, and `with_groups` shows the group's fields to Typer as separate options. Apart from
modules of this package, only Typer is imported here, so help appears quickly.
"""

import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack, cast, get_type_hints

import typer

from splade_integrations.options import EncoderOptions

if TYPE_CHECKING:
    from splade_integrations.engine.compute import Backend
    from splade_integrations.pruning import Pruning
    from splade_integrations.records import Folder, Records

__all__ = [
    "CollectionName",
    "ComputeOptions",
    "DatabaseName",
    "DenseModel",
    "FieldNames",
    "Input",
    "InputFormat",
    "InputOptions",
    "Json",
    "Model",
    "ModelOptions",
    "Token",
    "Uri",
    "check_milvus_file",
    "field_names",
    "with_groups",
]

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="SPLADE model: a folder, a name on the hub, or the address of a splade serve server.",
        show_default=False,
    ),
]
DenseModel = Annotated[
    str | None,
    typer.Option(
        "--dense",
        help="Dense model of sentence-transformers for hybrid search: a folder, or a name on the hub.",
        show_default="none",
    ),
]
Input = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="A file of JSON lines, CSV or Parquet; a .txt, .md or .rst file; a folder of such text files; or - for "
        "lines from stdin.",
    ),
]
Uri = Annotated[
    str, typer.Option(help="Milvus file with a name that ends in .db, or Milvus server such as http://host:19530.")
]
Token = Annotated[
    str,
    typer.Option(
        help="Token of the Milvus server: user:password, or an API key.", envvar="MILVUS_TOKEN", show_default=False
    ),
]
DatabaseName = Annotated[
    str, typer.Option("--db-name", help="Database of the Milvus server.", show_default="the server's default")
]
CollectionName = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")]
FieldNames = Annotated[
    str | None,
    typer.Option(
        "--fields",
        help="For a collection that another package made: its fields, as text=body,dense=vector,sparse=splade.",
        show_default="found by name and type",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def check_milvus_file(uri: str) -> None:
    """Raise a FileNotFoundError if `uri` names a file that does not exist. This check does not import pymilvus."""
    if "://" not in uri and not Path(uri).exists():
        raise FileNotFoundError(f"{uri} must be a Milvus file, but it does not exist. Make it with: splade index.")


def field_names(stated: str | None) -> dict[str, str]:
    """Return the fields that the option --fields names, as {argument of `Schema`: name of a field}.

    Raises:
        ValueError: `stated` does not have the form of the example, or a word before an equals sign is not text, dense,
            sparse or bm25.

    Example:
        >>> field_names("text=body, sparse=splade")
        {'text_field': 'body', 'sparse_field': 'splade'}
    """
    named = {}
    for part in [] if stated is None else stated.split(","):
        kind, _, name = (piece.strip() for piece in part.partition("="))
        if kind not in ("text", "dense", "sparse", "bm25") or not name:
            raise ValueError(
                f"--fields must be like text=body,dense=vector,sparse=splade,bm25=words, got {stated!r}. Name the "
                "field after each equals sign."
            )
        named[f"{kind}_field"] = name
    return named


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """The options that say how a model runs on this machine."""

    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:n or mps.", rich_help_panel="Model")] = "auto"
    dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16, float16, or int8 on a CPU.", rich_help_panel="Model")
    ] = "auto"
    backend: Annotated[
        str, typer.Option(help="torch, or openvino on a CPU (fastest with --dtype int8).", rich_help_panel="Model")
    ] = "torch"
    threads: Annotated[
        int | None,
        typer.Option(
            help="Number of threads that compute on a CPU.",
            min=1,
            rich_help_panel="Model",
            show_default="one per core that this process may use",
        ),
    ] = None

    def for_encoder(self, **further: Unpack[EncoderOptions]) -> EncoderOptions:
        """Return these options and the `further` options as keywords for `SpladeEncoder`, which checks the values."""
        return {
            **further,
            "device": self.device,
            "dtype": self.dtype,
            "backend": cast("Backend", self.backend),
            "num_threads": self.threads,
        }

    def check_dtype(self, dtype: str) -> None:
        """Raise ValueError if the device does not exist, or if the backend does not support `dtype` on this device."""
        from splade_integrations.engine.compute import resolve_compute

        resolve_compute(self.device, dtype, cast("Backend", self.backend))


@dataclass(frozen=True, kw_only=True)
class ModelOptions(ComputeOptions):
    """The options that say how a model runs, how texts are cut, and how their vectors are pruned."""

    max_active_dims: Annotated[
        int | None,
        typer.Option(
            help="Number of heaviest terms to keep per text.",
            rich_help_panel="Model",
            show_default="the model's limit, if any",
        ),
    ] = None
    max_ratio: Annotated[
        float | None,
        typer.Option(
            help="Keep terms with at least this share of a text's largest weight, such as 0.1; 0 keeps all.",
            rich_help_panel="Model",
            show_default="the model's share, if any",
        ),
    ] = None
    max_length: Annotated[
        int | None,
        typer.Option(help="Cut texts to this number of tokens.", rich_help_panel="Model", show_default="the model's"),
    ] = None

    def for_encoder(self, **further: Unpack[EncoderOptions]) -> EncoderOptions:
        """Return these options and the `further` options as keywords for `SpladeEncoder`.

        The result does not contain `pruning()`, because some commands prune only documents, and others prune queries,
        too. A command passes its pruning in `further`.
        """
        return {**super().for_encoder(**further), "max_length": self.max_length}

    def pruning(self) -> "Pruning | None":
        """Return the pruning that the options ask for, or None to keep the model's own pruning."""
        from splade_integrations.pruning import Pruning

        if self.max_active_dims is None and self.max_ratio is None:
            return None
        return Pruning(max_active_dims=self.max_active_dims, max_ratio=self.max_ratio)


class InputFormat(StrEnum):
    """The format of an input file."""

    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"
    lines = "lines"


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """The options that say which format an input file has, and which of its fields hold the texts and the ids."""

    input_format: Annotated[
        InputFormat | None,
        typer.Option(
            help="Format of the input; lines means that each line is a text.",
            show_default="from the file's ending",
            rich_help_panel="Input",
        ),
    ] = None
    text_field: Annotated[str, typer.Option(help="Field or column that holds the text.", rich_help_panel="Input")] = (
        "text"
    )
    title_field: Annotated[
        str, typer.Option(help='Field to put before the text, if present; "" for none.', rich_help_panel="Input")
    ] = "title"
    id_field: Annotated[
        str | None,
        typer.Option(
            help="Field that holds the id.", show_default="_id or id, else the record's number", rich_help_panel="Input"
        ),
    ] = None

    def records(self, path: str, keep: Collection[str] | None = ()) -> "Records | Folder":
        """Return the records of a file or a folder, read according to these options.

        Args:
            path: The file or folder, or "-" for standard input.
            keep: The fields to keep as metadata, or None for all fields.
        Raises:
            ValueError: An option is given that has no meaning for a folder or a .txt, .md or .rst file.
        """
        from splade_integrations.records import DOCUMENT_ENDINGS, Folder, Records, format_of

        if self.input_format is None and (Path(path).is_dir() or Path(path).suffix.lower() in DOCUMENT_ENDINGS):
            self._check_for_documents(path)
            return Folder(path, keep)
        return Records(
            path,
            format_of(path) if self.input_format is None else self.input_format.value,
            text_field=self.text_field,
            title_field=self.title_field or None,
            id_field=self.id_field,
            keep=keep,
        )

    def _check_for_documents(self, path: str) -> None:
        for option in fields(self):
            if getattr(self, option.name) != option.default:
                raise ValueError(
                    f"--{option.name.replace('_', '-')} must not be given with a folder or a .txt, .md or .rst file, "
                    f"got it with {path}. Leave the option out. Each file is read as one text."
                )


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return a function that does the same as `command`, but has a parameter for each field of each group.

    Example:
        >>> @dataclass
        ... class Size:
        ...     width: int = 2
        ...     height: int = 3
        >>> def area(name: str, size: Size) -> None:
        ...     print(name, size.width * size.height)
        >>> str(inspect.signature(with_groups(area)))
        '(*, name: str, width: int = 2, height: int = 3)'
        >>> with_groups(area)(name="area", width=4, height=3)
        area 12
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        if not is_dataclass(hints[name]):
            parameters.append(_keyword(name, hints[name], parameter.default))
            continue
        groups[name] = hints[name]
        field_hints = get_type_hints(groups[name], include_extras=True)
        for option in fields(groups[name]):
            default = inspect.Parameter.empty if option.default is MISSING else option.default
            parameters.append(_keyword(option.name, field_hints[option.name], default))

    @wraps(command)
    def flat(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{option.name: values.pop(option.name) for option in fields(group)})
        command(**values)

    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return flat


def _keyword(name: str, hint: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hint, default=default)
