"""Public names of a package that are imported on their first use (PEP 562)."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions `__getattr__` and `__dir__` of a package that imports its public names on their first use.

    Args:
        package: The package's full name.
        homes: {public name: the module that defines it}, relative to the package.

    Example:
        >>> get, _ = lazy_names("splade_integrations", {"Pruning": "pruning"})
        >>> get("Pruning").__name__
        'Pruning'
    """
    namespace = vars(sys.modules[package])

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        namespace[name] = value  # so that later uses do not call this function
        return value

    return get, lambda: sorted({*namespace, *homes})
