"""Fingerprints of encoders. If two encoders have equal fingerprints, their sparse rows can be compared with each other.

Unequal fingerprints show how the encoders differ. A fingerprint is small, and is stored together with the rows. To
compute a fingerprint, this module reads small files and samples of the weights files. It loads no weights.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

from splade_integrations.models.spec import ModelSpec, RoleSpec, TransformerSpec
from splade_integrations.models.token_heads import SPARSE_LINEAR
from splade_integrations.models.weights import find_adapter, weights_files
from splade_integrations.pruning import Pruning

__all__ = ["Fingerprint", "RoleFingerprint", "compute_fingerprint", "fingerprint_of"]

_BLOCKS, _BLOCK_BYTES = 256, 4096
# The fields of `Fingerprint` that are stored under their own names.
_PLAIN = ("model", "commit", "weights", "special_terms", "max_length", "max_windows")
# The fields that say where the weights came from. The origin of weights does not affect rows, so these fields are never
# compared. Messages show them.
_ORIGIN = ("model", "commit")


@dataclass(frozen=True)
class RoleFingerprint:
    """The settings of one role, which is either documents or queries. `Fingerprint` holds the settings of both roles.

    Args:
        prompt: The string that is put before each text.
        pooling_strategy: As in `TransformerSpec`. None if the role is inference-free.
        activation_function: As in `TransformerSpec`. None if the role is inference-free, or if `head` is "token
            weights".
        lower_case: Whether texts are lowercased before they are tokenised.
        token_weights: The file of fixed token weights, "1 each" if every token weighs 1, or None if there are no fixed
            weights.
        head: As in `TransformerSpec`, but None for a masked LM, because fingerprints in older collections have no head.
        attention: As in `TransformerSpec`.
    """

    prompt: str = ""
    pooling_strategy: str | None = None
    activation_function: str | None = None
    lower_case: bool = False
    token_weights: str | None = None
    head: str | None = None
    attention: str | None = None


@dataclass(frozen=True)
class Fingerprint:
    """Everything that affects an encoder's rows of documents, or their comparison with rows of queries.

    Weights are compared by their content, not by name, path or commit. So a model from a hub and its copy in a folder
    on another machine count as the same model. A fingerprint contains neither the pruning of queries nor the number
    type (dtype), because both may differ between encoders that use the same collection.

    Args:
        model: The name under which the model was requested. Messages show it, but it is never compared.
        commit: The commit of a hub repository, or None. Messages show it, but it is never compared.
        weights: The `weights_hash` of the weights files.
        document: How documents become rows.
        query: How queries become rows.
        document_pruning: Which terms of a document are kept.
        special_terms: Whether to "keep" or "drop" the terms of special tokens. None means unknown.
        max_length: The largest number of tokens of a text, or of a window of it.
        max_windows: The largest number of windows of a document. None means that documents are cut after `max_length`
            tokens.
        unknown: Stored values that a later version of this package wrote, and that this version does not know. They are
            compared as well.

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
        """Return the stored form, which is one flat JSON object that `from_json` reads.

        Users' collections hold this form, so its keys must never change.
        """
        return json.dumps(self._stored())

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint":
        """Read the stored form that `to_json` returned, in this version of the package or in another version."""
        stored: dict[str, Any] = json.loads(text)
        return cls(
            document=RoleFingerprint(**_take(stored, "document_", RoleFingerprint)),
            query=RoleFingerprint(**_take(stored, "query_", RoleFingerprint)),
            document_pruning=Pruning(**_take(stored, "document_", Pruning)),
            **{name: stored.pop(name) for name in _PLAIN if name in stored},
            unknown=stored,
        )

    def differences(self, other: "Fingerprint") -> list[str]:
        """Return the names of all values that differ between two encoders, except their models' names and commits."""
        ours, theirs = self._stored(), other._stored()
        names = dict.fromkeys([*ours, *theirs])
        return [name for name in names if name not in _ORIGIN and ours.get(name) != theirs.get(name)]

    def query_differences(self, other: "Fingerprint") -> list[str]:
        """Return only those `differences` that concern queries.

        Differences in the truncation and pruning of documents do not concern queries.
        """
        concerned = {"weights", "special_terms", *(f"query_{setting.name}" for setting in fields(RoleFingerprint))}
        return [name for name in self.differences(other) if name in concerned]

    def describe(self, names: list[str]) -> str:
        """Return the model's name, its commit if known, and the values named in `names`, as text for a message.

        Example:
            >>> Fingerprint(model="org/x", weights="9af1", max_length=256).describe(["max_length", "document_prompt"])
            "'org/x' (max_length 256, document_prompt None)"
        """
        stored = self._stored()
        values = ", ".join(f"{name} {stored.get(name)!r}" for name in names)
        commit = f" at {self.commit[:12]}" if self.commit else ""
        return f"{self.model!r}{commit} ({values})"

    def _stored(self) -> dict[str, Any]:
        """Return {name: value} of all values except empty ones, such as an empty prompt or no pruning.

        If a collection is older than an option of the encoder, the stored fingerprint has no value for that option.
        Because empty values are left out, it still equals the fingerprint of an encoder that does not use the option.
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
    """Return the fingerprint of an encoder or adapter, or None if there is no fingerprint."""
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
    """Compute the fingerprint of a model together with its options.

    Args:
        model_name: The name under which the model was requested.
        description: The spec of the model.
        document_pruning: Which terms of documents are kept.
        max_length: The largest number of tokens of a text, or of a window of it.
        max_windows: The largest number of windows of a document, or None.

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
    """Hash a sample of each weights file.

    The sample is the file's size and 256 blocks of 4 KiB. The blocks are spread evenly from the start of the file,
    where safetensors stores names and shapes, to its end. The hash changes with the model, with its size, and with any
    fine-tuning that changes more than a few rows of a weight matrix. Hashing whole files would take half a second for
    BERT-base, and seconds for a multilingual model.
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
    """Remove the fields of the dataclass `kind` from `stored`, and return them.

    In `stored`, the name of each of these fields begins with `prefix`.
    """
    names = [part.name for part in fields(kind)]
    return {name: stored.pop(f"{prefix}{name}") for name in names if f"{prefix}{name}" in stored}


def _settings(role: RoleSpec) -> RoleFingerprint:
    token_weights = None if role.token_weights is None else role.token_weights.file or "1 each"
    if role.transformer is None:
        return RoleFingerprint(role.prompt, lower_case=role.lower_case, token_weights=token_weights)
    return RoleFingerprint(
        role.prompt,
        role.transformer.pooling_strategy,
        None if role.transformer.head == "token weights" else role.transformer.activation_function,
        role.lower_case,
        token_weights,
        None if role.transformer.head == "masked LM" else role.transformer.head,
        role.transformer.attention,
    )


def _weights_files(side: RoleSpec) -> list[Path]:
    files: list[Path | None] = []
    if side.transformer is not None:
        files += _transformer_files(side.transformer)
        if side.transformer.head == "token weights":
            files.append(side.transformer.repository.path(SPARSE_LINEAR))
    if side.token_weights is not None and side.token_weights.file is not None:
        files.append(side.token_weights.repository.path(side.token_weights.file))
    return [path for path in files if path is not None]


def _transformer_files(transformer: TransformerSpec) -> list[Path | None]:
    """Return the files of a checkpoint's weights, and the files of the adapter beside the checkpoint, if any.

    Weights that transformers reads from other files are not compared.
    """
    repository = transformer.repository
    adapter = find_adapter(repository, transformer.folder)
    changes = [] if adapter is None else [adapter.config_file, *adapter.weights_files]
    return [repository.path(file) for file in [*weights_files(repository, transformer.folder), *changes]]


def _commit(path: Path) -> str | None:
    """Return the commit in the path of a cached hub file, …/snapshots/<commit>/…, or None for other files."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None
