"""Reads checkpoints with transformers, or raises an error that says what is wrong with a checkpoint.

Importing this module loads transformers' models, which takes seconds. So it is imported only for checkpoints that
`bert.py` does not read.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM
from transformers.utils import logging as transformers_logging

from splade_integrations.engine.adapters import check_peft, merge_adapter
from splade_integrations.engine.memory import is_out_of_memory
from splade_integrations.engine.products import product_threads
from splade_integrations.errors import OptionalDependencyError, UnsupportedModelError, first_line
from splade_integrations.models.config import check_config
from splade_integrations.models.repository import Repository
from splade_integrations.models.spec import Attention
from splade_integrations.models.weights import find_adapter, missing_weights, weights_files

__all__ = ["read_backbone", "read_language_model", "read_masked_lm"]

logger = logging.getLogger(__name__)


def read_masked_lm(repository: Repository, folder: str, dtype: torch.dtype) -> Any:
    """Return a masked LM.

    Args:
        repository: The repository of the checkpoint. If code from the repository may run, the revision is logged.
        folder: The checkpoint's folder within the repository. "" is the root.
        dtype: The type of the weights.
    Raises:
        FileNotFoundError: A file is missing.
        OptionalDependencyError: There is an adapter, and peft is not installed.
        UnsupportedModelError: The checkpoint has no masked-LM head. Or weights are missing, damaged or not finite, or
            contradict the configuration.
    """
    config = _read_config(repository, folder)
    _check_masked_lm(repository.name, config)
    return _read_weights(repository, folder, config, dtype, AutoModelForMaskedLM)


def read_language_model(repository: Repository, folder: str, dtype: torch.dtype, attention: Attention) -> Any:
    """Return a decoder-only language model.

    If transformers knows the model's type, the classes of transformers compute the model, and no code of the repository
    runs.

    Args:
        repository: The repository of the checkpoint.
        folder: The checkpoint's folder within the repository. "" is the root.
        dtype: The type of the weights.
        attention: "bidirectional" or "causal". Some releases of transformers ignore it.
    Raises:
        FileNotFoundError: A file is missing.
        UnsupportedModelError: Weights are missing, damaged or not finite, or contradict the configuration.
    """
    config = _read_config(repository, folder)
    if config.model_type in CONFIG_MAPPING:
        repository = replace(repository, trust_remote_code=False)
    if attention == "bidirectional":
        config.is_causal = False
    config.use_cache = False  # the cache would only take memory, because encoding reads each token once
    return _read_weights(repository, folder, config, dtype, AutoModelForCausalLM)


def read_backbone(repository: Repository, folder: str, dtype: torch.dtype) -> Any:
    """Return a transformer without a head and without a pooler. Arguments and errors are those of `read_masked_lm`."""
    config = _read_config(repository, folder)
    backbone = _read_weights(repository, folder, config, dtype, AutoModel, unused=("pooler.",))
    if hasattr(backbone, "pooler"):
        backbone.pooler = None  # neither the sparse rows nor the dense vectors use it
    return backbone


def _read_config(repository: Repository, folder: str) -> Any:
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


def _read_weights(
    repository: Repository, folder: str, config: Any, dtype: torch.dtype, kind: Any, *, unused: tuple[str, ...] = ()
) -> Any:
    """Load a model with its weights. Check that the checkpoint has all weights, and that all weights are finite.

    Args:
        repository: The repository of the checkpoint.
        folder: The checkpoint's folder within the repository. "" is the root.
        config: The configuration that `_read_config` returned.
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
