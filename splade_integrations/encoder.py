"""`SpladeEncoder`: texts in, term weights out. The one place where the parts meet.

texts -> token ids -> batches -> hidden states -> tiles of logits -> (B, V) -> csr_array.
Knows nothing of Milvus or the frameworks.
"""

import logging
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from tqdm.auto import tqdm

from splade_integrations.batching import token_budget_batches
from splade_integrations.checkpoints import load_masked_lm, resolve_max_length
from splade_integrations.devices import resolve_device, resolve_dtype
from splade_integrations.head import max_pool_head, splade_pool
from splade_integrations.precision import exact_float32
from splade_integrations.sparse import Pruning, as_rows, concatenate, from_dense
from splade_integrations.tokenization import TextTokenizer, TokenIds, check_text, check_texts

__all__ = ["SpladeEncoder"]

logger = logging.getLogger(__name__)

# Texts tokenised, sorted by length and encoded together: enough for batches of equal length, little to hold.
_WINDOW = 2048
# Activations of a small batch stay in a processor's cache; a GPU wants enough work to fill it.
_MAX_BATCH_TOKENS = {"cpu": 1024, "cuda": 32768, "mps": 4096}
# Most bytes of one (B, V) block of weights, and of the logits of a head that has to write them.
_BLOCK_BYTES = 64 * 2**20
_LOGITS_BYTES = 256 * 2**20


class SpladeEncoder:
    """Encodes texts as SPLADE sparse embeddings: one weight per vocabulary term, most of them zero.

    One encoder serves any number of adapters and threads. A text's row does not depend on its batch, its neighbours or
    its place (within 1e-5 in float32).

    Args:
        model_name: A masked-LM checkpoint: a local folder, or `org/model` on the Hugging Face hub.
        device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:n" or "mps".
        dtype: "auto" (float32 on a CPU and on MPS, 16 bits on CUDA), "float32", "bfloat16" or "float16".
        max_length: Most tokens of a text, special tokens included; longer texts are cut, with one warning a call.
            None takes the model's own limit.
        revision: Branch, tag or commit of a hub repository.
        max_batch_tokens: Most tokens of a batch, padding included. Bounds memory. None suits the device.
        batch_size: Most texts of a batch. None leaves that to `max_batch_tokens`.
        query_prompt: Put before each query.
        document_prompt: Put before each document.
        query_pruning: Which terms of a query are kept. None keeps all.
        document_pruning: Which terms of a document are kept. None keeps all.
        cache_dir: Where hub downloads lie.
        token: Access token for gated hub repositories.
        local_files_only: Never ask the hub.

    Raises:
        FileNotFoundError: The model is not there.
        UnsupportedModelError: The model has no masked-LM head, or lacks weights.
        ValueError: An option is out of range, or the device is absent.
        TypeError: An option is unknown.

    Example:
        >>> encoder = SpladeEncoder(model_folder)
        >>> weights = encoder.encode_documents(["Alan Turing was born in London.", ""])
        >>> weights.shape
        (2, 30522)
        >>> [token for token, weight in encoder.decode(weights, top_k=4)[0]]
        ['born', 'alan', 'turing', 'london']

    Source:
        Formal et al., SPLADE v2, arXiv:2109.10086.
    """

    def __init__(
        self,
        model_name: str | PathLike[str],
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        max_length: int | None = None,
        revision: str | None = None,
        max_batch_tokens: int | None = None,
        batch_size: int | None = None,
        query_prompt: str = "",
        document_prompt: str = "",
        query_pruning: Pruning | None = None,
        document_pruning: Pruning | None = None,
        cache_dir: str | PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> None:
        _check_at_least_one(max_batch_tokens=max_batch_tokens, batch_size=batch_size)
        self.model_name = fspath(model_name)
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        hub_options = {
            "revision": revision,
            "cache_dir": cache_dir,
            "token": token,
            "local_files_only": local_files_only,
        }
        self._checkpoint = load_masked_lm(self.model_name, device=self.device, dtype=self.dtype, **hub_options)
        self.dim: int = self._checkpoint.dim
        self.tokenizer = self._checkpoint.tokenizer
        self.max_length = resolve_max_length(max_length, self._checkpoint)
        self._tokenize = TextTokenizer(self.tokenizer, self.max_length)
        self._max_batch_texts = min(batch_size or _BLOCK_BYTES, max(1, _BLOCK_BYTES // (4 * self.dim)))
        self._max_batch_tokens = max_batch_tokens or _MAX_BATCH_TOKENS[self.device.type]
        if self._checkpoint.weight is None:
            self._max_batch_tokens = min(self._max_batch_tokens, max(1, _LOGITS_BYTES // (4 * self.dim)))
        self._query = query_prompt, query_pruning
        self._document = document_prompt, document_pruning

    def encode_documents(self, texts: Iterable[str], show_progress: bool = False) -> csr_array:
        """Encode documents.

        Args:
            texts: A list, or another iterable, of str. "" is a text like any other.
            show_progress: Show a progress bar on stderr.
        Returns:
            Term weights, natural log scale. (len(texts), dim) float32, int32 sorted indices, no stored zeros.
        Raises:
            TypeError: A bare str, or an item that is not a str (its position is named).
        """
        return self._encode(check_texts(texts), *self._document, show_progress=show_progress)

    def encode_queries(self, texts: Iterable[str], show_progress: bool = False) -> csr_array:
        """Encode queries: as `encode_documents`, with the query's prompt and pruning."""
        return self._encode(check_texts(texts), *self._query, show_progress=show_progress)

    def stream_documents(self, texts: Iterable[str], show_progress: bool = False) -> Iterator[csr_array]:
        """Encode documents as they come, in memory that does not grow with their number.

        Args:
            texts: Any iterable of str, such as a generator that reads a file.
            show_progress: Show a progress bar on stderr.
        Yields:
            Blocks of at most 2 048 rows in input order, each like a result of `encode_documents`.
        Raises:
            TypeError: A bare str, or an item that is not a str. Blocks before it have been yielded.
        """
        if isinstance(texts, str | bytes):
            check_texts(texts)
        checked = (check_text(text, position) for position, text in enumerate(texts))
        return self._stream(checked, *self._document, show_progress=show_progress, total=None)

    def decode(self, embeddings: csr_array, top_k: int | None = None) -> list[list[tuple[str, float]]]:
        """Name the terms of sparse embeddings.

        Args:
            embeddings: Rows of term weights. (N, dim), or one row of (dim,).
            top_k: Most terms a row. None gives all.
        Returns:
            For each row (token, weight) by falling weight, ties by token id.
        """
        rows = as_rows(embeddings)
        decoded = []
        for start, end in pairwise(rows.indptr):
            ids, weights = rows.indices[start:end], rows.data[start:end]
            order = np.lexsort((ids, -weights))[:top_k]
            tokens = self.tokenizer.convert_ids_to_tokens(ids[order].tolist())
            decoded.append(list(zip(tokens, weights[order].tolist(), strict=True)))
        return decoded

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"SpladeEncoder({self.model_name!r}, device='{self.device}', dtype='{dtype}', "
            f"max_length={self.max_length}, dim={self.dim})"
        )

    def _encode(self, texts: list[str], prompt: str, pruning: Pruning | None, *, show_progress: bool) -> csr_array:
        blocks = self._stream(iter(texts), prompt, pruning, show_progress=show_progress, total=len(texts))
        return concatenate(list(blocks), self.dim)

    def _stream(
        self, texts: Iterator[str], prompt: str, pruning: Pruning | None, *, show_progress: bool, total: int | None
    ) -> Iterator[csr_array]:
        encoded = truncated = tokens_lost = tokens = 0
        with tqdm(total=total, unit="text", desc="SPLADE", disable=not show_progress) as progress:
            while window := list(islice(texts, _WINDOW)):
                token_ids = self._tokenize([prompt + text for text in window] if prompt else window)
                encoded += len(window)
                truncated += token_ids.truncated
                tokens_lost += token_ids.tokens_lost
                tokens += token_ids.tokens
                block = self._encode_window(token_ids, progress)
                yield block if pruning is None else pruning.apply(block)
        if truncated:
            logger.warning(
                "%d of %d texts are longer than max_length=%d tokens and were truncated: %.1f %% of the call's tokens "
                "were lost. Split long texts into smaller chunks, or raise max_length if the model allows.",
                truncated, encoded, self.max_length, 100 * tokens_lost / tokens,
            )  # fmt: skip

    def _encode_window(self, token_ids: TokenIds, progress: Any) -> csr_array:
        """Encode the texts of one window by batches of similar length, and put the rows back in order."""
        lengths = [len(ids) for ids in token_ids.ids]
        rows: list[csr_array] = []
        positions: list[int] = []
        for batch in token_budget_batches(
            lengths, max_batch_tokens=self._max_batch_tokens, max_batch_texts=self._max_batch_texts
        ):
            weights = self._term_weights([token_ids.ids[position] for position in batch])
            rows.append(from_dense(weights.cpu().numpy()))
            positions += batch
            progress.update(len(batch))
        return concatenate(rows, self.dim)[np.argsort(positions)]

    def _term_weights(self, ids: list[list[int]]) -> Tensor:
        """Run one batch through the model. (B, V) float32."""
        lengths = torch.tensor([len(row) for row in ids], device=self.device)
        longest = int(lengths.max())
        if longest == 0:  # a tokenizer without special tokens, given empty texts
            return torch.zeros(len(ids), self.dim, dtype=torch.float32)
        input_ids = torch.full((len(ids), longest), self.tokenizer.pad_token_id or 0)
        for row, text_ids in zip(input_ids, ids, strict=True):
            row[: len(text_ids)] = torch.tensor(text_ids)
        input_ids = input_ids.to(self.device)
        attention_mask = (torch.arange(longest, device=self.device) < lengths.unsqueeze(1)).long()  # (B, L)
        checkpoint = self._checkpoint
        with exact_float32(self.device):
            output = checkpoint.model(input_ids=input_ids, attention_mask=attention_mask).logits
            if checkpoint.weight is None:
                return splade_pool(output, attention_mask)
            return max_pool_head(output, lengths, checkpoint.weight, checkpoint.bias)


def _check_at_least_one(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"{name} must be an int of at least 1, or None, got {value!r}. Use None for the default.")
