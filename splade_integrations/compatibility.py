"""Which versions of Milvus's packages are known to break each other? Says so before a store fails in some other way.

Knows version numbers only, imports none of the packages, and is called where an adapter is imported.
"""

import importlib.metadata
import re
from collections.abc import Mapping

from splade_integrations.errors import OptionalDependencyError

__all__ = ["broken_pair", "check_installed"]

Release = tuple[int, ...]
Installed = Mapping[str, str | None]

_LITE = "milvus-lite"
_LANGCHAIN = "langchain-milvus"
_LLAMA_INDEX = "llama-index-vector-stores-milvus"

# (first package, its versions, second package, its versions, what happens, what mends it). Bounds: (from, below).
_BROKEN: tuple[tuple[str, tuple[Release, Release], str, tuple[Release, Release], str, str], ...] = (
    (
        *(_LANGCHAIN, ((0,), (0, 4)), "pymilvus", ((2, 6, 8), (3,))),
        "the store loses its connection",
        "'pymilvus==2.6.7' 'langchain-milvus==0.3.3'",
    ),
    (
        *(_LANGCHAIN, ((0,), (0, 4)), "pymilvus", ((3,), (99,))),
        "langchain-milvus 0.3 is made for pymilvus 2",
        "'langchain-milvus>=0.4,<0.5' 'pymilvus>=3,<4'",
    ),
    (
        *(_LANGCHAIN, ((0, 4), (99,)), "pymilvus", ((0,), (3,))),
        "langchain-milvus 0.4 is made for pymilvus 3",
        "'langchain-milvus==0.3.3' 'pymilvus==2.6.7'",
    ),
    (
        *(_LLAMA_INDEX, ((0,), (2,)), "pymilvus", ((3,), (99,))),
        "LlamaIndex's Milvus store is made for pymilvus 2",
        "'pymilvus>=2.6.7,<3'",
    ),
    (
        *(_LITE, ((0,), (3,)), "setuptools", ((82,), (999,))),
        "milvus-lite 2 imports pkg_resources, which setuptools has no more",
        "'setuptools<82'",
    ),
)
# milvus-lite that scores a sparse inner product with BM25.
_MISSCORES = ((3, 1), (3, 2, 2))


def broken_pair(installed: Installed) -> str | None:
    """What is known to break among some versions, as one sentence and a pip line; None where nothing is.

    Args:
        installed: {distribution: version}, None or absent where it is not installed.

    Example:
        >>> print(broken_pair({"langchain-milvus": "0.3.3", "pymilvus": "2.6.12"}))
        langchain-milvus 0.3.3 and pymilvus 2.6.12 do not go together: the store loses its connection. Install a pair
        that works: pip install 'pymilvus==2.6.7' 'langchain-milvus==0.3.3'.
        >>> broken_pair({"langchain-milvus": "0.4.0", "pymilvus": "3.0.2"}) is None
        True
    """
    releases = {name: _release(version) for name, version in installed.items() if version}
    if _within(releases.get(_LITE), _MISSCORES):
        return (
            f"{_LITE} {installed[_LITE]} ranks sparse vectors wrongly (by BM25, not by inner product). "
            "Install one that does not: pip install 'milvus-lite>=3.2.2,<4'."
        )
    for first, first_bounds, second, second_bounds, effect, mended in _BROKEN:
        if _within(releases.get(first), first_bounds) and _within(releases.get(second), second_bounds):
            return (
                f"{first} {installed[first]} and {second} {installed[second]} do not go together: {effect}. "
                f"Install a pair that works: pip install {mended}."
            )
    return None


def check_installed(*distributions: str) -> None:
    """Refuse versions that are known to break each other.

    Args:
        *distributions: Those that an adapter uses; milvus-lite's own needs are looked at in any case.
    Raises:
        OptionalDependencyError: The message names the pair, and the pip line that mends it.
    """
    installed: dict[str, str | None] = {}
    for name in (*distributions, _LITE, "setuptools"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = None
    if problem := broken_pair(installed):
        raise OptionalDependencyError(problem)


def _release(version: str) -> Release:
    """The leading numbers of a version: 2.6.10rc1 -> (2, 6, 10). Enough for the bounds here."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def _within(release: Release | None, bounds: tuple[Release, Release]) -> bool:
    return release is not None and bounds[0] <= release < bounds[1]
