"""Recognises decoders such as Qwen3 and Llama, and reads whether their tokens attend to later tokens.

A decoder is a model that generates text. At each token, its head scores all terms, as a masked-LM head does. This
module reads small files. It loads no weights.
"""

from collections.abc import Mapping
from typing import Any

from splade_integrations.errors import UnsupportedModelError
from splade_integrations.models.config import architectures
from splade_integrations.models.repository import Repository, path_in
from splade_integrations.models.spec import Attention, Head

__all__ = ["head_of", "is_language_model", "refuse_bare_decoder"]

# The values of `model_type` that transformers uses for decoders. They are needed because the architecture in a
# config.json may be a class from the repository's own code, as in naver's repositories.
_MODEL_TYPES = {
    *("cohere", "gemma", "gemma2", "granite", "llama", "mistral", "olmo", "olmo2", "phi", "phi3"),
    *("qwen2", "qwen3", "smollm3", "starcoder2"),
}
# {a key of config.json: the value that means bidirectional attention}. transformers reads the first key. naver's
# repositories had the second key before they had sentence-transformers files.
_STATEMENTS = {"is_causal": False, "bidirectional": True}
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def head_of(repository: Repository, folder: str, config: Mapping[str, Any]) -> tuple[Head, Attention | None]:
    """Return the kind of a transformer's head and, for a language model, the kind of its attention (otherwise None).

    Args:
        repository: The repository of the transformer.
        folder: The transformer's folder within the repository. "" is the root.
        config: The content of the config.json in this folder.
    Raises:
        UnsupportedModelError: The configuration contradicts itself, or the repository holds only an adapter.
    """
    if not is_language_model(config):
        return "masked LM", None
    adapter = repository.json(path_in(folder, "lora/adapter_config.json"))
    if adapter is not None and all(repository.path(path_in(folder, name)) is None for name in _WEIGHTS):
        base = adapter.get("base_model_name_or_path") if isinstance(adapter, Mapping) else None
        raise UnsupportedModelError(
            f"{repository.name!r} must have the weights of the whole model, got only a LoRA adapter for {base!r} "
            f"(in lora/). Merge the adapter into that model with peft (merge_and_unload). Save the result in a folder, "
            "together with the other files of the repository, and name the folder."
        )
    return "language model", _attention(repository.name, config)


def is_language_model(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json describes a decoder that generates text.

    Example:
        >>> is_language_model({"architectures": ["Qwen3ForCausalLM"]}), is_language_model({"model_type": "bert"})
        (True, False)
    """
    stated = architectures(config)
    if any(name.endswith("ForMaskedLM") for name in stated):
        return False
    return any(name.endswith("ForCausalLM") for name in stated) or str(config.get("model_type")) in _MODEL_TYPES


def refuse_bare_decoder(repository: Repository, config: Mapping[str, Any]) -> None:
    """Raise UnsupportedModelError if a repository without sentence-transformers files holds a decoder.

    Args:
        repository: A repository that has no modules.json.
        config: The content of its config.json.
    """
    if config.get("model_type") == "splade":
        raise UnsupportedModelError(
            f"{repository.name!r} must have a modules.json, got an early revision of a naver repository. Its own "
            f"code loads {config.get('model_name_or_path')!r}. Use a revision with modules.json, such as the "
            "newest one of naver/splade-code-06B."
        )
    if is_language_model(config):
        found = next(iter(architectures(config)), config.get("model_type"))
        raise UnsupportedModelError(
            f"{repository.name!r} must have a modules.json that states SpladePooling, got a {found} without a "
            "modules.json. Most decoders only write text. Use a decoder that was trained as a SPLADE model, such as "
            "naver/splade-code-06B, or a …ForMaskedLM checkpoint."
        )


def _attention(name: str, config: Mapping[str, Any]) -> Attention:
    """Return the attention that the configuration states. The default is "causal", as in transformers' decoders."""
    stated = {key: config[key] for key in _STATEMENTS if config.get(key) is not None}
    for key, value in stated.items():
        if not isinstance(value, bool):
            raise UnsupportedModelError(
                f"{name!r} must state {key} as true or false, got {value!r}. Correct its config.json."
            )
    meanings = {value == _STATEMENTS[key] for key, value in stated.items()}
    if len(meanings) > 1:
        raise UnsupportedModelError(
            f"{name!r} must state one kind of attention, got {stated}. Remove the wrong one from its config.json."
        )
    return "bidirectional" if True in meanings else "causal"
