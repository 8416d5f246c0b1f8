"""Runs `splade evaluate`: checks the options, loads the models, and prints, draws and writes the results.

The package `splade_integrations.evaluation` computes the results.
"""

import importlib.metadata
import json
import platform
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from splade_integrations.cli.evaluation_request import (
    Request,
    check,
    dtypes,
    milvus_system_names,
    picture_names,
    prunings,
)
from splade_integrations.cli.loading import load_dense_encoder, load_encoder
from splade_integrations.cli.pictures import picture_format, pyplot_for_files
from splade_integrations.cli.progress import progress
from splade_integrations.cli.tables import comparison_tables, fit_table, query_sweep_table, sweep_table
from splade_integrations.cli.terminal import note, print_json, stdout
from splade_integrations.cli.writing import whole_file
from splade_integrations.evaluation.compare import evaluate
from splade_integrations.evaluation.dataset import Dataset, load_dataset
from splade_integrations.evaluation.made_queries import MADE_MEASURE, made_queries, verdict
from splade_integrations.evaluation.results import Comparison
from splade_integrations.evaluation.retrievers import Bm25, Dense, DenseEncoder, Retriever, Splade, bm25_name
from splade_integrations.evaluation.sweep import QueryPoint, SweepPoint, sweep, sweep_queries
from splade_integrations.models.offline import splade_model_path
from splade_integrations.options import EncoderOptions
from splade_integrations.pruning import Pruning

if TYPE_CHECKING:
    from splade_integrations.encoder import SpladeEncoder

__all__ = ["run_evaluation"]

_PACKAGES = (
    "splade-integrations",
    "torch",
    "transformers",
    "bm25s",
    "sentence-transformers",
    "pymilvus",
    "milvus-lite",
)


def run_evaluation(request: Request) -> None:
    """Evaluate each folder, and print, draw and write the results.

    Raises:
        ValueError: An option is wrong. All options are checked before a folder is read or a model is loaded.
    """
    check(request)
    if request.write is not None:
        _fit_collection(request, request.write)
        return
    types = dtypes(request)
    rules = prunings("--sweep-dims", request.sweep_dims, "all")
    query_rules = prunings("--sweep-queries", request.sweep_queries)
    pictures = picture_names(request.plot, len(request.folders))
    datasets = [made_queries(folder) if request.made_queries else load_dataset(folder) for folder in request.folders]
    # The output files are opened first, so that hours of encoding are not lost if a file cannot be written.
    with ExitStack() as outputs:
        picture_files = [outputs.enter_context(whole_file(name)) for name in pictures]
        json_out = None if request.output is None else outputs.enter_context(whole_file(request.output))
        model = request.model or splade_model_path()
        options = request.model_options
        encoder = load_encoder(model, options.for_encoder(document_pruning=options.pruning()), itself=True)
        dense_encoder = _load_dense(request)
        versions, settings = _versions(), _settings(request, encoder)
        _show(request, *(_line(facts) for facts in (versions, settings)))
        reports = []
        for number, dataset in enumerate(datasets):
            retrievers = _retrievers(dataset, encoder, dense_encoder)
            comparisons = _compare(request, dataset, retrievers)
            of_queries = _sweep_queries(request, dataset, retrievers, query_rules)
            points = _sweep(request, dataset, model, types, rules)
            if picture_files:
                _draw(comparisons, points, picture_files[number], picture_format(pictures[number]))
            reports.append(
                {
                    "comparisons": [comparison.to_dict() for comparison in comparisons],
                    "sweep": [{**vars(point), "pruning": asdict(point.pruning)} for point in points],
                    "query_sweep": [{**vars(point), "pruning": asdict(point.pruning)} for point in of_queries],
                }
            )
        report = {"versions": versions, "settings": settings, "datasets": reports}
        if request.as_json:
            print_json(report)
        if json_out is not None:
            json_out.write((json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode())
    for name in [*pictures, *([] if request.output is None else [request.output])]:
        note(f"Written: {name}")


def _fit_collection(request: Request, uri: str) -> None:
    from splade_integrations.cli.fit_collection import fit_collection
    from splade_integrations.cli.milvus_store import existing_store
    from splade_integrations.cli.options import field_names
    from splade_integrations.cli.search import load_query_encoder

    [folder], name = request.folders, request.collection or "splade"
    dataset = load_dataset(folder)
    options = request.model_options
    with existing_store(uri, name, request.token, request.db_name, field_names(request.fields)) as store:
        encoder = load_query_encoder(store, request.model, options) if "sparse" in store.sides else None
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
    _show(request, f"{dataset.name}, the collection {name!r} of {uri}", *fit_table(fitted))
    if request.as_json:
        print_json(fitted.to_dict())
    if request.output is not None:
        with whole_file(request.output) as file:
            file.write((json.dumps(fitted.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())
    note(f"Stored in {name!r}: {fitted.fusion}. Searches of this collection now use this fusion.")


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
    if not request.as_json:
        for part in found:
            stdout().print(part, markup=False)


def _compare(request: Request, dataset: Dataset, retrievers: list[Retriever]) -> list[Comparison]:
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
        if request.made_queries:
            singles = [name for name in comparison.costs if name != bm25_name(stemmed=False)]
            _show(request, verdict({name: comparison.system(name).measures[MADE_MEASURE] for name in singles}))
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

    names = milvus_system_names([retriever.name for retriever in retrievers])
    with (
        tempfile.TemporaryDirectory() as folder,
        progress(f"{dataset.name}: Milvus", len(dataset.documents)) as advance,
    ):
        return evaluate_milvus(
            dataset,
            retrievers,
            uri=request.uri or str(Path(folder) / "evaluate.db"),
            token=request.token,
            db_name=request.db_name,
            candidates=request.candidates,
            measures=request.chosen_measures(),
            baseline=request.baseline
            if request.baseline in names
            else None,  # a baseline that only exact search has is replaced by the default
            report=advance,
            fitted=request.fit,
        )


def _sweep(request: Request, dataset: Dataset, model: str, dtypes: list[str], rules: list[Pruning]) -> list[SweepPoint]:
    if not (request.sweep_dims or request.sweep_dtype):
        return []

    def load(dtype: str) -> "SpladeEncoder":
        # `sweep` prunes the vectors itself, so the encoder must not prune them.
        options: EncoderOptions = request.model_options.for_encoder(document_pruning=Pruning())
        options["dtype"] = dtype
        return load_encoder(model, options)

    encoders = {dtype: (lambda dtype=dtype: load(dtype)) for dtype in dtypes}
    with progress(f"{dataset.name}: sweep", len(dataset.documents) * len(dtypes)) as advance:
        points = sweep(dataset, encoders, rules, measures=request.chosen_measures(), report=advance)
    _show(request, sweep_table(points))
    return points


def _sweep_queries(
    request: Request, dataset: Dataset, retrievers: list[Retriever], prunings: list[Pruning]
) -> list[QueryPoint]:
    if not prunings:
        return []
    [splade] = [one for one in retrievers if isinstance(one, Splade)]
    points = sweep_queries(dataset, splade, prunings, measures=request.chosen_measures())
    _show(request, query_sweep_table(points))
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
