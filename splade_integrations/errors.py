"""The package's own exception types. Knows nothing of torch, Milvus or the frameworks."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["OptionalDependencyError", "UnsupportedModelError", "first_line", "require_extra"]


class UnsupportedModelError(ValueError):
    """The checkpoint cannot give SPLADE term weights; the message says what was found and what would work."""


class OptionalDependencyError(ImportError):
    """Something needs a package that is not installed, or another version of it; the message is the pip line."""


def first_line(err: BaseException) -> str:
    """The first line of an error's message, or its type's name where it has none: other packages raise bare ones, too.

    Example:
        >>> first_line(RuntimeError("sizes differ\\nsee below")), first_line(EOFError())
        ('sizes differ', 'EOFError')
    """
    return next(iter(str(err).strip().splitlines()), type(err).__name__)


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
