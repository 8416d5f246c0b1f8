"""Reads the settings and weights of BERT, RoBERTa and DistilBERT from their files, without transformers.

Each setting and each weight is checked. If one is not what this module expects, it raises `UnexpectedCheckpointError`,
and transformers loads the checkpoint or says what is wrong with it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import nn

from splade_integrations.models.repository import Repository
from splade_integrations.models.weights import weights_files
from splade_integrations.sparse import is_integer

__all__ = ["FAMILIES", "BertFamily", "BertSizes", "BertWeights", "UnexpectedCheckpointError", "open_weights"]


class UnexpectedCheckpointError(Exception):
    """A configuration or a weight is not what this module expects."""


@dataclass(frozen=True)
class BertFamily:
    """What the checkpoints of a model type call their settings and weights.

    Args:
        architecture: The class in transformers.
        prefix: The prefix of the weights of the backbone.
        sizes: The keys of config.json for the first four of `BertSizes`.
        activation: The key of config.json for the activation.
        layer: The place of layer {}, behind the prefix.
        in_layer: The places of the parts of a layer, in the order of `FusedLayer`'s arguments.
        head: The places of the head's linear layer, its norm, and its decoder.
        biases: The names under which a checkpoint may hold the decoder's bias.
        epsilon: The key of config.json for the epsilon of layer norms. If None, it is 1e-12.
        has_types: Whether a token type (the first or the second text of a pair) has an embedding.
        counts_from_padding: Whether positions are counted from the padding id + 1, without the padding tokens.
    """

    architecture: str
    prefix: str
    sizes: tuple[str, str, str, str]
    activation: str
    layer: str
    in_layer: tuple[str, str, str, str, str, str, str, str]
    head: tuple[str, str, str]
    biases: tuple[str, ...]
    epsilon: str | None = "layer_norm_eps"
    has_types: bool = True
    counts_from_padding: bool = False


_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_IN_BERT_LAYER = (
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
FAMILIES = {
    "bert": BertFamily(
        "BertForMaskedLM", "bert.", _SIZES, "hidden_act", "encoder.layer.{}.", _IN_BERT_LAYER,
        ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder"),
        ("cls.predictions.bias", "cls.predictions.decoder.bias"),
    ),
    "distilbert": BertFamily(
        "DistilBertForMaskedLM", "distilbert.", ("dim", "hidden_dim", "n_layers", "n_heads"), "activation",
        "transformer.layer.{}.",
        (
            "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
            "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm",
        ),
        ("vocab_transform", "vocab_layer_norm", "vocab_projector"),
        ("vocab_projector.bias",),
        epsilon=None, has_types=False,
    ),
    **{
        model_type: BertFamily(
            architecture, "roberta.", _SIZES, "hidden_act", "encoder.layer.{}.", _IN_BERT_LAYER,
            ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder"), ("lm_head.bias", "lm_head.decoder.bias"),
            counts_from_padding=True,
        )
        for model_type, architecture in (("roberta", "RobertaForMaskedLM"), ("xlm-roberta", "XLMRobertaForMaskedLM"))
    },
}  # fmt: skip
# Settings that would change what the model computes, with the values that change nothing.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (None, False), "is_decoder": (None, False), "position_embedding_type": (None, "absolute"),
    "pruned_heads": (None, {}), "tie_word_embeddings": (None, True),
}  # fmt: skip
# Parts of the names of weights that a checkpoint may hold, and that a masked LM does not use.
_UNUSED = ("pooler.", "position_ids", "seq_relationship.")


class BertSizes(NamedTuple):
    """The settings of a config.json that decide what is computed.

    Args:
        wide: The width of hidden states, H.
        inner: The width between the two linear layers of a layer, I.
        layers: The number of layers.
        heads: The number of attention heads.
        terms: The number of tokens and of terms, V.
        positions: The number of positions that have an embedding.
        types: The number of token types that have an embedding, or None if there are no such embeddings.
        padding_id: The padding token, from which positions are counted, or None if they are counted from 0.
        epsilon: The number that layer norms add to a variance.
    """

    wide: int
    inner: int
    layers: int
    heads: int
    terms: int
    positions: int
    types: int | None
    padding_id: int | None
    epsilon: float

    @classmethod
    def of(cls, family: BertFamily, config: Mapping[str, Any]) -> "BertSizes":
        """Raise `UnexpectedCheckpointError` if a setting is missing, or would change what the model computes."""
        if config.get("architectures") != [family.architecture]:
            raise UnexpectedCheckpointError(f"its config.json states the architectures {config.get('architectures')!r}")
        for key, plain in (_PLAIN | {family.activation: ("gelu",)}).items():
            if config.get(key) not in plain:
                raise UnexpectedCheckpointError(f"its config.json states {key} {config.get(key)!r}")
        wide, inner, layers, heads = (_number(config, key) for key in family.sizes)
        terms, positions = _number(config, "vocab_size"), _number(config, "max_position_embeddings")
        types = _number(config, "type_vocab_size") if family.has_types else None
        padding_id = _number(config, "pad_token_id", least=0) if family.counts_from_padding else None
        epsilon = config.get(family.epsilon) if family.epsilon else 1e-12
        if wide % heads or not isinstance(epsilon, float) or not 0 < epsilon < 1:
            raise UnexpectedCheckpointError(
                f"its config.json states {heads} heads of {wide}, {family.epsilon} {epsilon}"
            )
        return cls(wide, inner, layers, heads, terms, positions, types, padding_id, epsilon)


def _number(config: Mapping[str, Any], key: str, least: int = 1) -> int:
    number = config.get(key)
    if not is_integer(number) or number < least:
        raise UnexpectedCheckpointError(f"its config.json states {key} {number!r}")
    return number


class BertWeights:
    """The weights of a checkpoint. Each one is checked when it is taken.

    Args:
        files: The opened safetensors files.
        dtype: The type in which the weights are returned.
    """

    def __init__(self, files: list[Any], dtype: torch.dtype) -> None:
        self._files = {name: file for file in files for name in file.keys()}  # noqa: SIM118 (it is no dict)
        self._dtype = dtype
        self._left = set(self._files)

    def take(self, name: str, *shape: int) -> nn.Parameter:
        """Return a weight. It must have the shape, and must be finite in the type in which it is returned."""
        if name not in self._files:
            raise UnexpectedCheckpointError(f"it has no weight {name}")
        weight = self._files[name].get_tensor(name)
        if weight.shape != shape or not weight.is_floating_point():
            raise UnexpectedCheckpointError(f"{name} has the shape {tuple(weight.shape)} and the type {weight.dtype}")
        weight = weight.to(self._dtype)
        if not all(extreme.isfinite() for extreme in weight.aminmax()):  # reads memory once
            raise UnexpectedCheckpointError(f"{name} is not finite")
        self._left.discard(name)
        return nn.Parameter(weight, requires_grad=False)

    def linear(self, name: str, inputs: int, outputs: int) -> nn.Linear:
        made = nn.Linear(inputs, outputs, device="meta")
        made.weight, made.bias = self.take(f"{name}.weight", outputs, inputs), self.take(f"{name}.bias", outputs)
        return made

    def norm(self, name: str, width: int, epsilon: float) -> nn.LayerNorm:
        """Return a layer norm. Checkpoints that were converted from TensorFlow call its weights gamma and beta."""
        made = nn.LayerNorm(width, eps=epsilon, device="meta")
        names = ("gamma", "beta") if f"{name}.gamma" in self._files else ("weight", "bias")
        made.weight, made.bias = (self.take(f"{name}.{part}", width) for part in names)
        return made

    def embedding(self, name: str, rows: int, width: int) -> nn.Embedding:
        made = nn.Embedding(rows, width, device="meta")
        made.weight = self.take(f"{name}.weight", rows, width)
        return made

    def shared(self, names: Iterable[str], *shape: int, expected: nn.Parameter | None = None) -> nn.Parameter:
        """Return a weight that a checkpoint may hold under several names. It must have the same values under each name.

        Args:
            names: The names.
            *shape: The shape.
            expected: A weight with the same values, which is returned. If None, one of the names must exist.
        """
        for name in names:
            if name in self._files:
                found = self.take(name, *shape)
                if expected is not None and not torch.equal(found, expected):
                    raise UnexpectedCheckpointError(f"{name} differs from the weight that it should equal")
                expected = found if expected is None else expected
        if expected is None:
            raise UnexpectedCheckpointError(f"it has no weight {' or '.join(names)}")
        return expected

    def check_nothing_left(self) -> None:
        """Raise `UnexpectedCheckpointError` if a weight was not taken and is not known to be unused."""
        for name in sorted(self._left):
            if not any(part in name for part in _UNUSED):
                raise UnexpectedCheckpointError(f"it has a weight {name}")


@contextmanager
def open_weights(repository: Repository, folder: str, dtype: torch.dtype) -> Iterator[BertWeights]:
    paths = [repository.path(file) for file in weights_files(repository, folder) if not file.endswith(".index.json")]
    if not paths or not all(isinstance(path, Path) and path.suffix == ".safetensors" for path in paths):
        raise UnexpectedCheckpointError("its weights are not in safetensors")
    with ExitStack() as stack:
        yield BertWeights([stack.enter_context(safe_open(path, framework="pt")) for path in paths], dtype)
