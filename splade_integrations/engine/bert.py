"""BERT, RoBERTa and DistilBERT with their masked-LM heads, built without transformers.

Importing transformers' models takes twice as long as importing torch. Most SPLADE checkpoints are one of these three
models, so they are built here, from the layers of `layers.py`. transformers loads every other checkpoint.
"""

import logging
from typing import NamedTuple, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import embedding, layer_norm

from splade_integrations.engine.bert_checkpoint import (
    FAMILIES,
    BertFamily,
    BertSizes,
    BertWeights,
    UnexpectedCheckpointError,
    open_weights,
)
from splade_integrations.engine.layers import FusedLayer, FusedLayers, InPlaceGelu
from splade_integrations.engine.model import NetworkOutput
from splade_integrations.engine.products import product_threads
from splade_integrations.models.config import check_config
from splade_integrations.models.repository import Repository
from splade_integrations.models.weights import find_adapter

__all__ = ["BertMaskedLM", "read_bert"]

logger = logging.getLogger(__name__)


def read_bert(repository: Repository, folder: str, dtype: torch.dtype) -> "BertMaskedLM | None":
    """Build BERT, RoBERTa or DistilBERT with its masked-LM head from a checkpoint.

    Args:
        repository: The repository of the checkpoint. Weights on the hub are downloaded.
        folder: The checkpoint's folder within the repository. "" is the root.
        dtype: The type of the weights.
    Returns:
        The model, or None if only transformers can load the checkpoint or say what is wrong with it.
    Raises:
        UnsupportedModelError: The config.json is damaged or harmful (see `check_config`), or the index is damaged.
    """
    config = check_config(repository, folder)
    model_type = str(config.get("model_type"))
    family = FAMILIES.get(model_type)
    if repository.trust_remote_code or family is None or find_adapter(repository, folder) is not None:
        return None
    try:
        # Like the parts of `load.py`: more threads would not be faster, and would leave helper threads behind.
        with product_threads(1), open_weights(repository, folder, dtype) as weights:
            return BertMaskedLM(model_type, BertSizes.of(family, config), weights)
    except (UnexpectedCheckpointError, SafetensorError, OSError) as err:
        logger.info("%s is loaded by transformers: %s", repository.name, err)
        return None


class _Settings(NamedTuple):
    """The settings that the rest of the engine reads from a model, under their names in transformers."""

    model_type: str
    vocab_size: int
    max_position_embeddings: int


class BertMaskedLM(nn.Module):
    """A masked LM that is called like a model of transformers.

    Args:
        model_type: A key of `FAMILIES`.
        sizes: The sizes that config.json states.
        weights: The weights.
    Raises:
        UnexpectedCheckpointError: The weights are not what this module expects.
    """

    def __init__(self, model_type: str, sizes: BertSizes, weights: BertWeights) -> None:
        super().__init__()
        family = FAMILIES[model_type]
        dense, norm, decoder = family.head
        self.base_model = _Backbone(family, sizes, weights)
        self.head = nn.Sequential(
            weights.linear(dense, sizes.wide, sizes.wide), InPlaceGelu(), weights.norm(norm, sizes.wide, sizes.epsilon)
        )
        self.decoder = nn.Linear(sizes.wide, sizes.terms, device="meta")
        words = cast(nn.Parameter, self.base_model.words.weight)
        self.decoder.weight = weights.shared([f"{decoder}.weight"], *words.shape, expected=words)
        self.decoder.bias = weights.shared(family.biases, sizes.terms)
        weights.check_nothing_left()
        first = 0 if sizes.padding_id is None else sizes.padding_id + 1
        self.config = _Settings(model_type, sizes.terms, sizes.positions - first)

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.base_model.words.weight.device

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embeddings of the tokens."""
        return self.base_model.words

    def get_output_embeddings(self) -> nn.Module:
        """Return the decoder."""
        return self.decoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, return_dict: bool = True) -> NetworkOutput:
        """Return the logits, (B, L, V), or what enters the decoder if the decoder has been replaced by the identity."""
        return NetworkOutput(self.decoder(self.head(self.base_model(input_ids, attention_mask))))


class _Backbone(nn.Module):
    """The embeddings and the layers."""

    def __init__(self, family: BertFamily, sizes: BertSizes, weights: BertWeights) -> None:
        super().__init__()
        place, wide = f"{family.prefix}embeddings.", sizes.wide
        self.words = weights.embedding(f"{place}word_embeddings", sizes.terms, wide)
        self.types = (
            None if sizes.types is None else weights.embedding(f"{place}token_type_embeddings", sizes.types, wide)
        )
        self.positions = weights.embedding(f"{place}position_embeddings", sizes.positions, wide)
        self.norm = weights.norm(f"{place}LayerNorm", wide, sizes.epsilon)
        self.encoder = FusedLayers([_layer(family, sizes, weights, number) for number in range(sizes.layers)])
        self._padding_id = sizes.padding_id

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the hidden states after the last layer, (B, L, H)."""
        hidden = embedding(input_ids, self.words.weight)
        if self.types is not None:
            hidden = hidden + self.types.weight[0]
        hidden = hidden + self._position_embeddings(input_ids)
        hidden = layer_norm(hidden, self.norm.normalized_shape, self.norm.weight, self.norm.bias, self.norm.eps)
        seen = attention_mask.bool()
        return self.encoder.states(hidden, None if seen.all() else seen[:, None, None, :])

    def _position_embeddings(self, input_ids: Tensor) -> Tensor:
        """Return the embeddings of the positions, (L, H) or (B, L, H)."""
        if self._padding_id is None:
            return self.positions.weight[: input_ids.shape[1]]
        counted = input_ids != self._padding_id
        return embedding(counted.cumsum(1) * counted + self._padding_id, self.positions.weight)


def _layer(family: BertFamily, sizes: BertSizes, weights: BertWeights, number: int) -> FusedLayer:
    wide, inner, epsilon = sizes.wide, sizes.inner, sizes.epsilon
    names = [family.prefix + family.layer.format(number) + part for part in family.in_layer]
    query, key, value, attended = (weights.linear(name, wide, wide) for name in names[:4])
    return FusedLayer(
        sizes.heads,
        (query, key, value),
        attended,
        weights.norm(names[4], wide, epsilon),
        weights.linear(names[5], wide, inner),
        InPlaceGelu(),
        weights.linear(names[6], inner, wide),
        weights.norm(names[7], wide, epsilon),
    )
