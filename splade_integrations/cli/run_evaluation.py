"""What `splade evaluate` does: checks its options, loads models, compares, sweeps, and prints, draws and writes.

The figures come from `splade_integrations.evaluation`; nothing is computed here.
"""

import importlib.metadata
import json
import platform
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from splade_integrations.cli.loading import load_dense_encoder, load_encoder
from splade_integrations.cli.options import ModelOptions
from splade_integrations.cli.pictures import picture_format, pyplot_for_files
from splade_integrations.cli.progress import progress
from splade_integrations.cli.tables import comparison_tables, sweep_table
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
    """What the user asked for: the options of `splade evaluate`.

    Args:
        folders: In BEIR layout.
        model: The SPLADE model; None is the demo's.
        dense: The dense model; None is the demo's or the hub's all-MiniLM-L6-v2, "none" goes without.
        searches: "exact", "milvus", or both.
        uri: A Milvus file or server; None is a temporary file.
        token: Of a server.
        candidates: Hits of each retriever that fusion sees.
        measures: Names of ir_measures; None is `MEASURES`.
        baseline: The system to test the others against, or None.
        sweep_dims: Prunings to try, such as "32,64,all", or None.
        sweep_dtype: Number types to try, such as "float32,bfloat16", or None.
        plot: Name of the picture, or None.
        json_file: Name of the JSON file; "-" prints it, None does without.
        model_options: How the models run, and how texts are cut and pruned.
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

    @property
    def quiet(self) -> bool:
        """Whether JSON alone is printed."""
        return self.json_file == "-"

    def dense_name(self) -> str | None:
        """Return the name of the dense model, or None to go without."""
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
    """Evaluate each folder, and print, draw and write what was found.

    Raises:
        ValueError: An option is wrong. All are checked before a folder is read or a model is loaded.
    """
    _check(request)
    limits, dtypes = _limits(request.sweep_dims), _dtypes(request)
    pictures = _picture_names(request.plot, len(request.folders))
    datasets = [load_dataset(folder) for folder in request.folders]
    with ExitStack() as outputs:  # opened first, so that hours of encoding end in files that can be written
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


def _check(request: Request) -> None:
    if not 1 <= request.candidates <= MOST_CANDIDATES:
        raise ValueError(
            f"--candidates must be from 1 to {MOST_CANDIDATES}, got {request.candidates}. Choose a number in between."
        )
    check_measures(request.chosen_measures())
    dense = [] if request.dense_name() is None else [Dense.name]
    retrievers = [bm25_name(stemmed=False), bm25_name(stemmed=True), *dense, Splade.name]
    # Every system of Milvus exists in exact search, but not the other way round.
    exact = "exact" in request.searches
    check_baseline(request.baseline, system_names(retrievers) if exact else _milvus_system_names(retrievers))


def _limits(stated: str | None) -> list[int | None]:
    """Return the numbers of a list such as 32,64,all; None is all."""
    limits: list[int | None] = []
    for part in (stated or "all").split(","):
        if part.strip() == "all":
            limits.append(None)
        elif part.strip().isdecimal() and int(part) > 0:
            limits.append(int(part))
        else:
            raise ValueError(f'--sweep-dims must be like "32,64,all", got {stated!r}. Name numbers of 1 or more.')
    return limits


def _dtypes(request: Request) -> list[str]:
    """Return the number types to sweep over; raise ValueError if the device lacks one."""
    names = [part.strip() for part in (request.sweep_dtype or request.model_options.dtype).split(",")]
    for name in names:
        request.model_options.check_dtype(name)
    return names


def _picture_names(plot: str | None, folders: int) -> list[str]:
    """Return the name of each folder's picture, numbered if there are several; raise ValueError on another format."""
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
    """Print these, unless JSON alone is to be printed."""
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
            )
        )
    if "milvus" in request.searches:
        comparisons.append(_compare_in_milvus(request, dataset, retrievers))
    for comparison in comparisons:
        _show(request, *comparison_tables(comparison))
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
            else None,  # with both, exact search alone may have it
            report=advance,
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
