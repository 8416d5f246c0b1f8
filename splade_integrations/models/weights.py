"""Says which weights a folder holds: a checkpoint with or without an adapter, only an adapter, or only ONNX files.

An adapter holds changes to a checkpoint's weights. peft trains adapters, such as LoRA, and saves them in the folder of
the checkpoint or in a separate folder. This module reads small files and names of files. It loads no weights.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from splade_integrations.errors import UnsupportedModelError
from splade_integrations.models.known import onnx_original
from splade_integrations.models.repository import Repository, path_in

__all__ = ["WEIGHTS_FILES", "Adapter", "check_weights", "find_adapter", "missing_weights", "weights_files"]

# transformers looks for the weights in these files, in this order.
WEIGHTS_FILES = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Adapter:
    """An adapter in a folder of a repository.

    Args:
        kind: peft's name for this kind of adapter, such as LORA.
        base: The checkpoint that the adapter was trained on, as adapter_config.json names it, or None.
        config_file: The file of the adapter's settings, as a path in the repository.
        weights_files: The files that may hold the adapter's weights, as paths in the repository.
    """

    kind: str
    base: str | None
    config_file: str
    weights_files: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} adapter" + (f" for {self.base!r}" if self.base else "")


def find_adapter(repository: Repository, folder: str) -> Adapter | None:
    """Return the adapter in a folder of a repository, or None if there is none. "" is the repository's root.

    Raises:
        UnsupportedModelError: The adapter's settings are damaged.
    """
    config_file = path_in(folder, _ADAPTER_CONFIG)
    config = repository.json(config_file)
    if config is None and repository.path(config_file) is None:
        return None
    kind, base = (
        (config.get("peft_type"), config.get("base_model_name_or_path")) if isinstance(config, dict) else (0, 0)
    )
    if not isinstance(kind, str) or not isinstance(base, str | None):
        raise UnsupportedModelError(
            f"{repository.name!r} must have an {config_file} that states peft_type and base_model_name_or_path as "
            f"strings, got {str(config)[:80]}. Download the adapter again."
        )
    return Adapter(kind, base, config_file, tuple(path_in(folder, name) for name in _ADAPTER_WEIGHTS))


def check_weights(repository: Repository, folder: str) -> None:
    """Refuse a folder that holds only an adapter or only ONNX files, or that links to files outside the repository.

    This check comes before any weights are loaded. A hub repository that has a config.json passes without a check of
    its weights, because listing its files would take another request.

    Raises:
        UnsupportedModelError: The folder holds no checkpoint. The message says what the folder holds, and what is
            missing. Or a link leads out of the repository.
    """
    repository.check_links(folder)
    without_config = repository.path(path_in(folder, "config.json")) is None
    if (repository.local_folder is not None or without_config) and (message := missing_weights(repository, folder)):
        raise UnsupportedModelError(message)


def weights_files(repository: Repository, folder: str) -> list[str]:
    """Return the files of a checkpoint's weights, as paths in the repository. [] means that none was found.

    If the weights are in several files, an index names these files. The index then comes first in the returned list.

    Args:
        repository: The repository. Weights on the hub are downloaded.
        folder: The folder within the repository. "" is its root.
    Raises:
        FileNotFoundError: The index names a file that is missing.
        UnsupportedModelError: The index is damaged, or names a file outside the repository.
    """
    for name in WEIGHTS_FILES:
        file = path_in(folder, name)
        if repository.path(file) is None:
            continue
        if not name.endswith(".json"):
            return [file]
        shards = [path_in(folder, shard) for shard in _shards(repository, file)]
        if (missing := next((shard for shard in shards if repository.path(shard) is None), None)) is not None:
            raise FileNotFoundError(
                f"{repository.name!r} must have all weights files that its {file} names, but {missing[:80]!r} is "
                "missing. Download it again."
            )
        return [file, *shards]
    return []


def _shards(repository: Repository, index: str) -> list[str]:
    """Return the names of the weights files that an index lists, sorted and without duplicates."""
    content = repository.json(index)
    stated = content.get("weight_map") if isinstance(content, Mapping) else None
    if isinstance(stated, Mapping) and stated and all(isinstance(shard, str) and shard for shard in stated.values()):
        if isinstance(content.get("metadata"), Mapping):
            return sorted(set(stated.values()))
        stated = content.get("metadata")
    raise UnsupportedModelError(
        f"{repository.name!r} must have a {index} with the objects metadata and weight_map, got {str(stated)[:80]}. "
        "weight_map must give the file of each weight. Download it again."
    )


def missing_weights(repository: Repository, folder: str) -> str | None:
    """Return a message that says what a folder holds in place of a checkpoint.

    If the folder holds a checkpoint, or if its content is not known, the result is None.

    Args:
        repository: A local folder or a hub repository. For a hub repository, the hub is asked for a list of its files.
        folder: The folder within the repository. "" is its root.
    """
    files = repository.files(folder)
    names = {file for file in files if "/" not in file}
    has_weights = any(_is_checkpoint(name) for name in names)
    if _ADAPTER_CONFIG in names and not (has_weights and "config.json" in names):
        adapter = find_adapter(repository, folder)
        missing = "config.json" if has_weights else "weights" if "config.json" in names else "config.json and weights"
        base = "the checkpoint" if adapter is None or adapter.base is None else repr(adapter.base)
        return (
            f"{repository.name!r} must hold a whole checkpoint, got only a {adapter}. Copy the {missing} of {base} "
            "beside it. Or merge the two with peft's merge_and_unload, save the result and name its folder."
        )
    onnx = sorted(file for file in files if file.endswith(".onnx"))
    if not onnx or has_weights:
        return None
    original = onnx_original(repository) or _stated_base(repository)
    return (
        f"{repository.name!r} must have weights in safetensors or .bin, got only ONNX files ({onnx[0]}), which this "
        f"package does not run. Use {f'the original repository, {original!r}' if original else 'the original model'}."
    )


def _is_checkpoint(name: str) -> bool:
    path = PurePosixPath(name)
    return name in WEIGHTS_FILES or (path.suffix == ".safetensors" and not name.startswith("adapter_"))


def _stated_base(repository: Repository) -> str | None:
    """Return the model that a repository's model card names as its base, or None."""
    stated = re.search(r"^base_model:\s*(?:-\s*)?['\"]?([\w.-]+/[\w.-]+)", repository.model_card(), re.MULTILINE)
    return stated.group(1) if stated else None
