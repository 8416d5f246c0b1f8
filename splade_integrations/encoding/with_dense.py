"""Encodes texts as sparse rows and as dense vectors, in one run of a model that returns both, such as BGE-M3."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from splade_integrations.encoding.lookup import DenseRowModel, Progress
from splade_integrations.encoding.pipeline import RoleSettings, encode
from splade_integrations.encoding.progress import ShowProgress
from splade_integrations.encoding.roles import RoleEncoder

__all__ = ["encode_with_dense"]


def encode_with_dense(
    texts: list[str], encoder: RoleEncoder, settings: RoleSettings, show_progress: ShowProgress, *, model: str
) -> tuple[csr_array, NDArray[np.float32]]:
    """Encode a list of texts as rows of term weights and as dense vectors.

    Args:
        texts: N texts.
        encoder: The encoder of the role.
        settings: The settings of the role.
        show_progress: As in `pipeline.stream_rows`.
        model: A description of the model, for error messages.
    Returns:
        The rows that `pipeline.encode` returns, (N, dim), and dense vectors of length 1, (N, hidden size). Both are
        float32.
    Raises:
        ValueError: The model returns no dense vectors, or the settings allow several windows for a text.
    """
    if not isinstance(encoder.rows, DenseRowModel):
        raise ValueError(
            f"the model must be BGE-M3, got {model}. Only BGE-M3 also gives dense vectors. Load BAAI/bge-m3, or take "
            "dense vectors from a dense model."
        )
    if settings.max_windows > 1:
        raise ValueError(
            "long_documents must be 'truncate' for dense vectors, got 'max'. A dense vector covers only one window. "
            "Split long documents into chunks."
        )

    remembering = _Remembering(encoder.rows)
    rows = encode(texts, replace(encoder, rows=remembering), settings, show_progress)
    return rows, np.concatenate(remembering.dense)


class _Remembering:
    """A model that returns sparse rows, and keeps the dense vectors of the same texts.

    Attributes:
        dense: The dense vectors of each call of `encode`. (N, hidden size) each.
    """

    def __init__(self, model: DenseRowModel) -> None:
        self.dim = model.dim
        self.dense = [np.zeros((0, model.hidden_size), np.float32)]
        self._model = model

    def encode(self, ids: list[list[int]], progress: Progress) -> csr_array:
        rows, dense = self._model.encode_with_dense(ids, progress)
        self.dense.append(dense)
        return rows

    def locate(self, ids: list[int], terms: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return self._model.locate(ids, terms)
