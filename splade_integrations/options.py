"""Declares the types of `SpladeEncoder`'s options once, for all code that passes them on.

Importing this module loads neither torch nor a framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from os import PathLike

    from splade_integrations.engine.compute import Backend, Device, Dtype
    from splade_integrations.models.spec import ActivationFunction, PoolingStrategy, SpecialTerms
    from splade_integrations.sparse import Pruning

__all__ = ["EncoderOptions", "LongDocuments"]

LongDocuments = Literal["truncate", "max"]


class EncoderOptions(TypedDict, total=False):
    """The keyword options of `SpladeEncoder`. The docstring of `SpladeEncoder` explains each option.

    Adapters take `**options: Unpack[EncoderOptions]` and pass them on. So an editor can complete the names of the
    options, and a type checker can check their values.
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
