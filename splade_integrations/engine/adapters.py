"""Merges an adapter, such as LoRA, into the weights of the checkpoint beside it. The package peft reads the adapter.

After merging, the model has only the layers of the checkpoint. So all optimisations of this package apply to it.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from splade_integrations.dependencies import require_extra
from splade_integrations.errors import UnsupportedModelError, first_line
from splade_integrations.models.repository import Repository
from splade_integrations.models.weights import Adapter

__all__ = ["check_peft", "merge_adapter"]

_NAME = "default"  # peft's own default name of an adapter


def check_peft(repository: Repository, adapter: Adapter) -> None:
    """Raise OptionalDependencyError if peft is not installed. Without peft, transformers ignores the adapter."""
    with require_extra("peft", module=f"The {adapter} in {repository.name!r}"):
        import peft  # noqa: F401


def merge_adapter(repository: Repository, adapter: Adapter, model: Any) -> Any:
    """Return `model` with the adapter's changes added to its weights.

    Args:
        repository: The repository that holds the adapter.
        adapter: The adapter.
        model: The checkpoint's model, in float32.
    Raises:
        OptionalDependencyError: peft is not installed.
        UnsupportedModelError: The adapter is damaged, does not fit the checkpoint, or is of a kind that changes no
            weights, such as prompt tuning.
    """
    check_peft(repository, adapter)
    tied = _untie(model)
    try:
        merged = _merged(repository, adapter, model)
    except UnsupportedModelError:
        raise
    except Exception as err:  # peft raises errors of many types
        raise UnsupportedModelError(
            f"{repository.name!r} must have an adapter that fits the checkpoint beside it, got a {adapter} and the "
            f"error: {first_line(err)} Use the checkpoint that the adapter was trained on."
        ) from err
    if tied and torch.equal(merged.get_input_embeddings().weight, merged.get_output_embeddings().weight):
        merged.get_output_embeddings().weight = merged.get_input_embeddings().weight
    return merged


def _merged(repository: Repository, adapter: Adapter, model: Any) -> Any:
    from peft import PeftConfig, PeftModel, set_peft_model_state_dict

    name = repository.name
    settings_file = repository.path(adapter.config_file)
    weights_file = next(filter(None, map(repository.path, adapter.weights_files)), None)
    if settings_file is None or weights_file is None:
        raise UnsupportedModelError(
            f"{name!r} must have {' or '.join(adapter.weights_files)} beside {adapter.config_file}, got neither. "
            "Download the adapter again."
        )
    settings = PeftConfig.from_pretrained(str(settings_file.parent))
    settings.inference_mode = True
    if settings.is_prompt_learning:
        raise UnsupportedModelError(
            f"{name!r} must have an adapter that changes weights, got a {adapter}, which adds tokens instead. Use a "
            "LoRA adapter, or a whole checkpoint."
        )
    wrapped = PeftModel(model, settings, adapter_name=_NAME)
    loaded = set_peft_model_state_dict(wrapped, _read(weights_file), adapter_name=_NAME)
    missing = [key for key in loaded.missing_keys if f".{_NAME}" in key]
    if missing or loaded.unexpected_keys:
        found = f"lacks {missing[0]}" if missing else f"has the unknown weight {loaded.unexpected_keys[0]}"
        raise UnsupportedModelError(
            f"{name!r} must have an adapter that fits the checkpoint beside it, got a {adapter} that {found}. Use the "
            "checkpoint that the adapter was trained on, or download the adapter again."
        )
    return wrapped.merge_and_unload(safe_merge=True)


def _read(path: Path) -> dict[str, Tensor]:
    """Read an adapter's weights from safetensors, or with torch's weights-only loader, which runs no code."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    weights: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    return weights


def _untie(model: Any) -> bool:
    """Give the decoder a copy of its weights if it shares them with the embeddings. Return whether it shared them.

    An adapter changes either the decoder or the embeddings. If the two still shared weights, the change would reach
    both.
    """
    embeddings, decoder = model.get_input_embeddings(), model.get_output_embeddings()
    if decoder is None or getattr(decoder, "weight", None) is not embeddings.weight:
        return False
    decoder.weight = nn.Parameter(decoder.weight.detach().clone())
    return True
