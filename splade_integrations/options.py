"""Declares the types of `SpladeEncoder`'s options, and checks their values.

Code that passes these options on to `SpladeEncoder` uses this module. Importing it does not load torch, numpy or
a framework. The checks load numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack, get_args

if TYPE_CHECKING:
    from os import PathLike

    from splade_integrations.engine.compute import Backend, Device, Dtype
    from splade_integrations.models.spec import ActivationFunction, PoolingStrategy, SpecialTerms
    from splade_integrations.pruning import Pruning

__all__ = ["EncoderOptions", "LongDocuments", "check_at_least_one", "check_options"]

LongDocuments = Literal["truncate", "max"]

# The options whose values are an int of at least 1, or None.
_COUNTS = ("max_batch_tokens", "batch_size", "max_length", "num_threads")


class EncoderOptions(TypedDict, total=False):
    """The keyword options of `SpladeEncoder`. The docstring of `SpladeEncoder` explains each option.

    Adapters declare `**options: Unpack[EncoderOptions]` and pass the options on. So an editor can complete the names of
    the options, and a type checker can check their values.
    """

    device: Device
    dtype: Dtype
    backend: Backend
    max_length: int | None
    long_documents: LongDocuments
    max_windows: int
    revision: str | None
    max_batch_tokens: int | None
    batch_size: int | None
    num_threads: int | None
    query_prompt: str | None
    document_prompt: str | None
    query_pruning: Pruning | None
    document_pruning: Pruning | None
    pooling_strategy: PoolingStrategy | None
    activation_function: ActivationFunction | None
    special_terms: SpecialTerms | None
    lower_case: bool | None
    cache_dir: str | PathLike[str] | None
    token: str | bool | None
    local_files_only: bool
    trust_remote_code: bool


def check_options(**options: Unpack[EncoderOptions]) -> None:
    """Check the options whose valid values are the same for every model and on every machine.

    Raises:
        ValueError: A number is below 1, or `long_documents` is neither "truncate" nor "max".
        TypeError: A prompt, a pruning or `lower_case` has the wrong type.

    Example:
        >>> check_options(max_length=0)
        Traceback (most recent call last):
        ValueError: max_length must be an int of at least 1, or None, got 0. Use None for the default.
    """
    from splade_integrations.pruning import Pruning
    from splade_integrations.sparse import is_integer

    given: Mapping[str, object] = options
    for name in _COUNTS:
        check_at_least_one(name, given.get(name))
    max_windows, long_documents = given.get("max_windows", 3), given.get("long_documents", "truncate")
    if not is_integer(max_windows) or max_windows < 1:
        raise ValueError(f"max_windows must be an int of at least 1, got {max_windows!r}. The default is 3.")
    if long_documents not in get_args(LongDocuments):
        raise ValueError(
            f"long_documents must be 'truncate' or 'max', got {long_documents!r}. Use 'truncate' if unsure."
        )
    types = {"query_prompt": str, "document_prompt": str, "lower_case": bool}
    types |= {"query_pruning": Pruning, "document_pruning": Pruning}
    for name, expected in types.items():
        value = given.get(name)
        if value is not None and not isinstance(value, expected):
            raise TypeError(
                f"{name} must be a {expected.__name__} or None, got {type(value).__name__}. "
                "Use None for the model's own setting."
            )


def check_at_least_one(name: str, value: object) -> None:
    """Raise ValueError if the option called `name` is neither an int of at least 1 nor None."""
    from splade_integrations.sparse import is_integer

    if not (value is None or (is_integer(value) and value >= 1)):
        raise ValueError(f"{name} must be an int of at least 1, or None, got {value!r}. Use None for the default.")
