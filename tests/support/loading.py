"""A checkpoint as the engine loads it."""

from splade_integrations.engine.compute import resolve_compute
from splade_integrations.engine.load import load_masked_lm
from splade_integrations.engine.model import MaskedLM, SpladeModel
from splade_integrations.models.repository import Repository


def loaded(folder, device="cpu", dtype="auto", backend="torch", **repository_options) -> MaskedLM:
    """The masked LM of a folder, made fast."""
    return load_masked_lm(Repository(str(folder), **repository_options), "", resolve_compute(device, dtype, backend))


def splade_model(folder, **options) -> SpladeModel:
    """The same with max pooling; options are those of `SpladeModel`."""
    pooling = {"pooling_strategy": "max", "activation_function": "relu", "padding_id": 0}
    return SpladeModel(loaded(folder), **pooling | options)
