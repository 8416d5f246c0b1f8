"""What decides an encoder's rows, small enough to be kept beside them, and how two encoders differ.

Knows model descriptions and where files lie; neither torch nor Milvus.
"""

import json
from dataclasses import asdict, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

from splade_integrations.models.repository import path_in
from splade_integrations.models.spec import ModelSpec, RoleSpec, TransformerSpec
from splade_integrations.sparse import Pruning

__all__ = ["Fingerprint", "differences", "fingerprint_of", "name_of"]

# Plain JSON, flat. Whatever is as it mostly is (no prompt, no pruning) is left out, so that a collection made before an
# option existed fits an encoder that does not use it.
Fingerprint = dict[str, Any]

# What says where the weights came from and not what they are: named in messages, never compared.
_ORIGIN = ("model", "commit")
# In the order in which transformers looks for them.
_WEIGHTS_FILES = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
_BLOCKS, _BLOCK_BYTES = 256, 4096


def fingerprint_of(
    model_name: str, description: ModelSpec, *, document_pruning: Pruning, **settings: Any
) -> Fingerprint:
    """What decides the rows that an encoder gives to documents, and which queries fit them.

    The weights count by their content, not by name, path or commit: the same model from a hub, or from a folder on
    another machine, is the same. They are hashed by a sample, `weights_hash`. How queries are pruned, and the number
    type, are left out, since they may change over one collection.

    Args:
        model_name: What the model was asked for by.
        description: Of the model.
        document_pruning: Which terms of documents are kept.
        **settings: Further options that decide rows, such as `max_length`; None is left out.

    Example:
        >>> from splade_integrations import SpladeEncoder
        >>> fingerprint = SpladeEncoder(model_folder, max_length=256, query_prompt="query: ").fingerprint
        >>> fingerprint["max_length"], fingerprint["query_prompt"], fingerprint["document_pooling_strategy"]
        (256, 'query: ', 'max')
    """
    sides = {"document": description.document, "query": description.query}
    files = list(dict.fromkeys(path for side in sides.values() for path in _weights_files(side)))
    found: Fingerprint = {
        "model": model_name,
        "commit": next(filter(None, map(_commit, files)), None),
        "weights": weights_hash(files),
        **{f"{name}_{key}": value for name, side in sides.items() for key, value in _settings(side).items()},
        **{f"document_{key}": value for key, value in asdict(document_pruning).items()},
        "special_terms": description.special_terms,
        **settings,
    }
    return {key: value for key, value in found.items() if value not in (None, "", False)}


def differences(recorded: Fingerprint, given: Fingerprint) -> list[str]:
    """Names of what differs between two encoders, their names and commits aside."""
    keys = dict.fromkeys([*recorded, *given])
    return [key for key in keys if key not in _ORIGIN and recorded.get(key) != given.get(key)]


def name_of(fingerprint: Fingerprint, keys: list[str]) -> str:
    """A fingerprint in words: its model, and its values under `keys`.

    Example:
        >>> name_of({"model": "org/x", "weights": "9af1", "max_length": 256}, ["max_length", "document_prompt"])
        "'org/x' (max_length 256, document_prompt None)"
    """
    values = ", ".join(f"{key} {fingerprint.get(key)!r}" for key in keys)
    commit = f" at {fingerprint['commit'][:12]}" if "commit" in fingerprint else ""
    return f"{fingerprint.get('model')!r}{commit} ({values})"


def weights_hash(files: list[Path]) -> str:
    """A hash of weights files, for about the price of 256 page reads a file.

    It covers each file's size and 256 blocks of 4 KiB, evenly spread from the first, where safetensors has its names
    and shapes, to the last. Another model, another size and any fine-tuning of more than a few rows change it; hashing
    all of BERT-base would take half a second, a multilingual model seconds.
    """
    digest = blake2b(digest_size=8)
    for path in files:
        size = path.stat().st_size
        digest.update(size.to_bytes(8))
        with path.open("rb") as file:
            for block in range(_BLOCKS):
                file.seek(max(0, size - _BLOCK_BYTES) * block // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK_BYTES))
                if size <= _BLOCK_BYTES:
                    break
    return digest.hexdigest()


def _settings(side: RoleSpec) -> Fingerprint:
    """All that decides a side's rows but its weights."""
    settings: Fingerprint = {"prompt": side.prompt}
    if side.transformer is not None:
        names = (
            field.name for field in fields(TransformerSpec) if field.name not in ("repository", "folder", "max_length")
        )
        settings |= {name: getattr(side.transformer, name) for name in names}
    if side.token_weights is not None:
        settings["token_weights"] = side.token_weights.file or "1 each"
    return settings


def _weights_files(side: RoleSpec) -> list[Path]:
    files: list[Path | None] = []
    if side.transformer is not None:
        files += _transformer_files(side.transformer)
    if side.token_weights is not None and side.token_weights.file is not None:
        files.append(side.token_weights.repository.path(side.token_weights.file))
    return [path for path in files if path is not None]


def _transformer_files(transformer: TransformerSpec) -> list[Path | None]:
    for name in _WEIGHTS_FILES:
        path = transformer.repository.path(path_in(transformer.folder, name))
        if path is not None and path.suffix == ".json":
            shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
            return [path, *(transformer.repository.path(path_in(transformer.folder, shard)) for shard in shards)]
        if path is not None:
            return [path]
    return []  # of a layout that transformers knows and we do not: the settings are compared alone


def _commit(path: Path) -> str | None:
    """The commit of a file in a hub's cache, …/snapshots/<commit>/…, or None."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None
