"""Reads the settings and weights of BERT, RoBERTa and DistilBERT from their files, without transformers.

Each setting and each weight is checked. If one is not what this module expects, it raises `UnexpectedCheckpointError`,
and transformers loads the checkpoint or says what is wrong with it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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
        size_keys: The keys of config.json for the first four of `BertSizes`.
        activation_key: The key of config.json for the activation.
        layer: The place of layer {}, behind the prefix.
        layer_parts: The places of the parts of a layer, in the order of `FusedLayer`'s arguments.
        head: The places of the head's linear layer, its norm, and its decoder.
        bias_names: The names under which a checkpoint may hold the decoder's bias.
        epsilon_key: The key of config.json for the epsilon of layer norms. If None, it is 1e-12.
        has_types: Whether a token type (the first or the second text of a pair) has an embedding.
        counts_from_padding: Whether positions are counted from the padding id + 1, without the padding tokens.
    """

    architecture: str
    prefix: str
    size_keys: tuple[str, str, str, str]
    activation_key: str
    layer: str
    layer_parts: tuple[str, str, str, str, str, str, str, str]
    head: tuple[str, str, str]
    bias_names: tuple[str, ...]
    epsilon_key: str | None = "layer_norm_eps"
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
        epsilon_key=None, has_types=False,
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
# Settings that would change what is computed, with the only value that this module knows.
_PLAIN = {
    "add_cross_attention": False, "chunk_size_feed_forward": 0, "is_decoder": False, "is_encoder_decoder": False,
    "position_embedding_type": "absolute", "pruned_heads": {}, "tie_word_embeddings": True,
}  # fmt: skip
# Settings that change nothing, because they concern training, other heads or how transformers returns its results. A
# config.json with any other key is left to transformers, because later releases may give a meaning to any key.
_WITHOUT_EFFECT = {
    "_name_or_path", "attention_dropout", "attention_probs_dropout_prob", "bos_token_id", "classifier_dropout",
    "directionality", "dropout", "dtype", "eos_token_id", "finetuning_task", "gradient_checkpointing",
    "hidden_dropout_prob", "id2label", "initializer_range", "label2id", "num_labels", "output_past", "pooler_fc_size",
    "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "problem_type",
    "qa_dropout", "seq_classif_dropout", "sinusoidal_pos_embds", "tie_weights_", "tokenizer_class", "torch_dtype",
    "transformers_version", "use_cache",
}  # fmt: skip
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# Weights that a checkpoint may hold, and that a masked LM does not use. {} is the prefix of the backbone.
_UNUSED = ("{}pooler.", "{}embeddings.position_ids", "cls.seq_relationship.")


class BertSizes(NamedTuple):
    """The settings of a config.json that decide what is computed.

    Args:
        hidden_size: The width of hidden states, H.
        intermediate_size: The width between the two linear layers of a layer, I.
        layers: The number of layers.
        heads: The number of attention heads.
        vocab_size: The number of tokens and of terms, V.
        max_position_embeddings: The number of positions that have an embedding.
        types: The number of token types that have an embedding, or None if there are no such embeddings.
        padding_id: The padding token, from which positions are counted, or None if they are counted from 0.
        epsilon: The number that layer norms add to a variance.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    vocab_size: int
    max_position_embeddings: int
    types: int | None
    padding_id: int | None
    epsilon: float

    @classmethod
    def of(cls, family: BertFamily, config: Mapping[str, Any]) -> "BertSizes":
        """Read the settings. The error is raised if one is missing, or if transformers may compute something else."""
        _check_plain(family, config)
        hidden, intermediate, layers, heads = (_number(config, key) for key in family.size_keys)
        terms, positions = _number(config, "vocab_size"), _number(config, "max_position_embeddings")
        types = _number(config, "type_vocab_size") if family.has_types else None
        padding_id = None if config.get("pad_token_id") is None else _number(config, "pad_token_id", least=0)
        epsilon = config.get(family.epsilon_key) if family.epsilon_key else 1e-12
        if hidden % heads or not isinstance(epsilon, float) or not 0 < epsilon < 1:
            raise UnexpectedCheckpointError(f"its config.json states {heads} heads, width {hidden}, epsilon {epsilon}")
        if padding_id is not None and padding_id >= terms:
            raise UnexpectedCheckpointError(f"its config.json states the padding token {padding_id}")
        if not family.counts_from_padding:
            padding_id = None
        elif padding_id is None or padding_id >= positions - 1:
            raise UnexpectedCheckpointError(f"its config.json states the padding token {padding_id}")
        return cls(hidden, intermediate, layers, heads, terms, positions, types, padding_id, epsilon)


def _check_plain(family: BertFamily, config: Mapping[str, Any]) -> None:
    needed = {"architectures": [family.architecture], family.activation_key: "gelu"}
    expected = needed | {key: value for key, value in _PLAIN.items() if key in config}
    for key, value in expected.items():
        stated = config.get(key)
        if stated != value or type(stated) is not type(value):  # 0 is not the same as False
            raise UnexpectedCheckpointError(f"its config.json states {key} {stated!r}")
    sizes = {*family.size_keys, "vocab_size", "max_position_embeddings", "pad_token_id", "model_type"}
    sizes |= {"type_vocab_size"} if family.has_types else set()
    sizes |= {family.epsilon_key} if family.epsilon_key else set()
    if unknown := config.keys() - expected.keys() - sizes - _WITHOUT_EFFECT:
        raise UnexpectedCheckpointError(f"its config.json states {', '.join(sorted(unknown))}")


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
        if weight.shape != shape or weight.dtype not in _FLOATS:
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
        """Return a layer norm.

        Checkpoints that were converted from TensorFlow call its weights gamma and beta. transformers reads these names
        only in norms that are called LayerNorm.
        """
        made = nn.LayerNorm(width, eps=epsilon, device="meta")
        converted = name.endswith("LayerNorm") and f"{name}.gamma" in self._files
        names = ("gamma", "beta") if converted else ("weight", "bias")
        made.weight, made.bias = (self.take(f"{name}.{part}", width) for part in names)
        return made

    def embedding(self, name: str, rows: int, width: int, padding_id: int | None = None) -> nn.Embedding:
        # Unlike a linear layer, an embedding on the meta device takes a second, because torch then imports sympy.
        weight = self.take(f"{name}.weight", rows, width)
        made: nn.Embedding = nn.Embedding.from_pretrained(weight, padding_idx=padding_id)  # type: ignore[no-untyped-call]
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

    def check_nothing_left(self, prefix: str) -> None:
        """Raise `UnexpectedCheckpointError` if a weight was not taken and is not known to be unused.

        Args:
            prefix: The prefix of the weights of the backbone.
        """
        unused = tuple(start.format(prefix) for start in _UNUSED)
        if left := sorted(name for name in self._left if not name.startswith(unused)):
            raise UnexpectedCheckpointError(f"it has the weights {', '.join(left[:3])}")


@contextmanager
def open_weights(repository: Repository, folder: str, dtype: torch.dtype) -> Iterator[BertWeights]:
    """Open the weights of a checkpoint, which must be in one or more safetensors files."""
    index, *shards = weights_files(repository, folder) or [""]
    paths = [repository.path(file) for file in shards or [index]]
    if not all(path is not None and path.suffix == ".safetensors" for path in paths):
        raise UnexpectedCheckpointError("its weights are not in safetensors")
    with ExitStack() as stack:
        yield BertWeights([stack.enter_context(safe_open(path, framework="pt")) for path in paths], dtype)
