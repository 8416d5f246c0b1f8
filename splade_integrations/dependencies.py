"""Refuses package versions that are known to fail, and says which versions to install instead.

Without this module, a user would get wrong results or an error from deep inside another package. The checks run when an
adapter is imported or an encoder is made. This module compares version numbers. It does not import the packages that it
checks.
"""

import importlib.metadata
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from splade_integrations.errors import OptionalDependencyError

__all__ = ["MILVUS", "check_installed", "check_tokenizers", "known_problem", "require_extra", "require_torch"]

logger = logging.getLogger(__name__)

Release = tuple[int, ...]
Installed = Mapping[str, str | None]

# The packages that every Milvus adapter uses.
MILVUS = ("pymilvus", "milvus-lite", "setuptools")

_LITE = "milvus-lite"

# Pairs of packages that fail together: (first package, its versions, second package, its versions, what happens, which
# versions work). Versions are given as (a, b), which means all versions from a up to b, without b itself.
_BROKEN: tuple[tuple[str, tuple[Release, Release], str, tuple[Release, Release], str, str], ...] = (
    (
        *("pymilvus", ((2, 6, 8), (2, 6, 10)), _LITE, ((3,), (4,))),
        "pymilvus mistakes a file's path for the name of a database",
        "'pymilvus>=2.6.7,!=2.6.8,!=2.6.9,<4'",
    ),
    (
        *(_LITE, ((0,), (3,)), "setuptools", ((82,), (999,))),
        "milvus-lite 2 imports pkg_resources, which setuptools no longer has",
        "'setuptools<82'",
    ),
)
# Packages that fail whatever else is installed: (package, its versions, what happens, which versions work). Versions
# are given in the same form as above.
_BROKEN_ALONE: tuple[tuple[str, tuple[Release, Release], str, str], ...] = (
    (
        *(_LITE, ((3, 1), (3, 2, 2))),
        "ranks sparse vectors wrongly (by BM25, not by inner product)",
        "'milvus-lite>=3.2.2,<4'",
    ),
    (
        *("tokenizers", ((0, 23, 1), (0, 23, 3))),
        "loses everything beyond the first window of a long text (huggingface/tokenizers#2091)",
        "'tokenizers>=0.22,!=0.23.1,!=0.23.2,<1'",
    ),
    (
        *("openvino", ((0,), (2026, 4))),
        "may compute BERT's layers wrongly: 2025.0 gives NaN, and 2025.4 multiplies in bfloat16 if int8 is requested",
        "'openvino>=2026.4,<2027'",
    ),
)


def known_problem(installed: Installed) -> str | None:
    """Return a message that says what fails with these versions and which pip command helps.

    If no problem with these versions is known, the result is None.

    Args:
        installed: {distribution: version}. A distribution that is not installed has the version None or is left out.

    Example:
        >>> print(known_problem({"pymilvus": "2.6.9", "milvus-lite": "3.2.2"}))
        pymilvus 2.6.9 and milvus-lite 3.2.2 do not work together: pymilvus mistakes a file's path for the name of
        a database. Install a pair that works: pip install 'pymilvus>=2.6.7,!=2.6.8,!=2.6.9,<4'.
        >>> known_problem({"pymilvus": "3.0.2", "milvus-lite": "3.2.2"}) is None
        True
    """
    releases = {name: _release(version) for name, version in installed.items() if version}
    for name, bounds, effect, mended in _BROKEN_ALONE:
        if _within(releases.get(name), bounds):
            return f"{name} {installed[name]} {effect}. Install a version without this problem: pip install {mended}."
    for first, first_bounds, second, second_bounds, effect, mended in _BROKEN:
        if _within(releases.get(first), first_bounds) and _within(releases.get(second), second_bounds):
            return (
                f"{first} {installed[first]} and {second} {installed[second]} do not work together: {effect}. "
                f"Install a pair that works: pip install {mended}."
            )
    return None


def check_installed(*distributions: str) -> None:
    """Refuse installed versions that are known to fail.

    Args:
        *distributions: The distributions that the caller uses.
    Raises:
        OptionalDependencyError: A version is known to fail. The message says what happens, and gives the pip command
            that installs versions that work.
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
    """Raise an error or log a warning if the installed `tokenizers` keeps only the first window of a long text.

    A window is a part of a text that fits into the model.

    Args:
        windows: Whether long texts are read in several windows. If False, a faulty version only causes a warning.
    Raises:
        OptionalDependencyError: `windows` is True, and the installed version loses all windows except the first.
    """
    try:
        check_installed("tokenizers")
    except OptionalDependencyError as err:
        if windows:
            raise
        logger.warning("Texts that are too long will be truncated without being counted or reported: %s", err)


@contextmanager
def require_extra(extra: str, *, module: str) -> Iterator[None]:
    """Turn a failed import of an optional dependency into an error that says what to install.

    Args:
        extra: The extra in `pyproject.toml` that installs the dependency.
        module: What needs the dependency, such as the name of a module. The message begins with this text.
    Raises:
        OptionalDependencyError: An import inside the `with` block failed.

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


@contextmanager
def require_torch(model_name: str, what: str) -> Iterator[None]:
    """Turn a failed import of torch or transformers into an error that says what needs them, and what to install.

    This package depends on torch and transformers. But a machine that encodes only inference-free queries, whose
    weights come from a table, works without them.

    Args:
        model_name: The name under which the model was requested.
        what: What needs torch or transformers, such as "its tokenizer".
    Raises:
        OptionalDependencyError: An import inside the `with` block failed because torch or transformers is missing.

    Example:
        >>> with require_torch("org/x", "its tokenizer"):
        ...     raise ModuleNotFoundError("No module named 'torch'", name="torch")
        Traceback (most recent call last):
        splade_integrations.errors.OptionalDependencyError: 'org/x' needs torch for its tokenizer, …
    """
    try:
        yield
    except ImportError as err:
        missing = (err.name or "").partition(".")[0]
        if missing not in ("torch", "transformers"):
            raise
        raise OptionalDependencyError(
            f"{model_name!r} needs {missing} for {what}, but {missing} is not installed. Install it with: pip install "
            "torch transformers. Or encode on a machine that has it. (Inference-free queries work without it.)",
            name=missing,
        ) from err


def _release(version: str) -> Release:
    """Return the leading numbers of a version, such as (2, 6, 10) for 2.6.10rc1. The tables above use this form."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def _within(release: Release | None, bounds: tuple[Release, Release]) -> bool:
    return release is not None and bounds[0] <= release < bounds[1]
