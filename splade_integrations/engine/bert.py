"""BERT, RoBERTa and DistilBERT with their masked-LM heads, built without transformers.

Importing transformers' models takes twice as long as importing torch. Most SPLADE checkpoints are one of these three
models (XLM-RoBERTa is RoBERTa with other weights), so they are built here, from the layers of `layers.py`. transformers
loads every other checkpoint.
"""

import logging
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, layer_norm

from splade_integrations.engine.bert_checkpoint import (
    FAMILIES,
    BertFamily,
    BertSizes,
    BertWeights,
    open_weights,
)
from splade_integrations.engine.layers import FusedLayer, FusedLayers, InPlaceGelu
from splade_integrations.engine.memory import is_out_of_memory
from splade_integrations.engine.model import NetworkOutput
from splade_integrations.engine.products import product_threads
from splade_integrations.errors import UnsupportedModelError
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
    family = FAMILIES.get(str(config.get("model_type")))
    if repository.trust_remote_code or family is None or find_adapter(repository, folder) is not None:
        return None
    try:
        sizes = BertSizes.of(family, config)  # before the weights, which may have to be downloaded
        # Like the parts of `load.py`: more threads would not be faster, and would leave helper threads behind.
        with product_threads(1), open_weights(repository, folder, dtype) as weights:
            return BertMaskedLM(config["model_type"], sizes, weights)
    except UnsupportedModelError:
        raise
    # A damaged file may raise anything. transformers loads it again, because the errors of its loader say more.
    except Exception as err:
        if is_out_of_memory(err):
            raise
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
        UnexpectedCheckpointError: The weights are not those of such a model.
    """

    def __init__(self, model_type: str, sizes: BertSizes, weights: BertWeights) -> None:
        super().__init__()
        family, hidden, terms = FAMILIES[model_type], sizes.hidden_size, sizes.vocab_size
        dense, norm, decoder = family.head
        self.config = _Settings(model_type, terms, sizes.max_position_embeddings)
        self.base_model = _Backbone(family, sizes, weights)
        self.head = nn.Sequential(
            weights.linear(dense, hidden, hidden), InPlaceGelu(), weights.norm(norm, hidden, sizes.epsilon)
        )
        words = cast(nn.Parameter, self.base_model.words.weight)
        self.decoder = nn.Linear(hidden, terms, device="meta")
        self.decoder.weight = weights.shared([f"{decoder}.weight"], terms, hidden, expected=words)
        self.decoder.bias = weights.shared(family.bias_names, terms)
        weights.check_nothing_left(family.prefix)

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
        hidden, positions, padding_id = sizes.hidden_size, sizes.max_position_embeddings, sizes.padding_id
        place = f"{family.prefix}embeddings."
        self.words = weights.embedding(f"{place}word_embeddings", sizes.vocab_size, hidden)
        self.types = None
        if sizes.types is not None:
            self.types = weights.embedding(f"{place}token_type_embeddings", sizes.types, hidden)
        self.position_embeddings = weights.embedding(f"{place}position_embeddings", positions, hidden, padding_id)
        self.norm = weights.norm(f"{place}LayerNorm", hidden, sizes.epsilon)
        self.encoder = FusedLayers([_layer(family, sizes, weights, number) for number in range(sizes.layers)])

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
        weight, padding_id = self.position_embeddings.weight, self.position_embeddings.padding_idx
        if padding_id is None:
            return weight[: input_ids.shape[1]]
        counted = input_ids != padding_id
        return embedding(counted.cumsum(1) * counted + padding_id, weight)


def _layer(family: BertFamily, sizes: BertSizes, weights: BertWeights, number: int) -> FusedLayer:
    hidden, intermediate, epsilon = sizes.hidden_size, sizes.intermediate_size, sizes.epsilon
    names = [family.prefix + family.layer.format(number) + part for part in family.layer_parts]
    query, key, value, attended = (weights.linear(name, hidden, hidden) for name in names[:4])
    return FusedLayer(
        sizes.heads,
        (query, key, value),
        attended,
        weights.norm(names[4], hidden, epsilon),
        weights.linear(names[5], hidden, intermediate),
        InPlaceGelu(),
        weights.linear(names[6], intermediate, hidden),
        weights.norm(names[7], hidden, epsilon),
    )
