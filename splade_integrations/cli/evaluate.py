"""`splade evaluate`: retrieval quality and its cost on folders in BEIR layout, as tables, JSON and pictures."""

import importlib.metadata
import json
import platform
import tempfile
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from splade_integrations.cli.explain import picture_format
from splade_integrations.cli.options import Backend, Device, Dtype, MaxActiveDims, Token, load_encoder, pruning_to
from splade_integrations.cli.tables import comparison_tables, sweep_table
from splade_integrations.cli.terminal import note, print_json, progress, stdout
from splade_integrations.cli.writing import whole_file
from splade_integrations.dependencies import require_extra
from splade_integrations.encoder import SpladeEncoder
from splade_integrations.engine.compute import resolve_device, resolve_dtype
from splade_integrations.errors import OptionalDependencyError
from splade_integrations.evaluation.compare import Comparison, check_baseline, system_names
from splade_integrations.evaluation.compare import evaluate as compare
from splade_integrations.evaluation.dataset import Collection, load_collection
from splade_integrations.evaluation.measures import MEASURES, check_measures
from splade_integrations.evaluation.retrievers import Bm25, Dense, Retriever, Splade, bm25_name, load_dense
from splade_integrations.evaluation.sweep import SweepPoint, sweep
from splade_integrations.models.offline import dense_model_path, splade_model_path

__all__ = ["evaluate"]

_MOST_CANDIDATES = 16_384  # of a Milvus server; its settings are not imported for the sake of one number
_PACKAGES = (
    "splade-integrations",
    "torch",
    "transformers",
    "bm25s",
    "sentence-transformers",
    "pymilvus",
    "milvus-lite",
)


class Search(StrEnum):
    """Where the embeddings are searched."""

    exact = "exact"
    milvus = "milvus"
    both = "both"


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
    candidates: Annotated[int, typer.Option(help="Hits of each side that fusion sees.")] = 100,
    measures: Annotated[
        list[str] | None,
        typer.Option("--measure", help="A measure of ir_measures; repeat for more.", show_default=" ".join(MEASURES)),
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
        str | None, typer.Option("--json", help="JSON of everything; - prints it, alone.", rich_help_panel="Output")
    ] = None,
    max_length: Annotated[
        int, typer.Option(help="Most tokens of a text, for both models.", rich_help_panel="Model")
    ] = 256,
    max_active_dims: MaxActiveDims = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    backend: Backend = "torch",
) -> None:
    """Measure BM25, dense, SPLADE and their fusions on your own collection, with intervals, tests and costs.

    A folder holds corpus.jsonl, queries.jsonl and qrels.tsv. Fusion weights are chosen on a train split
    (qrels_train.tsv, qrels/train.tsv), if there is one, never on what is reported.

    [bold]Examples[/bold]

      splade evaluate scifact --plot scifact.png

      splade evaluate scifact -m prithivida/Splade_PP_en_v2 --search both --sweep-dims 64,128,256,all
    """
    if not 1 <= candidates <= _MOST_CANDIDATES:
        raise ValueError(f"--candidates must be from 1 to {_MOST_CANDIDATES}, got {candidates}. Name fewer.")
    chosen = list(measures or MEASURES)
    check_measures(chosen)
    limits, dtypes = _limits(sweep_dims), _dtypes(sweep_dtype, dtype, device, backend)
    dense_name = _dense_name(dense)
    check_baseline(baseline, _system_names(search, with_dense=dense_name is not None))
    pictures = [] if plot is None else [_picture_name(plot, n, len(folders)) for n in range(len(folders))]
    collections = [load_collection(folder) for folder in folders]
    with ExitStack() as outputs:  # opened first: hours of encoding end in a file that can be written
        files = [outputs.enter_context(whole_file(name)) for name in pictures]
        json_out = outputs.enter_context(whole_file(json_file)) if json_file not in (None, "-") else None
        splade_name = model or splade_model_path()
        options: dict[str, Any] = {"max_length": max_length, "device": device}
        pruning = pruning_to(max_active_dims)
        encoder = load_encoder(splade_name, dtype=dtype, backend=backend, document_pruning=pruning, **options)
        dense_encoder = None if dense_name is None else load_dense(dense_name, **options)
        settings = {
            "splade_model": model or "SPLADE-tiny-msmarco (4.4 M parameters, for trying out)",
            "dense_model": "none" if dense_name is None else dense or "all-MiniLM-L6-v2",
            "max_length": max_length,
            "device": str(encoder.device),
            "dtype": str(encoder.dtype).removeprefix("torch."),
        }
        versions = _versions()
        quiet = json_file == "-"
        screen = stdout()
        if not quiet:
            for facts in (versions, settings):
                screen.print(
                    ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()), markup=False
                )
        reports = []
        for number, collection in enumerate(collections):
            retrievers = _retrievers(collection, encoder, dense_encoder)
            comparisons = []
            shared: dict[str, Any] = {"candidates": candidates, "measures": chosen}
            if search is not Search.milvus:
                comparisons.append(compare(collection, retrievers, baseline=baseline, **shared))
            if search is not Search.exact:
                comparisons.append(_in_milvus(collection, retrievers, uri, token, baseline, shared))
            if not quiet:
                for comparison in comparisons:
                    for renderable in comparison_tables(comparison):
                        screen.print(renderable)
            points: list[SweepPoint] = []
            if sweep_dims or sweep_dtype:
                points = _sweep(collection, splade_name, dtypes, limits, {**options, "backend": backend}, chosen)
                if not quiet:
                    screen.print(sweep_table(points))
            if files:
                _draw(comparisons, points, files[number], picture_format(pictures[number]))
            reports.append(
                {
                    "comparisons": [comparison.to_dict() for comparison in comparisons],
                    "sweep": [vars(point) for point in points],
                }
            )
        written = {"versions": versions, "settings": settings, "collections": reports}
        if quiet:
            print_json(written)
        if json_out is not None:
            json_out.write((json.dumps(written, indent=2, ensure_ascii=False) + "\n").encode())
    for name in [*pictures, *([json_file] if json_out is not None and json_file else [])]:
        note(f"Written: {name}")


def _system_names(search: Search, *, with_dense: bool) -> list[str]:
    """Names of the systems that can be a baseline: all of Milvus's are of exact search, too."""
    dense = [Dense.name] if with_dense else []
    names = [bm25_name(stemmed=False), bm25_name(stemmed=True), *dense, Splade.name]
    return _milvus_system_names(names) if search is Search.milvus else system_names(names)


def _milvus_system_names(retrievers: list[str]) -> list[str]:
    from splade_integrations.evaluation.compare_milvus import milvus_system_names

    return milvus_system_names(retrievers)


def _retrievers(collection: Collection, encoder: SpladeEncoder, dense_encoder: Any) -> list[Retriever]:
    retrievers: list[Retriever] = [
        Bm25(collection.documents, stemmed=False),
        Bm25(collection.documents, stemmed=True),
    ]
    if dense_encoder is not None:
        with progress(f"{collection.name}: dense", len(collection.documents)) as advance:
            retrievers.append(Dense(dense_encoder, collection.documents, advance))
    with progress(f"{collection.name}: SPLADE", len(collection.documents)) as advance:
        retrievers.append(Splade(encoder, collection.documents, advance))
    return retrievers


def _in_milvus(
    collection: Collection,
    retrievers: list[Retriever],
    uri: str | None,
    token: str,
    baseline: str | None,
    shared: dict[str, Any],
) -> Comparison:
    from splade_integrations.evaluation.compare_milvus import evaluate_milvus

    with (
        tempfile.TemporaryDirectory() as folder,
        progress(f"{collection.name}: Milvus", len(collection.documents)) as advance,
    ):
        where = uri or str(Path(folder) / "evaluate.db")
        names = _milvus_system_names([retriever.name for retriever in retrievers])
        known = baseline if baseline in names else None  # of both searches, exact search alone may have it
        return evaluate_milvus(collection, retrievers, uri=where, token=token, baseline=known, report=advance, **shared)


def _sweep(
    collection: Collection,
    model: str,
    dtypes: list[str],
    limits: list[int | None],
    options: dict[str, Any],
    measures: list[str],
) -> list[SweepPoint]:
    encoders = {name: (lambda name=name: load_encoder(model, dtype=name, **options)) for name in dtypes}
    with progress(f"{collection.name}: sweep", len(collection.documents) * len(dtypes)) as advance:
        return sweep(collection, encoders, limits, measures=measures, report=advance)


def _draw(comparisons: list[Comparison], points: list[SweepPoint], file: Any, form: str) -> None:
    with require_extra("evaluate", module="splade evaluate --plot"):
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot
    from splade_integrations.evaluation.plots import plot_comparison, plot_sweep

    panels = len(comparisons) + bool(points)
    heights = [1.3 + 0.33 * len(comparison.systems) for comparison in comparisons] + ([4.5] if points else [])
    figure, axes = pyplot.subplots(
        panels, figsize=(8, sum(heights)), height_ratios=heights, layout="constrained", squeeze=False
    )
    for comparison, ax in zip(comparisons, axes[:, 0], strict=False):
        plot_comparison(comparison, ax)
    if points:
        plot_sweep(points, comparisons[0], axes[-1, 0])
    figure.savefig(file, format=form, dpi=150)
    pyplot.close(figure)


def _dense_name(dense: str | None) -> str | None:
    if dense == "none":
        return None
    if dense is not None:
        return dense
    try:
        return dense_model_path()
    except OptionalDependencyError:
        return "sentence-transformers/all-MiniLM-L6-v2"


def _limits(stated: str | None) -> list[int | None]:
    """The numbers of a list such as 32,64,all; None is all."""
    limits: list[int | None] = []
    for part in (stated or "all").split(","):
        if part.strip() == "all":
            limits.append(None)
        elif part.strip().isdecimal() and int(part) > 0:
            limits.append(int(part))
        else:
            raise ValueError(f'--sweep-dims must be like "32,64,all", got {stated!r}. Name numbers of 1 or more.')
    return limits


def _dtypes(stated: str | None, dtype: str, device: str, backend: Any) -> list[str]:
    """The number types of a list such as float32,bfloat16, each of which the device has."""
    names = [part.strip() for part in (stated or dtype).split(",")]
    for name in names:
        resolve_dtype(name, resolve_device(device, backend), backend)
    return names


def _picture_name(plot: str, number: int, folders: int) -> str:
    """The name of one folder's picture: numbered where there are several."""
    picture_format(plot)
    path = Path(plot)
    return plot if folders == 1 else str(path.with_name(f"{path.stem}-{number + 1}{path.suffix}"))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
