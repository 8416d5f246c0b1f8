"""What decides an encoder's rows, small enough to be stored beside them, and how two encoders differ.

Knows model descriptions and where files lie; knows neither torch nor Milvus.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

from splade_integrations.models.repository import path_in
from splade_integrations.models.spec import ModelSpec, RoleSpec, TransformerSpec
from splade_integrations.sparse import Pruning

__all__ = ["Fingerprint", "RoleFingerprint", "compute_fingerprint", "fingerprint_of"]

# In the order in which transformers looks for them.
_WEIGHTS_FILES = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
_BLOCKS, _BLOCK_BYTES = 256, 4096
# Fields of `Fingerprint` that are stored under their own names.
_PLAIN = ("model", "commit", "weights", "special_terms", "max_length", "max_windows")
# Where the weights came from, which says nothing about what they are: shown in messages, never compared.
_ORIGIN = ("model", "commit")


@dataclass(frozen=True)
class RoleFingerprint:
    """Everything that decides the rows of documents, or of queries, except the weights and the pruning.

    Args:
        prompt: Put before each text.
        pooling_strategy: As `TransformerSpec` has it; None if the side is inference-free.
        activation_function: As `TransformerSpec` has it; None if the side is inference-free.
        lower_case: Whether texts are lowercased before they are tokenised.
        token_weights: The file of fixed token weights, "1 each" if every token weighs 1, or None.
    """

    prompt: str = ""
    pooling_strategy: str | None = None
    activation_function: str | None = None
    lower_case: bool = False
    token_weights: str | None = None


@dataclass(frozen=True)
class Fingerprint:
    """What decides the rows that an encoder gives to documents, and which queries fit them.

    The weights count by their content, not by name, path or commit: the same model from a hub, or from a folder on
    another machine, is the same. How queries are pruned and the number type are left out, because they may change over
    one collection.

    Args:
        model: The name under which the model was requested. Shown in messages, never compared.
        commit: The commit of a hub repository, or None. Shown in messages, never compared.
        weights: `weights_hash` of the weights files.
        document: How documents become rows.
        query: How queries become rows.
        document_pruning: Which terms of a document are kept.
        special_terms: "keep" or "drop", for the terms of special tokens; None is unknown.
        max_length: Most tokens of a text, or of a window of it.
        max_windows: Most windows of a document; None cuts it after `max_length` tokens.
        unknown: Stored values that this version has no name for; a later version wrote them. They are compared.

    Example:
        >>> fingerprint = Fingerprint(model="org/x", weights="9af1", max_length=256)
        >>> fingerprint.to_json()
        '{"model": "org/x", "weights": "9af1", "max_length": 256}'
        >>> fingerprint.differences(Fingerprint.from_json('{"model": "y", "weights": "9af1", "max_length": 64}'))
        ['max_length']
    """

    model: str | None = None
    commit: str | None = None
    weights: str | None = None
    document: RoleFingerprint = field(default_factory=RoleFingerprint)
    query: RoleFingerprint = field(default_factory=RoleFingerprint)
    document_pruning: Pruning = field(default_factory=Pruning)
    special_terms: str | None = None
    max_length: int | None = None
    max_windows: int | None = None
    unknown: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_json(self) -> str:
        """Return the stored form: one flat JSON object, which `from_json` reads.

        Collections of users hold it, so its keys must never change.
        """
        return json.dumps(self._stored())

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint":
        """Read what `to_json` returned, in this version or another one."""
        stored: dict[str, Any] = json.loads(text)
        return cls(
            document=RoleFingerprint(**_take(stored, "document_", RoleFingerprint)),
            query=RoleFingerprint(**_take(stored, "query_", RoleFingerprint)),
            document_pruning=Pruning(**_take(stored, "document_", Pruning)),
            **{name: stored.pop(name) for name in _PLAIN if name in stored},
            unknown=stored,
        )

    def differences(self, other: "Fingerprint") -> list[str]:
        """Return the names of everything that differs between two encoders, except their models' names and commits."""
        ours, theirs = self._stored(), other._stored()
        names = dict.fromkeys([*ours, *theirs])
        return [name for name in names if name not in _ORIGIN and ours.get(name) != theirs.get(name)]

    def query_differences(self, other: "Fingerprint") -> list[str]:
        """Return those `differences` that concern queries.

        How documents were truncated and pruned does not.
        """
        concerned = {"weights", "special_terms", *(f"query_{setting.name}" for setting in fields(RoleFingerprint))}
        return [name for name in self.differences(other) if name in concerned]

    def describe(self, names: list[str]) -> str:
        """Return the model and the values of some `differences`, to be shown.

        Example:
            >>> Fingerprint(model="org/x", weights="9af1", max_length=256).describe(["max_length", "document_prompt"])
            "'org/x' (max_length 256, document_prompt None)"
        """
        stored = self._stored()
        values = ", ".join(f"{name} {stored.get(name)!r}" for name in names)
        commit = f" at {self.commit[:12]}" if self.commit else ""
        return f"{self.model!r}{commit} ({values})"

    def _stored(self) -> dict[str, Any]:
        """Return {name: value} without defaults (no prompt, no pruning).

        They are left out so that a collection made before an option existed fits an encoder that does not use it.
        """
        found: dict[str, Any] = {}
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, RoleFingerprint):
                found |= {f"{part.name}_{name}": setting for name, setting in vars(value).items()}
            elif isinstance(value, Pruning):
                found |= {f"document_{name}": limit for name, limit in vars(value).items()}
            elif part.name in _PLAIN:
                found[part.name] = value
        return {name: value for name, value in (found | dict(self.unknown)).items() if value}


def fingerprint_of(encoder: object) -> Fingerprint | None:
    """Return the fingerprint of an encoder, or of an adapter over one; None if it does not state any."""
    found = getattr(encoder, "fingerprint", None)
    return found if isinstance(found, Fingerprint) else None


def compute_fingerprint(
    model_name: str,
    description: ModelSpec,
    *,
    document_pruning: Pruning,
    max_length: int | None = None,
    max_windows: int | None = None,
) -> Fingerprint:
    """Compute the fingerprint of a model with the options that it is used with.

    Args:
        model_name: The name under which the model was requested.
        description: Of the model.
        document_pruning: Which terms of documents are kept.
        max_length: Most tokens of a text, or of a window of it.
        max_windows: Most windows of a document, or None.

    Example:
        >>> from splade_integrations import SpladeEncoder
        >>> fingerprint = SpladeEncoder(model_folder, max_length=256, query_prompt="query: ").fingerprint
        >>> fingerprint.max_length, fingerprint.query.prompt, fingerprint.document.pooling_strategy
        (256, 'query: ', 'max')
    """
    files = list(dict.fromkeys([*_weights_files(description.document), *_weights_files(description.query)]))
    return Fingerprint(
        model=model_name,
        commit=next(filter(None, map(_commit, files)), None),
        weights=weights_hash(files),
        document=_settings(description.document),
        query=_settings(description.query),
        document_pruning=document_pruning,
        special_terms=description.special_terms,
        max_length=max_length,
        max_windows=max_windows,
    )


def weights_hash(files: list[Path]) -> str:
    """Hash weights files by a sample, for about the price of 256 page reads a file.

    The sample is each file's size and 256 blocks of 4 KiB. The blocks are evenly spread from the first, where
    safetensors has its names and shapes, to the last. Another model, another size and any fine-tuning of more than a
    few rows change the hash. Hashing all of BERT-base would take half a second, a multilingual model seconds.
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


def _take(stored: dict[str, Any], prefix: str, kind: type) -> dict[str, Any]:
    """Remove from `stored` the values of this dataclass's fields, whose keys begin with `prefix`, and return them."""
    names = [part.name for part in fields(kind)]
    return {name: stored.pop(f"{prefix}{name}") for name in names if f"{prefix}{name}" in stored}


def _settings(role: RoleSpec) -> RoleFingerprint:
    token_weights = None if role.token_weights is None else role.token_weights.file or "1 each"
    if role.transformer is None:
        return RoleFingerprint(role.prompt, token_weights=token_weights)
    return RoleFingerprint(
        role.prompt,
        role.transformer.pooling_strategy,
        role.transformer.activation_function,
        role.transformer.lower_case,
        token_weights,
    )


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
    return []  # transformers may know a file that we do not: then the settings are compared alone


def _commit(path: Path) -> str | None:
    """Return the commit of a file in a hub's cache, …/snapshots/<commit>/…, or None."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None
