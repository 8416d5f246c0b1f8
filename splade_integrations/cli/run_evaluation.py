"""Runs `splade evaluate`: checks the options, loads the models, and prints, draws and writes the results.

The package `splade_integrations.evaluation` computes the results.
"""

import importlib.metadata
import json
import platform
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from splade_integrations.cli.loading import load_dense_encoder, load_encoder
from splade_integrations.cli.options import ModelOptions
from splade_integrations.cli.pictures import picture_format, pyplot_for_files
from splade_integrations.cli.progress import progress
from splade_integrations.cli.tables import comparison_tables, fit_table, sweep_table
from splade_integrations.cli.terminal import note, print_json, stdout
from splade_integrations.cli.writing import whole_file
from splade_integrations.errors import OptionalDependencyError
from splade_integrations.evaluation.compare import check_baseline, evaluate, system_names
from splade_integrations.evaluation.dataset import Dataset, load_dataset
from splade_integrations.evaluation.measures import MEASURES, check_measures
from splade_integrations.evaluation.results import Comparison
from splade_integrations.evaluation.retrievers import Bm25, Dense, DenseEncoder, Retriever, Splade, bm25_name
from splade_integrations.evaluation.sweep import SweepPoint, sweep
from splade_integrations.milvus.defaults import MOST_CANDIDATES
from splade_integrations.models.offline import dense_model_path, splade_model_path
from splade_integrations.options import EncoderOptions

if TYPE_CHECKING:
    from splade_integrations.encoder import SpladeEncoder

__all__ = ["Request", "run_evaluation"]

_PACKAGES = (
    "splade-integrations",
    "torch",
    "transformers",
    "bm25s",
    "sentence-transformers",
    "pymilvus",
    "milvus-lite",
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of `splade evaluate` that the user chose.

    Args:
        folders: Folders in BEIR layout.
        model: The SPLADE model. None means the demo's model.
        dense: The dense model. "none" means no dense model. None means all-MiniLM-L6-v2, from the demo's wheel if the
            wheel is installed, and otherwise from the hub.
        searches: ("exact",), ("milvus",), or both names.
        uri: A Milvus file or server. None means a temporary file.
        token: The server's token.
        candidates: The number of each retriever's hits that are fused.
        measures: Names of measures, as ir_measures spells them. None means `MEASURES`.
        baseline: The system to test the others against. None means BM25, or the first system if BM25 is missing.
        sweep_dims: The numbers of terms to prune documents to, such as "32,64,all". None tries only "all".
        sweep_dtype: The number types to try, such as "float32,bfloat16". None tries only the type in `model_options`.
            If `sweep_dims` and `sweep_dtype` are both None, there is no sweep.
        plot: The file name of the picture, or None for no picture.
        json_file: The file name of the JSON. "-" prints the JSON, and None writes none.
        model_options: How the models run, how texts are cut, and how documents are pruned.
        fit: Whether to choose the best fusion.
        write: The Milvus file or server with the collection to fit the fusion to, and to store it in. None stores none.
        collection: The name of this collection.
    """

    folders: list[Path]
    model: str | None
    dense: str | None
    searches: tuple[str, ...]
    uri: str | None
    token: str
    candidates: int
    measures: list[str] | None
    baseline: str | None
    sweep_dims: str | None
    sweep_dtype: str | None
    plot: str | None
    json_file: str | None
    model_options: ModelOptions
    fit: bool = False
    write: str | None = None
    collection: str = "splade"

    @property
    def quiet(self) -> bool:
        """Whether only JSON is printed."""
        return self.json_file == "-"

    def dense_name(self) -> str | None:
        """Return the name of the dense model, or None for no dense model."""
        if self.dense is not None:
            return None if self.dense == "none" else self.dense
        try:
            return dense_model_path()
        except OptionalDependencyError:
            return "sentence-transformers/all-MiniLM-L6-v2"

    def chosen_measures(self) -> list[str]:
        """Return the names of the measures."""
        return list(self.measures or MEASURES)


def run_evaluation(request: Request) -> None:
    """Evaluate each folder, and print, draw and write the results.

    Raises:
        ValueError: An option is wrong. All options are checked before a folder is read or a model is loaded.
    """
    _check(request)
    if request.write is not None:
        _fit_collection(request, request.write)
        return
    limits, dtypes = _limits(request.sweep_dims), _dtypes(request)
    pictures = _picture_names(request.plot, len(request.folders))
    datasets = [load_dataset(folder) for folder in request.folders]
    with ExitStack() as outputs:  # opened now, because hours of encoding would be lost if a file could not be written
        picture_files = [outputs.enter_context(whole_file(name)) for name in pictures]
        json_name = None if request.quiet else request.json_file
        json_out = None if json_name is None else outputs.enter_context(whole_file(json_name))
        model = request.model or splade_model_path()
        options = request.model_options
        encoder = load_encoder(model, options.for_encoder(document_pruning=options.pruning()))
        dense_encoder = _load_dense(request)
        versions, settings = _versions(), _settings(request, encoder)
        _show(request, *(_line(facts) for facts in (versions, settings)))
        reports = []
        for number, dataset in enumerate(datasets):
            comparisons = _compare(request, dataset, encoder, dense_encoder)
            points = _sweep(request, dataset, model, dtypes, limits)
            if picture_files:
                _draw(comparisons, points, picture_files[number], picture_format(pictures[number]))
            reports.append(
                {
                    "comparisons": [comparison.to_dict() for comparison in comparisons],
                    "sweep": [vars(point) for point in points],
                }
            )
        report = {"versions": versions, "settings": settings, "datasets": reports}
        if request.quiet:
            print_json(report)
        if json_out is not None:
            json_out.write((json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode())
    for name in [*pictures, *([] if json_name is None else [json_name])]:
        note(f"Written: {name}")


def _fit_collection(request: Request, uri: str) -> None:
    from splade_integrations.cli.fit_collection import fit_collection
    from splade_integrations.cli.milvus_store import Store
    from splade_integrations.cli.search import load_query_encoder

    [folder] = request.folders
    dataset = load_dataset(folder)
    options = request.model_options
    with closing(Store(uri, request.collection, request.token)) as store:
        if not store.exists():
            raise ValueError(
                f"the collection {request.collection!r} must be in {uri}, but it is not. Make it with: splade index."
            )
        encoder = load_query_encoder(store, request.model, options)
        dense = store.dense_model() if request.dense in (None, "none") else request.dense
        dense_encoder = None
        if dense is not None and request.dense != "none":
            dense_encoder = load_dense_encoder(dense, max_length=options.max_length, device=options.device)
        fitted = fit_collection(
            dataset,
            store,
            encoder,
            dense_encoder,
            measure=request.chosen_measures()[0],
            depth=request.candidates,
        )
    _show(request, f"{dataset.name}, the collection {request.collection!r} of {uri}", *fit_table(fitted))
    if request.quiet:
        print_json(fitted.to_dict())
    elif request.json_file is not None:
        with whole_file(request.json_file) as file:
            file.write((json.dumps(fitted.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())
    note(f"Stored in {request.collection!r}: {fitted.fusion}. Searches of this collection now follow it.")


def _check(request: Request) -> None:
    if not 1 <= request.candidates <= MOST_CANDIDATES:
        raise ValueError(
            f"--candidates must be from 1 to {MOST_CANDIDATES}, got {request.candidates}. Choose one in this range."
        )
    check_measures(request.chosen_measures())
    if request.write is not None and (not request.fit or len(request.folders) != 1):
        raise ValueError(
            "--write must be given with --fit and with one FOLDER, whose judged queries the fusion is fitted to, got "
            f"{len(request.folders)} folders{'' if request.fit else ' and no --fit'}."
        )
    dense = [] if request.dense_name() is None else [Dense.name]
    retrievers = [bm25_name(stemmed=False), bm25_name(stemmed=True), *dense, Splade.name]
    # Exact search has all systems that Milvus has, and others. Milvus's list is needed only without exact search.
    exact = "exact" in request.searches
    check_baseline(request.baseline, system_names(retrievers) if exact else _milvus_system_names(retrievers))


def _limits(stated: str | None) -> list[int | None]:
    """Return the numbers in a list such as "32,64,all", with None in place of "all"."""
    limits: list[int | None] = []
    for part in (stated or "all").split(","):
        if part.strip() == "all":
            limits.append(None)
        elif part.strip().isdecimal() and int(part) > 0:
            limits.append(int(part))
        else:
            raise ValueError(f'--sweep-dims must be like "32,64,all", got {stated!r}. Use numbers from 1, or all.')
    return limits


def _dtypes(request: Request) -> list[str]:
    """Return the number types that the sweep tries. Raise ValueError if the device does not support one of them."""
    names = [part.strip() for part in (request.sweep_dtype or request.model_options.dtype).split(",")]
    for name in names:
        request.model_options.check_dtype(name)
    return names


def _picture_names(plot: str | None, folders: int) -> list[str]:
    """Return one file name per folder, numbered if there are several folders. Raise ValueError on a wrong ending."""
    if plot is None:
        return []
    picture_format(plot)
    if folders == 1:
        return [plot]
    path = Path(plot)
    return [str(path.with_name(f"{path.stem}-{number}{path.suffix}")) for number in range(1, folders + 1)]


def _load_dense(request: Request) -> DenseEncoder | None:
    name, options = request.dense_name(), request.model_options
    return None if name is None else load_dense_encoder(name, max_length=options.max_length, device=options.device)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _settings(request: Request, encoder: "SpladeEncoder") -> dict[str, Any]:
    return {
        "splade_model": request.model or "SPLADE-tiny-msmarco (4.4 M parameters, for trying out)",
        "dense_model": "none" if request.dense_name() is None else request.dense or "all-MiniLM-L6-v2",
        "max_length": request.model_options.max_length,
        "device": str(encoder.device),
        "dtype": str(encoder.dtype).removeprefix("torch."),
    }


def _line(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())


def _show(request: Request, *found: Any) -> None:
    """Print each part of `found`. Print nothing if only JSON is wanted."""
    if not request.quiet:
        for part in found:
            stdout().print(part, markup=False)


def _compare(
    request: Request, dataset: Dataset, encoder: "SpladeEncoder", dense_encoder: DenseEncoder | None
) -> list[Comparison]:
    retrievers = _retrievers(dataset, encoder, dense_encoder)
    comparisons = []
    if "exact" in request.searches:
        comparisons.append(
            evaluate(
                dataset,
                retrievers,
                candidates=request.candidates,
                measures=request.chosen_measures(),
                baseline=request.baseline,
                fitted=request.fit,
            )
        )
    if "milvus" in request.searches:
        comparisons.append(_compare_in_milvus(request, dataset, retrievers))
    for comparison in comparisons:
        _show(request, *comparison_tables(comparison))
        if comparison.fit is not None:
            _show(request, *fit_table(comparison.fit))
    return comparisons


def _retrievers(dataset: Dataset, encoder: "SpladeEncoder", dense_encoder: DenseEncoder | None) -> list[Retriever]:
    documents = dataset.documents
    retrievers: list[Retriever] = [Bm25(documents, stemmed=False), Bm25(documents, stemmed=True)]
    if dense_encoder is not None:
        with progress(f"{dataset.name}: dense", len(documents)) as advance:
            retrievers.append(Dense(dense_encoder, documents, advance))
    with progress(f"{dataset.name}: SPLADE", len(documents)) as advance:
        retrievers.append(Splade(encoder, documents, advance))
    return retrievers


def _compare_in_milvus(request: Request, dataset: Dataset, retrievers: list[Retriever]) -> Comparison:
    from splade_integrations.evaluation.compare_milvus import evaluate_milvus

    names = _milvus_system_names([retriever.name for retriever in retrievers])
    with (
        tempfile.TemporaryDirectory() as folder,
        progress(f"{dataset.name}: Milvus", len(dataset.documents)) as advance,
    ):
        return evaluate_milvus(
            dataset,
            retrievers,
            uri=request.uri or str(Path(folder) / "evaluate.db"),
            token=request.token,
            candidates=request.candidates,
            measures=request.chosen_measures(),
            baseline=request.baseline
            if request.baseline in names
            else None,  # a baseline that only exact search has is replaced by the default one
            report=advance,
            fitted=request.fit,
        )


def _milvus_system_names(retrievers: Sequence[str]) -> list[str]:
    from splade_integrations.evaluation.compare_milvus import milvus_system_names

    return milvus_system_names(retrievers)


def _sweep(
    request: Request, dataset: Dataset, model: str, dtypes: list[str], limits: list[int | None]
) -> list[SweepPoint]:
    if not (request.sweep_dims or request.sweep_dtype):
        return []

    def load(dtype: str) -> "SpladeEncoder":
        options: EncoderOptions = {**request.model_options.for_encoder(), "dtype": dtype}
        return load_encoder(model, options)

    encoders = {dtype: (lambda dtype=dtype: load(dtype)) for dtype in dtypes}
    with progress(f"{dataset.name}: sweep", len(dataset.documents) * len(dtypes)) as advance:
        points = sweep(dataset, encoders, limits, measures=request.chosen_measures(), report=advance)
    _show(request, sweep_table(points))
    return points


def _draw(comparisons: list[Comparison], points: list[SweepPoint], file: IO[bytes], form: str) -> None:
    pyplot = pyplot_for_files()
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
