"""Where the two offline models of the demo lie: `splade_integrations.offline_models`, under the examples' own name."""

from splade_integrations.offline_models import dense_model_path, splade_model_path

__all__ = ["dense_model_path", "splade_model_path"]
