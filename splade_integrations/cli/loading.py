"""Loads the models that a command names. Downloads show progress bars only if stderr is a terminal.

Importing this module does not import torch, but calling its functions does.
"""

import sys
from typing import TYPE_CHECKING

from splade_integrations.options import EncoderOptions

if TYPE_CHECKING:
    from splade_integrations.encoder import SpladeEncoder
    from splade_integrations.evaluation.retrievers import DenseEncoder

__all__ = ["load_dense_encoder", "load_encoder", "silence_downloads"]


def load_encoder(model: str, options: EncoderOptions) -> "SpladeEncoder":
    """Load the SPLADE model called `model`."""
    from splade_integrations.encoder import SpladeEncoder

    silence_downloads()
    return SpladeEncoder(model, **options)


def load_dense_encoder(model: str, *, max_length: int | None = None, device: str) -> "DenseEncoder":
    """Load the dense model called `model`."""
    from splade_integrations.evaluation.retrievers import load_dense

    silence_downloads()
    return load_dense(model, max_length=max_length, device=device)


def silence_downloads() -> None:
    """Turn off the progress bars of transformers and of the hub if stderr is not a terminal."""
    if not sys.stderr.isatty():
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
