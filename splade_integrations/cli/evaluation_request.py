"""The options that the user gave to `splade evaluate`. They are checked and parsed before any work is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from splade_integrations.cli.options import ModelOptions
from splade_integrations.cli.pictures import picture_format
from splade_integrations.errors import OptionalDependencyError
from splade_integrations.evaluation.compare import check_baseline, system_names
from splade_integrations.evaluation.made_queries import MADE_MEASURE
from splade_integrations.evaluation.measures import MEASURES, check_measures
from splade_integrations.evaluation.retrievers import Dense, Splade, bm25_name
from splade_integrations.milvus.defaults import MOST_CANDIDATES
from splade_integrations.models.offline import dense_model_path
from splade_integrations.pruning import Pruning

if TYPE_CHECKING:
    pass

__all__ = ["Request", "check", "dtypes", "milvus_system_names", "picture_names", "prunings"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options that the user gave to `splade evaluate`.

    Args:
        folders: Folders in BEIR layout.
        model: The SPLADE model. None means the small model that the extra `demo` installs.
        dense: The dense model, or "none" for no dense model. The default, None, means all-MiniLM-L6-v2. This model is
            loaded from the wheel of the extra `demo`, or from the hub if the wheel is not installed.
        searches: ("exact",), ("milvus",), or both names.
        uri: A Milvus file or server. None means a temporary file.
        token: The server's token.
        db_name: The server's database. "" means the default database.
        candidates: The number of hits that each retriever contributes to a fusion.
        measures: Names of measures, as ir_measures spells them. None means `MEASURES`.
        baseline: The system (a retriever or a fusion) to test the other systems against. None means BM25, or the first
            system if BM25 is missing.
        sweep_dims: The prunings of documents to try, such as "32,0.1max,all", where "all" means no pruning. None tries
            only "all".
        sweep_dtype: The number types to try, such as "float32,bfloat16". None tries only the type in `model_options`.
            If `sweep_dims` and `sweep_dtype` are both None, no prunings of documents and no number types are compared.
        sweep_queries: The prunings of queries to try, such as "8,16,0.9,0.1max,all". None tries no prunings of queries.
        plot: The file name of the picture, or None for no picture.
        output: The name of the JSON file for the results, or None for no file.
        as_json: Whether to print only JSON.
        model_options: How the models run, how texts are cut, and how documents are pruned.
        made_queries: Whether to make the queries from the documents, instead of reading judged queries.
        fit: Whether to choose the best fusion.
        write: The Milvus file or server of a collection. A fusion is fitted to this collection and stored in it. None
            means that no fusion is stored.
        collection: The name of the collection for `write`. None means "splade".
        fields: The fields of this collection, written as in the option --fields. If None, the fields are found by name
            and type.
    """

    folders: list[Path]
    model: str | None
    dense: str | None
    searches: tuple[str, ...]
    uri: str | None
    token: str
    db_name: str
    candidates: int
    measures: list[str] | None
    baseline: str | None
    sweep_dims: str | None
    sweep_dtype: str | None
    sweep_queries: str | None
    plot: str | None
    output: str | None
    as_json: bool
    model_options: ModelOptions
    made_queries: bool = False
    fit: bool = False
    write: str | None = None
    collection: str | None = None
    fields: str | None = None

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
        needed = [MADE_MEASURE] if self.made_queries else []
        return list(dict.fromkeys([*(self.measures or MEASURES), *needed]))


def check(request: Request) -> None:
    if not 1 <= request.candidates <= MOST_CANDIDATES:
        raise ValueError(
            f"--candidates must be from 1 to {MOST_CANDIDATES}, got {request.candidates}. Choose one in this range."
        )
    check_measures(request.chosen_measures())
    if request.made_queries and request.fit:
        raise ValueError(
            "--fit must be given with judged queries, got --made-queries. Leave out one of the two options. Made "
            "queries share more words with their documents than users' questions do, so the weights would not fit your "
            "users."
        )
    if request.write is not None and (not request.fit or len(request.folders) != 1):
        raise ValueError(
            f"--write must be given with --fit and with one FOLDER, got {len(request.folders)} folder(s)"
            f"{'' if request.fit else ' and no --fit'}. Give one FOLDER, and --fit. The fusion is fitted to the judged "
            "queries of this folder."
        )
    for option, value in {"--collection": request.collection, "--fields": request.fields}.items():
        if value is not None and request.write is None:
            raise ValueError(
                f"{option} must be given with --write, got only {option} {value}. Add --write, or leave {option} out."
            )
    unused = {
        "--plot": request.plot,
        "--sweep-dims": request.sweep_dims,
        "--sweep-dtype": request.sweep_dtype,
        "--sweep-queries": request.sweep_queries,
        "--baseline": request.baseline,
        "--uri": request.uri,
    }
    if request.write is not None and (names := [name for name, value in unused.items() if value is not None]):
        raise ValueError(
            f"{names[0]} must not be given with --write, got both. To evaluate, leave --write out. To fit a fusion to "
            f"the collection, leave {names[0]} out."
        )
    if request.write is not None and "://" not in request.write and not Path(request.write).exists():
        raise FileNotFoundError(
            f"--write must name a Milvus server, or a file that exists, got {request.write!r}. Make a file "
            "with: splade index."
        )
    dense = [] if request.dense_name() is None else [Dense.name]
    retrievers = [bm25_name(stemmed=False), bm25_name(stemmed=True), *dense, Splade.name]
    # The baseline must be one of the compared systems. Exact search compares all systems that a search in Milvus
    # compares, and some more. So the systems in Milvus matter here only if there is no exact search.
    exact = "exact" in request.searches
    check_baseline(request.baseline, system_names(retrievers) if exact else milvus_system_names(retrievers))


def prunings(option: str, stated: str | None, default: str | None = None) -> list[Pruning]:
    """Return the prunings that a list such as "8,0.9,0.1max,all" names.

    Args:
        option: The name of the option, for the message.
        stated: Items with commas between them. An item is a number of terms ("8"), a share of a text's total weight
            ("0.9"), a share of a text's largest weight ("0.1max"), or "all".
        default: The list to read if `stated` is None. If both are None, the result is [].
    """
    text = default if stated is None else stated
    try:
        return [] if text is None else [_pruning(part.strip()) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f'{option} must be like "8,16,0.9,0.1max,all", got {stated!r}. Write a number of terms as 8, a '
            "share of the weight as 0.9, a share of the largest weight as 0.1max, and no pruning as all."
        ) from None


def _pruning(part: str) -> Pruning:
    if part == "all":
        return Pruning()
    if part.endswith("max"):
        return Pruning(max_ratio=float(part.removesuffix("max")))
    return Pruning(mass=float(part)) if "." in part else Pruning(max_active_dims=int(part))


def dtypes(request: Request) -> list[str]:
    """Return the number types to try. Raise ValueError if the device does not support a type."""
    names = [part.strip() for part in (request.sweep_dtype or request.model_options.dtype).split(",")]
    for name in names:
        request.model_options.check_dtype(name)
    return names


def picture_names(plot: str | None, folders: int) -> list[str]:
    """Return the file name of the picture for each folder. If there are several folders, the names are numbered.

    Raises:
        ValueError: The ending of `plot` is wrong.
    """
    if plot is None:
        return []
    picture_format(plot)
    if folders == 1:
        return [plot]
    path = Path(plot)
    return [str(path.with_name(f"{path.stem}-{number}{path.suffix}")) for number in range(1, folders + 1)]


def milvus_system_names(retrievers: Sequence[str]) -> list[str]:
    from splade_integrations.evaluation.compare_milvus import milvus_system_names

    return milvus_system_names(retrievers)
