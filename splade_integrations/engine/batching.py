"""Groups the token ids of texts into padded batches, runs a model on them, and returns rows of term weights.

`BatchedModel` is the base of every model that runs a transformer. It knows nothing about layers, heads or pooling.
"""

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from splade_integrations.engine.process import HeapTrimmer, exact_float32
from splade_integrations.engine.transfer import CudaTransfer
from splade_integrations.errors import UnsupportedModelError
from splade_integrations.sparse import concatenate, from_dense, from_rows

__all__ = ["BatchedModel", "PaddedBatch", "Progress", "token_budget_batches"]

logger = logging.getLogger(__name__)

# The default number of tokens in a batch, times the hidden size. On a CPU this is 1 024 tokens of BERT-base, because
# their activations fit in the caches. A GPU needs larger batches to be fully used.
_BATCH_CELLS = {"cpu": 3 * 2**18, "cuda": 24 * 2**20, "mps": 3 * 2**20}
# The largest number of bytes of a batch's term weights, (B, V).
_BLOCK_BYTES = 64 * 2**20
# A batch of texts with very different lengths is mostly padding. So once a batch fills an eighth of its token budget,
# it takes no text that is shorter than seven eighths of its longest text. With an eighth of the budget, matrix products
# already run at full speed.
_LEAST_FILLED = 1 / 8
_SIMILAR = 7 / 8

_T = TypeVar("_T")
Progress = Callable[[int], object]  # called with the number of texts encoded since the last call


@dataclass(frozen=True)
class PaddedBatch:
    """The token ids of several texts, padded to form one tensor.

    Args:
        input_ids: Token ids, padded at the end. (B, L).
        attention_mask: 1 for real tokens, 0 for padding. (B, L).
        lengths: The number of tokens of each text without padding. (B,).
    """

    input_ids: Tensor
    attention_mask: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, ids: Sequence[Sequence[int]], device: torch.device, padding_id: int) -> "PaddedBatch":
        """Pad B texts to the length of the longest one, and send them to a device."""
        longest = max(map(len, ids))
        padded = np.full((len(ids), longest), padding_id)
        for row, text_ids in zip(padded, ids, strict=True):
            row[: len(text_ids)] = text_ids
        lengths = _to_device(device, np.array([len(text_ids) for text_ids in ids]))
        mask = (torch.arange(longest, device=device) < lengths.unsqueeze(1)).long()
        return cls(_to_device(device, padded), mask, lengths)


class BatchedModel(ABC):
    """Turns token ids into rows of term weights, in batches of texts of similar length.

    A subclass computes the term weights of one batch, in `term_weights`.

    Args:
        device: The device of the model.
        dim: The number of terms, V.
        hidden_size: The size H of the transformer's hidden states.
        padding_id: The token id to pad with. The attention mask hides the padding.
        ignores_padding: Whether padding leaves a text's results unchanged. If not, all texts of a batch have the same
            length.
        max_batch_tokens: The largest number of tokens of a batch, padding included. None means a number that suits the
            device and the model.
        max_batch_texts: The largest number of texts of a batch, or None. In either case, the term weights of a batch of
            several texts take at most 64 MiB.
    """

    def __init__(
        self,
        device: torch.device,
        dim: int,
        *,
        hidden_size: int,
        padding_id: int,
        ignores_padding: bool,
        max_batch_tokens: int | None = None,
        max_batch_texts: int | None = None,
    ) -> None:
        self.dim = dim
        self._device = device
        self._padding_id = padding_id
        self._ignores_padding = ignores_padding
        self._max_batch_texts = max(1, _BLOCK_BYTES // (4 * dim))
        if max_batch_texts is not None:
            self._max_batch_texts = min(self._max_batch_texts, max_batch_texts)
        self.max_batch_tokens = max_batch_tokens or max(256, _BATCH_CELLS[device.type] // hidden_size)
        self.transfer = CudaTransfer(device) if device.type == "cuda" else None
        self._trimmer = HeapTrimmer() if device.type == "cpu" else None

    @abstractmethod
    def term_weights(self, batch: PaddedBatch) -> Tensor:
        """Return the term weights of one batch, 0 or more. (B, V) float32."""

    def encode(self, ids: Sequence[list[int]], progress: Progress) -> csr_array:
        """Encode texts in batches of similar length, and return the rows in the order of the texts.

        Args:
            ids: The token ids of N texts, special tokens included. A text may have no tokens.
            progress: Called with the number of texts encoded since the last call.
        Returns:
            (N, V) float32.
        Raises:
            UnsupportedModelError: Term weights are not finite.
            torch.OutOfMemoryError: A batch of one text does not fit in the device's memory.
        """
        return self._rows(ids, progress, self.term_weights, self.dim)

    def _rows(
        self, ids: Sequence[list[int]], progress: Progress, compute: Callable[[PaddedBatch], Tensor], width: int
    ) -> csr_array:
        """Do the work of `encode` with `compute`, which returns (B, width) float32 for a batch."""
        rows: list[csr_array] = []
        positions: list[int] = []
        batches = deque(self._batches(ids))
        while batches:  # the loop runs again if memory ran out for the rows of the last batch
            for batch, finish in _one_behind(self._started(batches, ids, compute)):
                finished = self._unless_out_of_memory(finish, batch, ids)
                del finish  # because `finish` would keep the batch's weights on the device
                if finished is None:
                    batches.appendleft(batch)
                    continue
                rows.append(_finite(finished))
                positions += batch
                if self._trimmer is not None:
                    self._trimmer.after_batch()
                progress(len(batch))
        empty = [position for position, text_ids in enumerate(ids) if not text_ids]
        if empty:
            rows.append(from_rows([(np.empty(0, np.int32), np.empty(0, np.float32))] * len(empty), width))
            positions += empty
            progress(len(empty))
        return concatenate(rows, width)[np.argsort(positions)]

    def _batches(self, ids: Sequence[list[int]]) -> Iterator[list[int]]:
        """Yield, for each batch, the positions of its texts in `ids`. Texts without any tokens are left out."""
        present = [position for position, text_ids in enumerate(ids) if text_ids]
        for batch in token_budget_batches(
            [len(ids[position]) for position in present],
            max_batch_tokens=self.max_batch_tokens,
            max_batch_texts=self._max_batch_texts,
            equal_lengths=not self._ignores_padding,
        ):
            yield [present[place] for place in batch]

    def _started(
        self, batches: deque[list[int]], ids: Sequence[list[int]], compute: Callable[[PaddedBatch], Tensor]
    ) -> Iterator[tuple[list[int], Callable[[], csr_array]]]:
        """Start each batch. Yield the positions of its texts, and a function that waits for its rows.

        A batch that does not fit in the device's memory is halved until it fits. Later batches are not larger than
        the batch that fitted.
        """
        while batches:
            batch = batches.popleft()
            # The first text of a batch is its longest, so this counts the batch's tokens, padding included.
            if len(batch) > 1 and len(batch) * len(ids[batch[0]]) > self.max_batch_tokens:
                half = (len(batch) + 1) // 2
                batches.extendleft((batch[half:], batch[:half]))
                continue

            def start(batch: list[int] = batch) -> Callable[[], csr_array]:
                with exact_float32(self._device):
                    padded = PaddedBatch.of([ids[position] for position in batch], self._device, self._padding_id)
                    weights = compute(padded)
                if self.transfer is not None:
                    return self.transfer.start(weights)
                rows = from_dense(weights.cpu().numpy())
                return lambda: rows

            started = self._unless_out_of_memory(start, batch, ids)
            if started is None:
                batches.appendleft(batch)
            else:
                yield batch, started

    def _unless_out_of_memory(self, work: Callable[[], _T], batch: list[int], ids: Sequence[list[int]]) -> _T | None:
        """Return the result of `work` on a batch. If memory runs out, make later batches smaller and return None.

        Raises:
            torch.OutOfMemoryError: Memory runs out for a batch of one text.
        """
        device, longest = self._device, len(ids[batch[0]])
        try:
            return work()
        except torch.OutOfMemoryError as err:
            if len(batch) == 1:
                raise torch.OutOfMemoryError(
                    f"a text must fit the memory of {device}, got a text of {longest} tokens that does not fit, even "
                    "as the only text in its batch. Use a smaller max_length or a 16-bit dtype, or free memory on the "
                    "device. A smaller max_batch_tokens cannot help."
                ) from err
        self.max_batch_tokens = min(self.max_batch_tokens, (len(batch) + 1) // 2 * longest)
        logger.warning(
            "Out of memory on %s with a batch of %d tokens. From now on batches have at most %d tokens. To avoid this "
            "failed attempt next time, set max_batch_tokens to that number.",
            device, len(batch) * longest, self.max_batch_tokens,
        )  # fmt: skip
        return None


def token_budget_batches(
    lengths: Sequence[int], *, max_batch_tokens: int, max_batch_texts: int, equal_lengths: bool = False
) -> Iterator[list[int]]:
    """Group texts of similar length so that a padded batch stays within a token budget.

    Texts are sorted by length, the longest first. Once a batch fills an eighth of its budget, it takes no text that
    is shorter than seven eighths of its longest text, so there is little padding. Memory use peaks in the first batch.
    So if memory runs out, it does so at once and not after an hour.

    Args:
        lengths: The number of tokens of each text, special tokens included.
        max_batch_tokens: The largest number of tokens of a batch, padding included. This is the number of its texts
            times the length of the longest one. A text with more tokens than this gets a separate batch.
        max_batch_texts: The largest number of texts of a batch.
        equal_lengths: Whether all texts of a batch must have the same length, so that there is no padding.
    Yields:
        For each batch, the positions of its texts in `lengths`. Every position occurs exactly once.

    Example:
        >>> list(token_budget_batches([8, 20, 7, 2], max_batch_tokens=40, max_batch_texts=8))
        [[1], [0, 2], [3]]
    """
    batch: list[int] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda p: -lengths[p]):
        full = len(batch) >= max_batch_texts or (len(batch) + 1) * longest > max_batch_tokens
        filled = equal_lengths or len(batch) * longest >= _LEAST_FILLED * max_batch_tokens
        shorter = lengths[position] < longest * (1 if equal_lengths else _SIMILAR)
        if batch and (full or (filled and shorter)):
            yield batch
            batch = []
        if not batch:
            longest = lengths[position]
        batch.append(position)
    if batch:
        yield batch


def _to_device(device: torch.device, numbers: NDArray[np.int64]) -> Tensor:
    """Send numbers to a device. CUDA copies them from page-locked memory, so the host does not wait for the copy."""
    tensor = torch.from_numpy(numbers)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _one_behind(items: Iterator[_T]) -> Iterator[_T]:
    """Yield each item after the next item has been taken from `items`.

    Taking an item starts a batch on the GPU. So the GPU copies the rows of one batch while it computes the next batch.
    """
    started = deque(islice(items, 1))
    for item in items:
        started.append(item)
        yield started.popleft()
    yield from started


def _finite(rows: csr_array) -> csr_array:
    """Return `rows`, or raise UnsupportedModelError if a weight is NaN or infinite."""
    if not np.isfinite(rows.data).all():
        raise UnsupportedModelError(
            "term weights must be finite, got NaN or infinity. If dtype is 'float16', use 'float32' or 'bfloat16', "
            "which have a wider range. If backend is 'openvino', use 'torch'. Else the model's weights are damaged: "
            "download them again."
        )
    return rows
