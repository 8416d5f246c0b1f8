"""`splade info`: shows a model's architecture, settings and licence. It reads small files and loads no weights."""

import importlib.util
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splade_integrations.cli.options import (
    CollectionName,
    DatabaseName,
    FieldNames,
    Json,
    Token,
    check_milvus_file,
    field_names,
)
from splade_integrations.cli.terminal import print_json, stdout

if TYPE_CHECKING:
    from splade_integrations.models.repository import Repository
    from splade_integrations.models.spec import TransformerSpec
    from splade_integrations.models.weights import Adapter

__all__ = ["info", "licence"]


def info(
    model: Annotated[
        str | None,
        typer.Argument(help="Model: a folder, or a name on the hub. Leave it out with --uri.", show_default=False),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.", show_default="main")] = None,
    uri: Annotated[
        str | None, typer.Option(help="Show a collection of this Milvus file or server.", show_default=False)
    ] = None,
    collection: CollectionName = "splade",
    token: Token = "",
    db_name: DatabaseName = "",
    fields: FieldNames = None,
    as_json: Json = False,
) -> None:
    """Show what a model or a collection is, without loading weights.

    The output includes the architecture, the size of the vocabulary, the pruning and the licence. It also says how the
    model encodes documents and queries. If this package would refuse the model, the output says why.

    With --uri, the output describes a collection: its documents, fields, kinds of vectors, indexes, models and fusion.
    Any package may have made the collection.

    Examples:

      splade info prithivida/Splade_PP_en_v2

      splade info --uri corpus.db
    """
    if (model is None) == (uri is None):
        given = "both" if model else "neither"
        raise ValueError(
            f"either a model or --uri must be given, got {given}. Name a model, or a collection's file or server."
        )
    if fields is not None and uri is None:
        raise ValueError(f"--fields must be given with --uri, got {fields!r} with a model. Leave --fields out.")
    from splade_integrations.cli.loading import silence_hub
    from splade_integrations.cli.tables import facts_table
    from splade_integrations.models.repository import Repository

    if uri is not None:
        found = _facts_of_collection(uri, collection, token, db_name, fields)
    else:
        assert model is not None
        _check_is_no_collection(model)
        if not Path(model).is_dir():
            silence_hub()
        found = _facts(Repository(model, {"revision": revision}))
    if as_json:
        print_json(found)
    else:
        stdout().print(facts_table(found))


def _check_is_no_collection(model: str) -> None:
    """Raise ValueError if a milvus-lite file (a folder in new versions of milvus-lite) is given as a model."""
    path = Path(model)
    if path.suffix == ".db" and path.exists() and not (path / "config.json").exists():
        raise ValueError(
            f"the argument must be a model, got {model}, which looks like a file of milvus-lite. To show a collection "
            f"in it, run: splade info --uri {shlex.quote(model)}"
        )


def licence(repository: "Repository") -> str | None:
    """Return the licence that a repository's model card states, or None if it states none."""
    stated = re.search(r"^licen[sc]e:[ \t]*['\"]?([^'\"\n]+)", repository.model_card(), re.MULTILINE)
    return stated.group(1).strip() if stated else None


def _facts_of_collection(uri: str, collection: str, token: str, db_name: str, fields: str | None) -> dict[str, Any]:
    check_milvus_file(uri)
    from splade_integrations.cli.milvus_store import existing_store

    with existing_store(uri, collection, token, db_name, field_names(fields)) as store:
        return store.facts()


def _facts(repository: "Repository") -> dict[str, Any]:
    from splade_integrations.models.config import architectures, check_config
    from splade_integrations.models.layouts import describe, stated_positions
    from splade_integrations.models.weights import find_adapter

    description = describe(repository)
    document, query = description.document, description.query
    transformer = document.transformer or query.transformer
    config: Mapping[str, Any] = {}
    adapter = None
    if transformer is not None:
        config = check_config(transformer.repository, transformer.folder)
        adapter = find_adapter(transformer.repository, transformer.folder)
    return {
        "model": repository.name,
        "licence": licence(repository),
        "architecture": ", ".join(architectures(config)) or None,
        "layers": config.get("num_hidden_layers", config.get("n_layers")),
        "hidden_size": config.get("hidden_size", config.get("dim")),
        "vocabulary": config.get("vocab_size"),
        "stored_as": config.get("dtype", config.get("torch_dtype")),
        "max_length": (transformer.max_length if transformer else None) or stated_positions(config),
        "documents": str(document),
        "queries": "as documents" if document == query else str(query),
        "document_pruning": str(description.document_pruning),
        "query_pruning": str(description.query_pruning),
        "special_terms": "kept" if description.special_terms == "keep" else "dropped",
        "lower_case": "texts are lowercased first" if document.lower_case else "left to the tokenizer",
        "adapter": "none" if adapter is None else f"{adapter}, merged into the weights",
        "would_be_refused": (transformer and _refusal(transformer, config, adapter)) or "no",
    }


def _refusal(transformer: "TransformerSpec", config: Mapping[str, Any], adapter: "Adapter | None") -> str | None:
    """Return why a model would not load, although `describe` accepts the model.

    Return None if the small files that this command reads show no reason.
    """
    from splade_integrations.models.weights import missing_weights

    architectures = config.get("architectures") or []
    if architectures and not any(name.endswith(("ForMaskedLM", "ForCausalLM")) for name in architectures):
        return f"yes: a {architectures[0]} has no masked-LM head. Use a …ForMaskedLM checkpoint."
    if adapter is not None and importlib.util.find_spec("peft") is None:
        return f"yes: the {adapter} needs peft. Install it with: pip install 'splade-integrations[peft]'."
    if config.get("auto_map") and not transformer.repository.trust_remote_code and _is_unknown(config):
        return "yes, unless you pass trust_remote_code=True: the model needs code from its repository. Read it first."
    return missing_weights(transformer.repository, transformer.folder)


def _is_unknown(config: Mapping[str, Any]) -> bool:
    from transformers import CONFIG_MAPPING

    return config.get("model_type") not in CONFIG_MAPPING
