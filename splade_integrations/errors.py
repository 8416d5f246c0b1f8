"""The exception types of this package, and a function that returns the first line of an error's message."""

__all__ = ["OptionalDependencyError", "UnsupportedModelError", "first_line"]


class UnsupportedModelError(ValueError):
    """The checkpoint cannot give SPLADE term weights. The message says what was found and what would work."""


class OptionalDependencyError(ImportError):
    """A package that is needed is missing, or its version is known to fail. The message says what to install."""


def first_line(err: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if the message is empty.

    Example:
        >>> first_line(RuntimeError("sizes differ\\nsee below")), first_line(EOFError())
        ('sizes differ', 'EOFError')
    """
    return next(iter(str(err).strip().splitlines()), type(err).__name__)
