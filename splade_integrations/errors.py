"""The exception types of this package, and functions that handle the errors of other packages."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["NotFiniteError", "OptionalDependencyError", "UnsupportedModelError", "catchable_panics", "first_line"]


class UnsupportedModelError(ValueError):
    """The checkpoint cannot produce SPLADE term weights. The message says what was found and what would work."""


class NotFiniteError(UnsupportedModelError):
    """The term weights of a text are NaN or infinite.

    Args:
        position: The position of the text in the input.
    """

    def __init__(self, position: int) -> None:
        super().__init__(
            f"texts[{position}] must have finite term weights, got NaN or infinity. If dtype is 'float16', use "
            "'float32' or 'bfloat16', which have a wider range. If backend is 'openvino', use 'torch'. If neither "
            "helps, the model's weights are damaged: download them again."
        )
        self.position = position


class OptionalDependencyError(ImportError):
    """A required package is missing, or its version is known to fail. The message says what to install."""


def first_line(err: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if the message is empty.

    Example:
        >>> first_line(RuntimeError("sizes differ\\nsee below")), first_line(EOFError())
        ('sizes differ', 'EOFError')
    """
    return next(iter(str(err).strip().splitlines()), type(err).__name__)


@contextmanager
def catchable_panics() -> Iterator[None]:
    """Turn a panic of a library written in Rust into a RuntimeError.

    PyO3 raises a panic as a `BaseException`. So `except Exception` does not catch it, and a thread pool or a server
    would end.

    Example:
        >>> with catchable_panics():
        ...     print("no panic")
        no panic
    """
    try:
        yield
    except BaseException as err:
        if type(err).__name__ != "PanicException":  # the class cannot be imported
            raise
        raise RuntimeError(f"a library written in Rust failed: {first_line(err)}") from err
