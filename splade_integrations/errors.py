"""The package's own exception types. Knows nothing of torch, Milvus or the frameworks."""

__all__ = ["OptionalDependencyError", "UnsupportedModelError", "first_line"]


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
