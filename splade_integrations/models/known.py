"""Facts that the files of known model repositories do not state. `layouts.py` uses these facts."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from splade_integrations.models.repository import Repository
from splade_integrations.models.spec import ActivationFunction, SpecialTerms
from splade_integrations.pruning import Pruning

__all__ = ["KNOWN", "OPENSEARCH", "Fact", "known", "onnx_original"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fact:
    """Facts about a known repository.

    Args:
        query_from: Where the weights of queries come from, if the repository has no modules.json. "idf" means a table
            of token weights in a file. "ones" means that each token weighs 1. "own tokens" means that the transformer
            computes the weights, but only terms that are tokens of the query are kept. "" means that queries are
            encoded in the same way as documents.
        query_repository: The repository of a separate query encoder, if the known repository has no modules.json. ""
            means that there is no separate query encoder.
        activation_function: The activation, if the repository has no modules.json.
        special_terms: Whether to "keep" or "drop" the terms of special tokens.
        document_pruning: Which terms of a document the authors keep.
    """

    query_from: Literal["idf", "ones", "own tokens", ""] = ""
    query_repository: str = ""
    activation_function: ActivationFunction = "relu"
    special_terms: SpecialTerms = "keep"
    document_pruning: Pruning = field(default_factory=Pruning)


OPENSEARCH = "opensearch-project/opensearch-neural-sparse-encoding"
_IDF = Fact(query_from="idf", special_terms="drop")
# OpenSearch uses this pruning rule for the documents of its v3 models: its ingest pipelines prune with prune_type
# max_ratio and prune_ratio 0.1 (OpenSearch's documentation, "Pretrained models" and "Sparse encoding processor").
# Queries are not pruned.
_V3 = Fact("idf", activation_function="log1p_relu", special_terms="drop", document_pruning=Pruning(max_ratio=0.1))
# The facts come from the model cards. Further sources for naver's models are arXiv:2403.06789 (splade-v3) and
# arXiv:2207.03834 (efficient-splade). Further sources for OpenSearch's models are arXiv:2411.04403 and arXiv:2504.14839
# (v3).
KNOWN = {
    "naver/splade-v3-doc": Fact(query_from="ones"),
    "naver/splade-v3-lexical": Fact(query_from="own tokens"),
    "naver/efficient-splade-V-large-doc": Fact(query_repository="naver/efficient-splade-V-large-query"),
    "naver/efficient-splade-VI-BT-large-doc": Fact(query_repository="naver/efficient-splade-VI-BT-large-query"),
    f"{OPENSEARCH}-v1": Fact(special_terms="drop"),
    f"{OPENSEARCH}-v2-distill": Fact(special_terms="drop"),
    f"{OPENSEARCH}-doc-v1": _IDF,
    f"{OPENSEARCH}-doc-v2-distill": _IDF,
    f"{OPENSEARCH}-doc-v2-mini": _IDF,
    f"{OPENSEARCH}-doc-v3-distill": _V3,
    f"{OPENSEARCH}-doc-v3-gte": _V3,
    f"{OPENSEARCH}-multilingual-v1": _IDF,
}
# {a repository that holds only a model's ONNX files: the repository that holds the model's weights}. fastembed
# downloads the ONNX files (fastembed/sparse/splade_pp.py of qdrant/fastembed).
_ONNX_ORIGINALS = {"Qdrant/SPLADE_PP_en_v1": "prithivida/Splade_PP_en_v1"}


def known(repository: Repository, *, prefix: str = "") -> Fact | None:
    """Return the facts about a known repository, or None if the repository is not known.

    A local folder counts as a copy of a known repository if it has the same name, or if it is the repository's folder
    in the hub's cache.

    Args:
        repository: The repository.
        prefix: Only repositories whose names begin with this text are considered.
    """
    names = [name for name in KNOWN if name.startswith(prefix)]
    if repository.local_folder is None:
        return KNOWN[repository.name] if repository.name in names else None
    folder = repository.local_folder.resolve()
    if (cached := _name_in_cache(folder)) in names:
        return KNOWN[cached]
    for name in names:
        if folder.name == name.rpartition("/")[2]:
            logger.warning(
                "%s is treated as a copy of %s and gets its settings. Options override them.", folder.name, name
            )
            return KNOWN[name]
    return None


def _name_in_cache(folder: Path) -> str:
    """Return the name of the repository to which a folder in the hub's cache belongs, or "" for other folders.

    Example:
        >>> _name_in_cache(Path("/cache/models--org--name/snapshots/0123"))
        'org/name'
    """
    found = [part for part in folder.parts if part.startswith("models--")]
    return found[-1].removeprefix("models--").replace("--", "/") if found else ""


def onnx_original(repository: Repository) -> str | None:
    """Return the repository that holds the original weights of a repository of ONNX files, or None if not known."""
    folder = "" if repository.local_folder is None else repository.local_folder.resolve().name
    for copy, original in _ONNX_ORIGINALS.items():
        if repository.name.lower() == copy.lower() or folder.lower() == copy.rpartition("/")[2].lower():
            return original
    return None
