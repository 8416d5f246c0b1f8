"""Checks a config.json before any code builds a model from it, and refuses a harmful file.

A harmful file can ask for other packages, for code, or for more memory and time than the weights need.
"""

from collections.abc import Mapping
from typing import Any

from splade_integrations.errors import UnsupportedModelError
from splade_integrations.models.repository import Repository, path_in
from splade_integrations.sparse import is_integer

__all__ = ["architectures", "check_config"]

# The implementations of attention that need no package besides transformers and torch. Other values need a further
# package, or kernels from the hub.
_ATTENTION = (None, "eager", "sdpa")
_ATTENTION_KEYS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
_LAYER_KEYS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer")
_NUMBER_KEYS = (*_LAYER_KEYS, "max_position_embeddings", "pad_token_id", "vocab_size")
# The largest number of layers that is accepted. transformers makes all layers before it compares them with the weights,
# so a false number could use up all memory. The largest known models have 126 layers.
_MOST_LAYERS = 1000
# The largest integer that is accepted, for example as the size of a vocabulary or of a layer, or as a number of
# positions. Some models state 2**20 positions.
_MOST = 2**24


def architectures(config: Mapping[str, Any]) -> list[str]:
    """Return the names of the model classes that a config.json states."""
    stated = config.get("architectures")
    return [name for name in stated if isinstance(name, str)] if isinstance(stated, list) else []


def check_config(repository: Repository, folder: str) -> Mapping[str, Any]:
    """Read and check the config.json in a folder of a repository.

    Args:
        repository: The repository.
        folder: The folder within the repository. "" is its root.
    Returns:
        The content of the file, or {} if the folder has no such file.
    Raises:
        UnsupportedModelError: The file is damaged, asks for a quantisation or an attention that needs other packages,
            or states a size that no model has. The message names the file and the key.
    """
    file = path_in(folder, "config.json")
    config = repository.json(file)
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise UnsupportedModelError(
            f"{repository.name!r} must have a {file} that is a JSON object, got {str(config)[:80]}. Download it again."
        )

    def refuse(key: str, rule: str, advice: str) -> None:
        raise UnsupportedModelError(
            f"in {file} of {repository.name!r}, {key} must be {rule}, got {str(config[key])[:80]!r}. {advice}"
        )

    if config.get("quantization_config") is not None:
        refuse(
            "quantization_config",
            "null",
            "Use the checkpoint that was not quantised. SpladeEncoder(…, dtype='int8') quantises it on a CPU.",
        )
    for key in _ATTENTION_KEYS:
        if not isinstance(config.get(key), str | None) or config.get(key) not in _ATTENTION:
            refuse(key, "eager or sdpa", "Remove the key.")
    for key, value in config.items():
        if isinstance(value, int) and abs(value) > _MOST:
            refuse(key, f"a number of at most {_MOST:,}", "Download the model again.")
        if key in _NUMBER_KEYS and value is not None and not is_integer(value):
            refuse(key, "an int", "Download the model again.")
        if key in _LAYER_KEYS and not 0 <= (value or 0) <= _MOST_LAYERS:
            refuse(key, f"a number from 0 to {_MOST_LAYERS}", "Download the model again.")
    return config
