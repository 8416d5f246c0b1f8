"""Reads a model repository's small files into a spec, which says how documents and queries become term weights.

This module reads the layouts of sentence-transformers 5 and 6, of plain masked-LM checkpoints and of OpenSearch. It
loads no weights. For known repositories, `known.py` adds facts that the files do not state. `token_heads.py` reads the
layout of BGE-M3. `decoders.py` reads the kind of attention of decoders such as Qwen3.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from splade_integrations.errors import UnsupportedModelError
from splade_integrations.models.decoders import head_of, refuse_bare_decoder
from splade_integrations.models.known import OPENSEARCH, Fact, known
from splade_integrations.models.repository import Repository, not_reached, path_in
from splade_integrations.models.spec import (
    ACTIVATION_FUNCTIONS,
    POOLING_STRATEGIES,
    ModelSpec,
    RoleSpec,
    TokenWeightsSpec,
    TransformerSpec,
)
from splade_integrations.models.token_heads import describe_token_head
from splade_integrations.models.weights import check_weights
from splade_integrations.pruning import Pruning
from splade_integrations.sparse import is_integer

__all__ = ["describe", "stated_positions"]

# The types of models that number positions from padding_idx + 1. Such models never use the first positions.
_COUNT_FROM_PADDING = {
    *("camembert", "data2vec-text", "esm", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm"),
    *("xlm-roberta", "xlm-roberta-xl", "xmod"),
}
# The names under which sentence-transformers looks for a document prompt, in this order.
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
# Only OpenSearch publishes repositories with this file.
_OPENSEARCH_FILE = "query_token_weights.txt"


def describe(repository: Repository) -> ModelSpec:
    """Read the spec of a model from its repository.

    Args:
        repository: A local folder or a hub repository.
    Raises:
        FileNotFoundError: The repository does not exist or cannot be reached, or it holds no model.
        UnsupportedModelError: The configuration is damaged, or describes a model that produces no SPLADE weights.
    """
    if (token_head := describe_token_head(repository)) is not None:
        return token_head
    if repository.path("modules.json") is None:
        return _describe_plain(repository)
    stated = _mapping(repository, "config_sentence_transformers.json")
    routes = _expand_routers(repository, _modules(repository))
    prompts = stated.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str | None) for prompt in prompts.values()):
        raise UnsupportedModelError(
            f"{repository.name!r} must state prompts as strings, each under a name, got {prompts!r}. "
            "Correct its config_sentence_transformers.json."
        )
    default_name = stated.get("default_prompt_name")
    if not isinstance(default_name, str | None):
        raise UnsupportedModelError(
            f"{repository.name!r} must state default_prompt_name as a string, got {str(default_name)[:80]}. "
            "Correct its config_sentence_transformers.json."
        )
    default = prompts.get(default_name, "")
    document_prompt = next((prompts[name] for name in _DOCUMENT_PROMPTS if name in prompts), default)
    max_active_dims = stated.get("max_active_dims")
    if max_active_dims is not None and (not is_integer(max_active_dims) or max_active_dims < 1):
        raise UnsupportedModelError(
            f"{repository.name!r} must state max_active_dims as an int of at least 1, got {max_active_dims!r}. "
            "Correct its config_sentence_transformers.json."
        )
    fact = _opensearch_fact(repository)
    return ModelSpec(
        document=replace(_role(repository, routes["document"]), prompt=document_prompt or ""),
        query=replace(_role(repository, routes["query"]), prompt=prompts.get("query", default) or ""),
        document_pruning=replace(fact.document_pruning, max_active_dims=max_active_dims),
        query_pruning=Pruning(max_active_dims=max_active_dims),
        special_terms=fact.special_terms,
    )


def stated_positions(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a model has positions for, according to its config.json. None means no limit."""
    positions: int | None = config.get("max_position_embeddings")
    if positions is not None and str(config.get("model_type")) in _COUNT_FROM_PADDING:
        padding_id = config.get("pad_token_id")
        return positions - 1 - (1 if padding_id is None else int(padding_id))
    return positions


def _opensearch_fact(repository: Repository) -> Fact:
    """Return the facts that the sentence-transformers files of OpenSearch's repositories do not state.

    sentence-transformers neither drops the terms of special tokens nor prunes by a share of the largest weight, so its
    files have no keys for these two settings.
    """
    if (fact := known(repository, prefix=OPENSEARCH)) is not None:
        return fact
    return Fact(special_terms="keep" if repository.path(_OPENSEARCH_FILE) is None else "drop")


def _describe_plain(repository: Repository) -> ModelSpec:
    """Read the spec of a masked-LM checkpoint without sentence-transformers files.

    The repository may also have a file of token weights for queries.
    """
    check_weights(repository, "")
    if repository.path("config.json") is None:
        if repository.local_folder is not None:
            raise FileNotFoundError(
                f"{repository.name!r} must be a model folder, but it has no config.json. Name the folder that has one."
            )
        raise FileNotFoundError(not_reached(repository.name, "no config.json there"))
    refuse_bare_decoder(repository, _mapping(repository, "config.json"))
    weight_files = [name for name in ("idf.json", _OPENSEARCH_FILE) if repository.path(name) is not None]
    unknown = Fact(query_from="idf", special_terms="drop") if weight_files else Fact()
    fact = known(repository) or unknown
    lower_case = _lower_case(repository, "")
    document = RoleSpec(
        TransformerSpec(repository, activation_function=fact.activation_function, lower_case=lower_case)
    )
    query = document
    if fact.query_repository:
        other = query_repository(repository, fact.query_repository)
        query = RoleSpec(TransformerSpec(other, lower_case=_lower_case(other, "")))
    elif fact.query_from == "own tokens":
        query = replace(document, token_weights=TokenWeightsSpec(repository, lower_case=lower_case))
    elif fact.query_from:
        file = weight_files[0] if fact.query_from == "idf" and weight_files else None
        if fact.query_from == "idf" and file is None:
            raise UnsupportedModelError(
                f"{repository.name!r} must have an idf.json or query_token_weights.txt, got neither. "
                "Download the model again."
            )
        query = RoleSpec(token_weights=TokenWeightsSpec(repository, file=file, lower_case=lower_case))
    return ModelSpec(document, query, fact.document_pruning, special_terms=fact.special_terms)


def query_repository(repository: Repository, name: str) -> Repository:
    """Return the repository of the query encoder `name`.

    If `repository` is a local folder, the query encoder must be in a neighbouring folder with the query encoder's name.
    If `repository` is on the hub, the query encoder is on the hub as well.
    """
    if repository.local_folder is None:  # a revision applies only to the document encoder's repository
        options = {key: value for key, value in repository.hub_options.items() if key != "revision"}
        return Repository(name, options)
    folder = repository.local_folder.resolve().parent / name.rpartition("/")[2]
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the query encoder {name} must be in {folder}, got no such folder. Download it to that folder. "
            f"{repository.name!r} can encode only documents."
        )
    return replace(repository, name=str(folder))


def _modules(repository: Repository) -> list[tuple[str, str]]:
    """Return the modules listed in modules.json, in order, as (type, folder)."""
    modules = repository.json("modules.json")
    try:
        ordered = sorted(modules, key=lambda module: int(module.get("idx", 0)))
        return [(_last_component(module["type"]), str(module["path"])) for module in ordered]
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as err:
        raise UnsupportedModelError(
            f"{repository.name!r} must have a modules.json that lists modules with idx, type and path, got "
            f"{str(modules)[:80]}. Download the model again."
        ) from err


def _expand_routers(repository: Repository, chain: list[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """Return the modules that encode documents, and those that encode queries, as (type, folder).

    A router holds separate modules for documents and for queries. It is replaced by these modules.
    """
    routes: dict[str, list[tuple[str, str]]] = {"document": [], "query": []}
    for kind, folder in chain:
        if kind not in ("Router", "Asym"):
            for route in routes.values():
                route.append((kind, folder))
            continue
        config = _mapping(repository, path_in(folder, "router_config.json"))
        types, structure = config.get("types"), config.get("structure")
        if not isinstance(types, dict) or not isinstance(structure, dict) or not structure.keys() >= routes.keys():
            raise UnsupportedModelError(
                f"{repository.name!r} must have a router_config.json with routes for query and document, got "
                f"{sorted(structure) if isinstance(structure, dict) else config!r}. Use a SPLADE model."
            )
        for name, route in routes.items():
            parts = structure[name]
            if not isinstance(parts, list) or not all(isinstance(part, str) and part in types for part in parts):
                raise UnsupportedModelError(
                    f"{repository.name!r} must have a router_config.json that lists the modules of its {name} route, "
                    f"each with a type, got {parts!r}. Download it again."
                )
            route += [(_last_component(types[part]), path_in(folder, part)) for part in parts]
    return routes


def _role(repository: Repository, chain: list[tuple[str, str]]) -> RoleSpec:
    """Read the spec of one role, documents or queries. `chain` lists the role's modules in the order of their use."""
    kinds = modules = [kind for kind, _ in chain]
    transformer, token_weights = None, None
    if kinds[:2] in (["Transformer", "SpladePooling"], ["MLMTransformer", "SpladePooling"]):
        transformer = _transformer(repository, folder=chain[0][1], pooling_folder=chain[1][1])
        kinds, chain = kinds[2:], chain[2:]
    if kinds in (["SparseStaticEmbedding"], ["IDF"]):
        token_weights = _token_weights(repository, chain[0][1])
        kinds = []
    if kinds or (transformer is None and token_weights is None):
        raise UnsupportedModelError(
            f"{repository.name!r} must have a masked-LM head with SpladePooling, or a SparseStaticEmbedding, got "
            f"{', '.join(modules) or 'no modules'}, which give no SPLADE weights. Use a SPLADE model, or a "
            "…ForMaskedLM checkpoint."
        )
    return RoleSpec(transformer, token_weights)


def _transformer(repository: Repository, folder: str, pooling_folder: str) -> TransformerSpec:
    check_weights(repository, folder)
    head, attention = head_of(repository, folder, _mapping(repository, path_in(folder, "config.json")))
    pooling = _mapping(repository, path_in(pooling_folder, "config.json"))
    stated = _mapping(repository, path_in(folder, "sentence_bert_config.json"))
    max_length = stated.get("max_seq_length")
    if max_length is not None and (not isinstance(max_length, int) or max_length < 3):
        raise UnsupportedModelError(
            f"{repository.name!r} must state max_seq_length as an int of at least 3, got {max_length!r}. "
            "Correct its sentence_bert_config.json."
        )

    def stated_one(key: str, default: str, allowed: tuple[str, ...]) -> Any:
        if (value := pooling.get(key, default)) in allowed:
            return value
        raise UnsupportedModelError(
            f"{repository.name!r} must state {key} in {path_in(pooling_folder, 'config.json')} as "
            f"{' or '.join(allowed)}, got {str(value)[:80]!r}. Use a SPLADE model."
        )

    return TransformerSpec(
        repository,
        folder,
        head,
        attention,
        pooling_strategy=stated_one("pooling_strategy", "max", POOLING_STRATEGIES),
        activation_function=stated_one("activation_function", "relu", ACTIVATION_FUNCTIONS),
        max_length=max_length,
        lower_case=bool(stated.get("do_lower_case")) or _lower_case(repository, folder),
    )


def _token_weights(repository: Repository, folder: str) -> TokenWeightsSpec:
    repository.check_links(folder)
    path = _mapping(repository, path_in(folder, "config.json")).get("path")
    if path is not None and str(path).endswith(".json"):
        # The path may be relative to the module's folder or to the root of the repository.
        inside = path_in(folder, path)
        file = inside if repository.path(inside) else str(path)
        return TokenWeightsSpec(repository, folder, file, _lower_case(repository, folder))
    for name in ("model.safetensors", "pytorch_model.bin"):
        if repository.path(path_in(folder, name)) is not None:
            return TokenWeightsSpec(repository, folder, path_in(folder, name), _lower_case(repository, folder))
    raise UnsupportedModelError(
        f"{repository.name!r} must have token weights in {folder or 'its root'}, got no "
        "model.safetensors, pytorch_model.bin or JSON file there. Download the model again."
    )


def _lower_case(repository: Repository, folder: str) -> bool:
    """Return whether the files set `do_lower_case` although the tokenizer itself does not lowercase texts.

    transformers obeys `do_lower_case` only if the tokenizer's class knows this key and there is no tokenizer.json.
    """
    if not _mapping(repository, path_in(folder, "tokenizer_config.json")).get("do_lower_case"):
        return False
    tokenizer = _mapping(repository, path_in(folder, "tokenizer.json"))
    return bool(tokenizer) and not _lowers_case(tokenizer.get("normalizer"))


def _lowers_case(normalizer: Any) -> bool:
    """Return whether a normalizer of tokenizer.json lowercases texts."""
    if not isinstance(normalizer, dict):
        return False
    if normalizer.get("type") == "Sequence":
        inner = normalizer.get("normalizers")
        return isinstance(inner, list) and any(map(_lowers_case, inner))
    return normalizer.get("type") == "Lowercase" or normalizer.get("lowercase") is True


def _mapping(repository: Repository, file: str) -> dict[str, Any]:
    """Return the JSON object in a file of the repository, or {} if there is no such file."""
    content = repository.json(file)
    if content is not None and not isinstance(content, dict):
        raise UnsupportedModelError(
            f"{repository.name!r} must have a {file} that is a JSON object, got another type. Download it again."
        )
    return content or {}


def _last_component(module_type: str) -> str:
    """Return a module's class name without its package, which differs between releases of sentence-transformers."""
    return str(module_type).rpartition(".")[2]
