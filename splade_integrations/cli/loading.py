"""Loads the models that a command names. Downloads show progress bars only if stderr is a terminal.

Importing this module does not import torch. Loading a SPLADE model imports torch only if the model needs a transformer
to encode queries.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from splade_integrations.options import EncoderOptions

if TYPE_CHECKING:
    from splade_integrations.encoder import SpladeEncoder
    from splade_integrations.evaluation.retrievers import DenseEncoder
    from splade_integrations.serving.remote import RemoteEncoder

__all__ = ["load_dense_encoder", "load_encoder", "silence_hub"]


def load_encoder(model: str, options: EncoderOptions, *, itself: bool = False) -> "SpladeEncoder":
    """Load the SPLADE model called `model`. If `model` is the address of a server, connect to the server.

    Args:
        model: A folder, a name on the hub, or the address of a server.
        options: Options of `SpladeEncoder`.
        itself: Whether the command needs the model itself. A server is then not enough, because it can only encode.
    Raises:
        ValueError: The command needs the model itself, but `model` is the address of a server. Or an option differs
            from the server's option.
    """
    if model.startswith(("http://", "https://")):
        if itself:
            raise ValueError(
                "the model must be a folder or a name on the hub for this command with these options, got the server "
                f"{model!r}. Name the server's model instead. A server can only encode, which is not enough here."
            )
        return cast("SpladeEncoder", _connect(model, options))
    from splade_integrations.encoder import SpladeEncoder

    if not Path(model).is_dir():
        silence_hub()
    return SpladeEncoder(model, **options)


def _connect(url: str, options: EncoderOptions) -> "RemoteEncoder":
    """Connect to a server. Refuse options that differ from the server's, because the server would not follow them."""
    from splade_integrations.serving.remote import RemoteEncoder

    encoder = RemoteEncoder(url)
    fingerprint = encoder.fingerprint
    of_server: dict[str, Any] = {
        "device": "auto",
        "dtype": "auto",
        "backend": "torch",
        "max_length": encoder.max_length,
        "document_pruning": None if fingerprint is None else fingerprint.document_pruning,
        "special_terms": None if fingerprint is None else fingerprint.special_terms,
    }
    for name, value in options.items():
        if value is not None and value != of_server.get(name):
            raise ValueError(
                f"{name} must be given to the server {url} when it starts, got {value!r} for this command. Leave the "
                "option out here, and start the server with it."
            )
    return encoder


def load_dense_encoder(model: str, *, max_length: int | None = None, device: str) -> "DenseEncoder":
    """Load the dense model called `model`."""
    from splade_integrations.evaluation.retrievers import load_dense

    _silence_transformers()
    return load_dense(model, max_length=max_length, device=device)


def silence_hub() -> None:
    """Turn off the progress bars of the hub if stderr is not a terminal."""
    if not sys.stderr.isatty():
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()


def _silence_transformers() -> None:
    """Turn off the progress bars of transformers and of the hub if stderr is not a terminal."""
    if not sys.stderr.isatty():
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
