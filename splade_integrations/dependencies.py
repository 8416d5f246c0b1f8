"""Which versions of other packages are known to break what we do with them? Says so before it fails in some other way.

Knows version numbers only, imports none of the packages. Called where an adapter is imported or an encoder made.
"""

import importlib.metadata
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from splade_integrations.errors import OptionalDependencyError

__all__ = ["MILVUS", "check_installed", "check_tokenizers", "known_problem", "require_extra"]

logger = logging.getLogger(__name__)

Release = tuple[int, ...]
Installed = Mapping[str, str | None]

# What every Milvus adapter uses.
MILVUS = ("pymilvus", "milvus-lite", "setuptools")

_LITE = "milvus-lite"

# (first package, its versions, second package, its versions, what happens, what mends it). Bounds: (from, below).
_BROKEN: tuple[tuple[str, tuple[Release, Release], str, tuple[Release, Release], str, str], ...] = (
    (
        *("pymilvus", ((2, 6, 8), (2, 6, 10)), _LITE, ((3,), (4,))),
        "pymilvus takes a file's path for the name of a database",
        "'pymilvus>=2.6.7,!=2.6.8,!=2.6.9,<4'",
    ),
    (
        *(_LITE, ((0,), (3,)), "setuptools", ((82,), (999,))),
        "milvus-lite 2 imports pkg_resources, which setuptools has no more",
        "'setuptools<82'",
    ),
)
# (package, its versions, what happens, what mends it). Bounds: (from, below).
_BROKEN_ALONE: tuple[tuple[str, tuple[Release, Release], str, str], ...] = (
    (
        *(_LITE, ((3, 1), (3, 2, 2))),
        "ranks sparse vectors wrongly (by BM25, not by inner product)",
        "'milvus-lite>=3.2.2,<4'",
    ),
    (
        *("tokenizers", ((0, 23, 1), (0, 23, 3))),
        "loses what a long text has beyond its first window (huggingface/tokenizers#2091)",
        "'tokenizers>=0.22,!=0.23.1,!=0.23.2,<1'",
    ),
    (
        *("openvino", ((0,), (2026, 4))),
        "is not known to compute BERT's layers rightly: 2025.0 gives NaN, 2025.4 multiplies in bfloat16 for int8",
        "'openvino>=2026.4,<2027'",
    ),
)


def known_problem(installed: Installed) -> str | None:
    """What is known to break among some versions, as one sentence and a pip line; None where nothing is.

    Args:
        installed: {distribution: version}, None or absent where it is not installed.

    Example:
        >>> print(known_problem({"pymilvus": "2.6.9", "milvus-lite": "3.2.2"}))
        pymilvus 2.6.9 and milvus-lite 3.2.2 do not go together: pymilvus takes a file's path for the name of a
        database. Install a pair that works: pip install 'pymilvus>=2.6.7,!=2.6.8,!=2.6.9,<4'.
        >>> known_problem({"pymilvus": "3.0.2", "milvus-lite": "3.2.2"}) is None
        True
    """
    releases = {name: _release(version) for name, version in installed.items() if version}
    for name, bounds, effect, mended in _BROKEN_ALONE:
        if _within(releases.get(name), bounds):
            return f"{name} {installed[name]} {effect}. Install one that does not: pip install {mended}."
    for first, first_bounds, second, second_bounds, effect, mended in _BROKEN:
        if _within(releases.get(first), first_bounds) and _within(releases.get(second), second_bounds):
            return (
                f"{first} {installed[first]} and {second} {installed[second]} do not go together: {effect}. "
                f"Install a pair that works: pip install {mended}."
            )
    return None


def check_installed(*distributions: str) -> None:
    """Refuse versions that are known to break.

    Args:
        *distributions: Those that the caller uses.
    Raises:
        OptionalDependencyError: The message names what breaks, and the pip line that mends it.
    """
    installed: dict[str, str | None] = {}
    for name in distributions:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = None
    if problem := known_problem(installed):
        raise OptionalDependencyError(problem)


def check_tokenizers(*, windows: bool) -> None:
    """Refuse a version of tokenizers that loses the windows of long texts, or say what it spoils where none are wanted.

    Args:
        windows: Whether they are wanted.
    Raises:
        OptionalDependencyError: They are, and it loses them.
    """
    try:
        check_installed("tokenizers")
    except OptionalDependencyError as err:
        if windows:
            raise
        logger.warning("Texts that are too long will be truncated, but not counted and warned of: %s", err)


@contextmanager
def require_extra(extra: str, *, module: str) -> Iterator[None]:
    """Turn a failing import of an optional dependency into the pip line that mends it.

    Args:
        extra: Name of the extra in `pyproject.toml`.
        module: The module of this package that needs it.
    Raises:
        OptionalDependencyError: An import inside the block failed.

    Example:
        >>> with require_extra("milvus", module="splade_integrations.milvus"):
        ...     import no_such_package
        Traceback (most recent call last):
        splade_integrations.errors.OptionalDependencyError: splade_integrations.milvus needs no_such_package. …
    """
    try:
        yield
    except ImportError as err:
        missing = err.name or str(err)
        raise OptionalDependencyError(
            f"{module} needs {missing}. Install it with: pip install 'splade-integrations[{extra}]'.",
            name=err.name,
        ) from err


def _release(version: str) -> Release:
    """The leading numbers of a version: 2.6.10rc1 -> (2, 6, 10). Enough for the bounds here."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def _within(release: Release | None, bounds: tuple[Release, Release]) -> bool:
    return release is not None and bounds[0] <= release < bounds[1]
