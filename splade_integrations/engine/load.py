"""Loads a masked-LM checkpoint safely, or raises an error that says why the checkpoint has no SPLADE weights.

This module handles models, but no texts, batches or pooling.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splade_integrations.engine.bert import read_bert
from splade_integrations.engine.compute import Compute
from splade_integrations.engine.heads import Decoder
from splade_integrations.engine.memory import is_out_of_memory, keep_freed_memory
from splade_integrations.engine.model import MaskedLM
from splade_integrations.engine.optimize import optimize
from splade_integrations.engine.products import exact_float32
from splade_integrations.errors import OptionalDependencyError, UnsupportedModelError, first_line
from splade_integrations.models.repository import Repository
from splade_integrations.models.spec import Attention

__all__ = [
    "load_language_model",
    "load_masked_lm",
    "mean_hidden",
    "positions_of",
    "prepare",
    "read_torch_weight",
]

# The number of tokens from which `mean_hidden` estimates the mean. More tokens hardly improve the estimate.
_CENTRE_TOKENS = 64
# The number of tokens with which `_check_attention` finds out whether tokens attend to later tokens.
_ATTENTION_TOKENS = 8


def load_masked_lm(repository: Repository, folder: str, compute: Compute) -> MaskedLM:
    """Load a masked-LM checkpoint and make it fast.

    Weights are read from safetensors, or from a `.bin` file with torch's weights-only loader, which runs no code. The
    weights of an adapter beside the checkpoint are merged into those of the checkpoint.

    Args:
        repository: The repository of the checkpoint. If code from the repository may run, the revision is logged.
        folder: The checkpoint's folder within the repository. "" is the root.
        compute: Where and how the model computes.
    Raises:
        FileNotFoundError: A file is missing.
        OptionalDependencyError: There is an adapter, and peft is not installed.
        UnsupportedModelError: The checkpoint has no masked-LM head. Or weights are missing, damaged or not finite, or
            contradict the configuration. Or the backend does not support the layers.
    """
    model: Any = read_bert(repository, folder, compute.weights_dtype)
    if model is None:
        from splade_integrations.engine.pretrained import read_masked_lm  # takes seconds to import

        model = read_masked_lm(repository, folder, compute.weights_dtype)
    return compute.run(partial(prepare, repository.name, model, compute))


def load_language_model(repository: Repository, folder: str, compute: Compute, attention: Attention) -> MaskedLM:
    """Load a decoder-only language model such as Qwen3, whose head scores terms at each token, and make it fast.

    If transformers knows the model's type, the classes of transformers compute the model, and no code of the repository
    runs.

    Args:
        repository: The repository of the checkpoint.
        folder: The checkpoint's folder within the repository. "" is the root.
        compute: Where and how the model computes.
        attention: "bidirectional" if tokens attend to later tokens, or "causal" if they do not.
    Raises:
        FileNotFoundError: A file is missing.
        UnsupportedModelError: Weights are missing, damaged or not finite, or contradict the configuration. Or the
            installed transformers does not compute the attention that the repository states.
    """
    from splade_integrations.engine.pretrained import read_language_model  # takes seconds to import

    model = read_language_model(repository, folder, compute.weights_dtype, attention)

    def prepared() -> MaskedLM:
        _check_attention(repository.name, model, attention)
        return prepare(repository.name, model, compute)

    return compute.run(prepared)


def prepare(name: str, model: Any, compute: Compute) -> MaskedLM:
    """Move a model to its device, make it fast, and take off its decoder (the linear layer that computes the logits).

    Args:
        name: The name under which the model was requested, for messages.
        model: A model of transformers or of bert.py, which is changed.
        compute: Where and how the model computes.
    """
    model.eval().requires_grad_(False).to(compute.device)
    if compute.device.type == "cpu":
        keep_freed_memory()
    try:
        decoder, ignores_padding = optimize(name, model, compute)
    except Exception as err:  # the model's code may raise anything
        if is_out_of_memory(err) or isinstance(err, UnsupportedModelError | OptionalDependencyError):
            raise
        raise UnsupportedModelError(
            f"{name!r} has a config.json that contradicts itself, so its layers fail: {first_line(err)} Fetch the "
            "checkpoint again."
        ) from err
    positions = positions_of(model)
    if decoder is None:
        return MaskedLM(model, None, model.config.vocab_size, positions, ignores_padding)
    weight, bias = decoder.weight.detach(), None if decoder.bias is None else decoder.bias.detach()
    loaded = MaskedLM(model, Decoder(weight, bias), len(weight), positions, ignores_padding)
    return replace(loaded, decoder=Decoder(weight, bias, centre=mean_hidden(loaded)))


def mean_hidden(model: MaskedLM) -> Tensor:
    """Estimate the mean of the hidden states that enter the decoder.

    The estimate is made from one artificial text, whose tokens are spread over the vocabulary.

    Args:
        model: A masked LM with a decoder.
    Returns:
        (H,) float32. It is all zeros if the mean is not finite.
    """
    tokens = min(_CENTRE_TOKENS, model.positions or _CENTRE_TOKENS)
    with exact_float32(model.device):
        ids = torch.arange(tokens, device=model.device).unsqueeze(0) * (model.embedded_tokens - 1) // tokens
        mean = model.hidden(ids, torch.ones_like(ids))[0].float().mean(dim=0)
        return mean if mean.isfinite().all() else torch.zeros_like(mean)


def read_torch_weight(path: Path) -> NDArray[np.float32]:
    """Read the tensor "weight" of a `.bin` file as float32, with torch's weights-only loader, which runs no code."""
    weight: NDArray[np.float32] = torch.load(path, weights_only=True)["weight"].float().numpy()
    return weight


def _check_attention(name: str, model: Any, attention: Attention) -> None:
    """Raise UnsupportedModelError if a language model does not compute the attention that its repository states.

    transformers 5.2 and later releases obey the configuration's `is_causal` (transformers' pull request 43705). Earlier
    releases ignore it.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(_ATTENTION_TOKENS, device=model.device).unsqueeze(0) * (rows - 1) // _ATTENTION_TOKENS
    other = ids.clone()
    other[0, -1] = rows - 1
    with exact_float32(model.device):
        states, changed = (model.base_model(input_ids=some).last_hidden_state[0, :-1].float() for some in (ids, other))
    sees_later = bool((states - changed).abs().max() > 1e-6 * states.abs().max())
    if sees_later != (attention == "bidirectional"):
        found = "bidirectional" if sees_later else "causal"
        raise UnsupportedModelError(
            f"{name!r} must compute {attention} attention, as its config.json states, got {found} attention from "
            f"{type(model).__name__}. Install a newer transformers: pip install --upgrade 'transformers>=5.2,<6'."
        )


def positions_of(model: Any) -> int | None:
    """Return the largest number of tokens that a model has positions for, or None if there is no limit.

    RoBERTa and similar models count positions from the padding id + 1, so they never use the positions before it.
    """
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    for path, module in model.named_modules():
        padding_id = getattr(module, "padding_idx", None)
        if positions is not None and path.endswith("position_embeddings") and padding_id is not None:
            return positions - int(padding_id) - 1
    return positions
