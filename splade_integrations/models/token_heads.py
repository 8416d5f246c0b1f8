"""Recognises models that give each token of a text one weight. Of these models, only BGE-M3 is supported.

This module reads the spec of BGE-M3, and refuses other known models of this kind by name. It reads small files, and
loads no weights.
"""

from collections.abc import Mapping
from typing import Any

from splade_integrations.errors import UnsupportedModelError
from splade_integrations.models.config import architectures
from splade_integrations.models.repository import Repository
from splade_integrations.models.spec import ModelSpec, RoleSpec, TransformerSpec

__all__ = ["SPARSE_LINEAR", "describe_token_head"]

# The file of BGE-M3's linear layer: a PyTorch file with "weight", (1, H), and "bias", (1,).
SPARSE_LINEAR = "sparse_linear.pt"
# The modules of sentence-transformers' dense models. A BGE-M3 repository lists such modules, for its dense vectors.
_DENSE_MODULES = {"Transformer", "Pooling", "Normalize", "Dense"}
_INSTEAD = (
    "Use BAAI/bge-m3, which has token weights of the same kind for more than 100 languages, or a SPLADE model such as "
    "opensearch-project/opensearch-neural-sparse-encoding-multilingual-v1."
)
_INSTEAD_IN_ENGLISH = "Use BAAI/bge-m3, or a SPLADE model for English such as prithivida/Splade_PP_en_v2."
# {part of an architecture's name: (what the model is, what to use instead)}
_ARCHITECTURES = {
    "RoFormerForSparseEmbedding": (
        "a model of token weights with its own code (inf-wse), which weighs the words of its own Chinese vocabulary",
        "Use BAAI/bge-m3, whose token weights cover Chinese.",
    ),
    "UniCoil": ("a uniCOIL model, whose token weights come from its own kind of layer", _INSTEAD_IN_ENGLISH),
    "TILDE": ("a TILDE model, whose token weights come from its own kind of layer", _INSTEAD_IN_ENGLISH),
    "DeepImpact": ("a DeepImpact model, which scores words instead of tokens", _INSTEAD_IN_ENGLISH),
}
# {part of a repository's name in lower case: (what the model is, what to use instead)}
_NAMES = {
    "unicoil": _ARCHITECTURES["UniCoil"],
    "tilde": _ARCHITECTURES["TILDE"],
    "deepimpact": _ARCHITECTURES["DeepImpact"],
    "inf-wse": _ARCHITECTURES["RoFormerForSparseEmbedding"],
    "bm42": (
        "a BM42 model, which takes its token weights from attention and needs Qdrant's fastembed",
        _INSTEAD_IN_ENGLISH,
    ),
    "minicoil": (
        "a miniCOIL model, which gives each word a small vector and needs Qdrant's fastembed",
        _INSTEAD_IN_ENGLISH,
    ),
    "bge-m3-retromae": ("the base model of BGE-M3, which has no token weights", "Use BAAI/bge-m3."),
    "bge-m3-unsupervised": ("an early stage of BGE-M3, which has no token weights", "Use BAAI/bge-m3."),
}


def describe_token_head(repository: Repository) -> ModelSpec | None:
    """Read the spec of a model whose linear layer gives each token one weight.

    Args:
        repository: A local folder or a hub repository.
    Returns:
        The spec, or None if the repository's files describe a model of another kind.
    Raises:
        UnsupportedModelError: The model weighs tokens in a way that this package does not compute. The message says
            what was found, and which model to use instead.
    """
    config = repository.json("config.json")
    if not isinstance(config, Mapping) or not _may_have_token_head(repository, config):
        return None
    if repository.path(SPARSE_LINEAR) is None:
        _refuse_known(repository, config)
        return None
    stated = repository.json("sentence_bert_config.json")
    max_length = stated.get("max_seq_length") if isinstance(stated, Mapping) else None
    if max_length is not None and (not isinstance(max_length, int) or max_length < 3):
        raise UnsupportedModelError(
            f"{repository.name!r} must state max_seq_length as an int of at least 3, got {max_length!r}. "
            "Correct its sentence_bert_config.json."
        )
    repository.check_links("")
    role = RoleSpec(TransformerSpec(repository, head="token weights", max_length=max_length))
    return ModelSpec(role, role, special_terms="drop")


def _may_have_token_head(repository: Repository, config: Mapping[str, Any]) -> bool:
    """Return whether the model may have a token head, judging only by config.json and modules.json.

    A token head is a linear layer that gives each token one weight. Without this check, the hub would be asked for the
    file of a token head for every SPLADE model.
    """
    modules = repository.json("modules.json")
    if modules is None:
        return not any(name.endswith("ForMaskedLM") for name in architectures(config))
    if not isinstance(modules, list) or not all(isinstance(module, Mapping) for module in modules):
        return False
    kinds = {str(module.get("type")).rpartition(".")[2] for module in modules}
    return kinds <= _DENSE_MODULES


def _refuse_known(repository: Repository, config: Mapping[str, Any]) -> None:
    """Raise UnsupportedModelError if the model is known to weigh tokens in another way."""
    stated = architectures(config)
    code = config.get("auto_map")
    has_token_classes = isinstance(code, Mapping) and "AutoModelForTokenClassification" in code
    known = next((found for part, found in _ARCHITECTURES.items() if any(part in name for name in stated)), None)
    folder = repository.local_folder.resolve().name if repository.local_folder is not None else repository.name
    name = folder.rpartition("/")[2].lower()
    if (config.get("model_type") == "new" and has_token_classes) or "gte-multilingual-base" in name:
        known = ("an mGTE model, whose token weights need code from its repository", _INSTEAD)
    known = known or next((found for part, found in _NAMES.items() if part in name), None)
    if known is not None:
        what, instead = known
        found = f"architecture {stated[0]}" if stated else "no architecture"
        raise UnsupportedModelError(
            f"{repository.name!r} must be a SPLADE model or BGE-M3, got {what} ({found}). {instead}"
        )
