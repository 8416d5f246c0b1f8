"""Loads checkpoints as the engine does."""

from splade_integrations.engine.compute import resolve_compute
from splade_integrations.engine.load import load_masked_lm
from splade_integrations.engine.model import MaskedLM, SpladeModel
from splade_integrations.models.repository import Repository


def loaded(folder, device="cpu", dtype="auto", backend="torch", **repository_options) -> MaskedLM:
    """Return the masked LM in a folder, optimised as in production."""
    return load_masked_lm(Repository(str(folder), **repository_options), "", resolve_compute(device, dtype, backend))


def splade_model(folder, **options) -> SpladeModel:
    """Return a `SpladeModel` of the masked LM in a folder, with max pooling. `options` go to `SpladeModel`."""
    pooling = {"pooling_strategy": "max", "activation_function": "relu", "padding_id": 0}
    return SpladeModel(loaded(folder), **pooling | options)
