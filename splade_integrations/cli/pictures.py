"""Finds the format of a picture from its file name, and sets up matplotlib to draw without a display."""

from pathlib import Path
from typing import Any

from splade_integrations.dependencies import require_extra

__all__ = ["picture_format", "pyplot_for_files"]


def picture_format(path: str) -> str:
    """Return the format that the file's name ends in: png, svg or pdf.

    Raises:
        ValueError: The name does not end in one of these formats.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in {"png", "svg", "pdf"}:
        raise ValueError(f"--plot must end in .png, .svg or .pdf, got {path!r}. Choose one of them.")
    return suffix


def pyplot_for_files() -> Any:
    """Return matplotlib's pyplot, set up to draw without a display.

    Raises:
        OptionalDependencyError: matplotlib is not installed.
    """
    with require_extra("evaluate", module="--plot"):
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot
    return pyplot
