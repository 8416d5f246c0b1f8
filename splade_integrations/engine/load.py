"""Loads a masked-LM checkpoint safely, or raises an error that says why the checkpoint has no SPLADE weights.

This module handles transformers' models, but no texts, batches or pooling.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM
from transformers.utils import logging as transformers_logging

from splade_integrations.engine.adapters import check_peft, merge_adapter
from splade_integrations.engine.compute import Compute
from splade_integrations.engine.heads import Decoder
from splade_integrations.engine.memory import is_out_of_memory, keep_freed_memory
from splade_integrations.engine.model import MaskedLM
from splade_integrations.engine.optimize import optimize
from splade_integrations.engine.products import exact_float32, product_threads
from splade_integrations.errors import OptionalDependencyError, UnsupportedModelError, first_line
from splade_integrations.models.config import check_config
from splade_integrations.models.repository import Repository
from splade_integrations.models.spec import Attention
from splade_integrations.models.weights import find_adapter, missing_weights, weights_files

__all__ = [
    "load_language_model",
    "load_masked_lm",
    "mean_hidden",
    "positions_of",
    "prepare",
    "read_config",
    "read_torch_weight",
    "read_weights",
]

logger = logging.getLogger(__name__)

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
    name = repository.name
    config = read_config(repository, folder)
    _check_masked_lm(name, config)
    model = read_weights(repository, folder, config, compute.weights_dtype, AutoModelForMaskedLM)
    return compute.run(partial(prepare, name, model, compute))


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
    config = read_config(repository, folder)
    if config.model_type in CONFIG_MAPPING:
        repository = replace(repository, trust_remote_code=False)
    if attention == "bidirectional":
        config.is_causal = False
    config.use_cache = False  # the cache would only take memory, because encoding reads each token once
    model = read_weights(repository, folder, config, compute.weights_dtype, AutoModelForCausalLM)

    def prepared() -> MaskedLM:
        _check_attention(repository.name, model, attention)
        return prepare(repository.name, model, compute)

    return compute.run(prepared)


def prepare(name: str, model: Any, compute: Compute) -> MaskedLM:
    """Move a model to its device, make it fast, and take off its decoder (the linear layer that computes the logits).

    Args:
        name: The name under which the model was requested, for messages.
        model: The transformers model, which is changed.
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


def read_config(repository: Repository, folder: str) -> Any:
    """Return the configuration of the checkpoint in a folder of a repository, as transformers reads it.

    Raises:
        UnsupportedModelError: The configuration is damaged, or needs code from the repository that may not run.
    """
    name = repository.name
    check_config(repository, folder)
    try:
        config = AutoConfig.from_pretrained(**repository.location(folder))
    except Exception as err:  # transformers raises errors of many types
        if "trust_remote_code" in str(err):
            raise UnsupportedModelError(
                f"{name!r} needs code from its repository, which runs only if you allow it. Read the code. Then pass "
                "trust_remote_code=True, and revision=… so that the code cannot change."
            ) from err
        raise UnsupportedModelError(
            f"{name!r} has a config.json that transformers cannot read: {first_line(err)} "
            "Use a …ForMaskedLM checkpoint."
        ) from err
    if repository.trust_remote_code:
        commit = getattr(config, "_commit_hash", None)
        logger.warning("%s may run code from its repository, revision %s.", name, commit)
    return config


def _check_masked_lm(name: str, config: Any) -> None:
    """Raise UnsupportedModelError if a configuration states no masked-LM head."""
    architectures = config.architectures if isinstance(config.architectures, list) else []
    if not any(str(architecture).endswith("ForMaskedLM") for architecture in architectures):
        found = architectures[0] if architectures else f"{config.model_type} model of unknown architecture"
        raise UnsupportedModelError(
            f"{name!r} is a {found} without a masked-LM head, so it has no SPLADE weights. "
            "Use a …ForMaskedLM checkpoint."
        )


def read_weights(
    repository: Repository, folder: str, config: Any, dtype: torch.dtype, kind: Any, *, unused: tuple[str, ...] = ()
) -> Any:
    """Load a model with its weights. Check that the checkpoint has all weights, and that all weights are finite.

    Args:
        repository: The repository of the checkpoint.
        folder: The checkpoint's folder within the repository. "" is the root.
        config: The configuration that `read_config` returned.
        dtype: The type of the weights.
        kind: One of transformers' Auto classes, such as `AutoModelForMaskedLM`.
        unused: Prefixes of the names of weights that are not used. These weights may be missing.
    Raises:
        FileNotFoundError: A file is missing.
        UnsupportedModelError: Weights are missing, damaged or not finite, or contradict the configuration.
    """
    adapter = find_adapter(repository, folder)
    # The weights may be downloaded here. So this function runs in the caller's thread, which Ctrl-C reaches. Reading is
    # not faster in several threads, and would leave helper threads behind (see threads.py).
    with _quiet_if_local(repository), product_threads(1):
        if adapter is None:
            model = _load_weights(repository, folder, config, dtype, kind, unused)
        else:  # merged in float32, because in 16 bits the adapter's small changes would lose most of their digits
            check_peft(repository, adapter)
            loaded = _load_weights(repository, folder, config, torch.float32, kind, unused)
            model = merge_adapter(repository, adapter, loaded).to(dtype)
        _check_finite(repository.name, model)
    return model


def _load_weights(
    repository: Repository, folder: str, config: Any, dtype: torch.dtype, kind: Any, unused: tuple[str, ...]
) -> Any:
    """Load a model with its weights, but without an adapter. Check that the checkpoint has all weights."""
    name = repository.name
    # This call checks the index of the weights files, because transformers would read any file that the index names.
    weights_files(repository, folder)
    try:
        model, report = kind.from_pretrained(
            config=config,
            dtype=dtype,
            output_loading_info=True,
            # If peft is installed, transformers looks for an adapter. Here it looks in the subfolder "no-adapter",
            # which does not exist, so it finds none.
            adapter_kwargs={"subfolder": "no-adapter"},
            **repository.location(folder),
        )
    except SafetensorError as err:
        raise UnsupportedModelError(f"{name!r} has a damaged weights file: {err}. Fetch the checkpoint again.") from err
    except OSError as err:
        if message := missing_weights(repository, folder):
            raise UnsupportedModelError(message) from err
        raise FileNotFoundError(f"{name!r} lacks a file: {err} Add the file, or name another model.") from err
    except ImportError as err:
        raise OptionalDependencyError(
            f"{name!r} must load with the packages that are installed, got an error: {first_line(err)} Its config.json "
            "or its own code needs another package. Install this package, or use another checkpoint."
        ) from err
    # There are four possible causes: a tensor with a size that contradicts the configuration, a truncated pickle, a
    # pickle that holds more than tensors, and a value of the configuration that the model's code cannot use. The
    # model's code may raise errors of any type.
    except Exception as err:
        if is_out_of_memory(err):  # the checkpoint is not at fault
            raise
        raise UnsupportedModelError(
            f"{name!r} has weights that cannot be loaded: {first_line(err)} Fetch the checkpoint "
            "again, or use a complete …ForMaskedLM checkpoint."
        ) from err
    missing = [key for key in report["missing_keys"] if not key.startswith(unused)]
    random = sorted(missing) + sorted(str(key) for key in report["mismatched_keys"])
    if random:
        more = f" and {len(random) - 3} more" if len(random) > 3 else ""
        raise UnsupportedModelError(
            f"{name!r} lacks the weights {', '.join(random[:3])}{more}, which transformers would fill with "
            "random numbers. "
            "Use a complete …ForMaskedLM checkpoint."
        )
    return model


def _check_finite(name: str, model: Any) -> None:
    """Raise UnsupportedModelError if a weight is NaN or infinite."""
    for key, value in model.named_parameters():
        if value.numel() and not all(extreme.isfinite() for extreme in value.detach().aminmax()):  # reads memory once
            raise UnsupportedModelError(f"{name!r} has NaN or infinite weights in {key}. Fetch the checkpoint again.")


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


@contextmanager
def _quiet_if_local(repository: Repository) -> Iterator[None]:
    """Hide the progress bar while weights are read from a local folder. A download in a terminal keeps its bar."""
    shown = repository.local_folder is None and sys.stderr.isatty()
    if shown or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()
