"""Where the two offline models of the demo lie: `splade_integrations.models.offline`, under the examples' own name."""

from splade_integrations.models.offline import dense_model_path, splade_model_path

__all__ = ["dense_model_path", "splade_model_path"]
