"""Groups the token ids of texts into padded batches, runs a model on them, and returns rows of term weights.

`BatchedModel` is the base of every model that runs a transformer. It knows nothing about layers, vocabulary heads or
pooling.
"""

import logging
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from splade_integrations.engine.batch_budget import BatchBudget
from splade_integrations.engine.free_cores import free_cores
from splade_integrations.engine.memory import HeapTrimmer, is_out_of_memory
from splade_integrations.engine.products import exact_float32, usable_threads
from splade_integrations.engine.thread_choice import ThreadChoice
from splade_integrations.engine.threads import can_run_apart, computes_together, run_alone, run_apart, run_together
from splade_integrations.engine.transfer import CudaTransfer
from splade_integrations.errors import NotFiniteError
from splade_integrations.sparse import concatenate, from_dense, from_rows

__all__ = ["BatchedModel", "PaddedBatch", "Progress"]

logger = logging.getLogger(__name__)

# The default size of a batch on each type of device, as the number of tokens times the hidden size. A GPU needs large
# batches to be fully used.
_BATCH_CELLS = {"cpu": 3 * 2**18, "cuda": 24 * 2**20, "mps": 3 * 2**20}
# On a CPU, a batch has at most this number of tokens by default. Then activations, and tiles of logits, fit in the
# caches. Larger batches of the tiny model are slower by up to a quarter.
_CPU_BATCH_TOKENS = 1024
# The largest number of bytes of a batch's term weights, (B, V).
_BLOCK_BYTES = 64 * 2**20

_T = TypeVar("_T")
Progress = Callable[[int], object] | None  # called with the number of texts encoded since the last call


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
        ignores_padding: Whether padding leaves a text's results unchanged. If not, each batch holds only texts of the
            same length.
        skips_padding: Whether the model's layers skip padding.
        max_batch_tokens: The largest number of tokens of a batch, padding included. None means a number that suits the
            device and the model.
        max_batch_texts: The largest number of texts of a batch, or None for no such limit. In either case, the term
            weights of a batch of several texts take at most 64 MiB.
        num_threads: The number of threads that compute on a CPU, or None (see `usable_threads`).
        runs_apart: Whether several threads may each compute a batch at the same time. If not, all threads compute each
            batch together.
    """

    def __init__(
        self,
        device: torch.device,
        dim: int,
        *,
        hidden_size: int,
        padding_id: int,
        ignores_padding: bool,
        skips_padding: bool = False,
        max_batch_tokens: int | None = None,
        max_batch_texts: int | None = None,
        num_threads: int | None = None,
        runs_apart: bool = True,
    ) -> None:
        self.dim = dim
        self._device = device
        self._padding_id = padding_id
        self._ignores_padding = ignores_padding
        self._skips_padding = skips_padding
        self._max_batch_texts = max_batch_texts
        self.max_batch_tokens = max_batch_tokens or _default_batch_tokens(device, hidden_size)
        self.transfer = CudaTransfer(device) if device.type == "cuda" else None
        self._trimmer = HeapTrimmer() if device.type == "cpu" else None
        self._num_threads = num_threads
        self._runs_apart = runs_apart and device.type == "cpu" and can_run_apart()
        self._thread_choice = ThreadChoice()
        self._process = os.getpid()

    @abstractmethod
    def term_weights(self, batch: PaddedBatch) -> Tensor:
        """Return the term weights of one batch, 0 or more. (B, V) float32."""

    def encode(self, ids: Sequence[list[int]], progress: Progress) -> csr_array:
        """Encode texts in batches of similar length, and return the rows in the order of the texts.

        Args:
            ids: The token ids of N texts, special tokens included. A text may have no tokens.
            progress: A function that is called with the number of texts encoded since its last call, or None.
        Returns:
            (N, V) float32.
        Raises:
            NotFiniteError: Term weights are not finite. The error's `position` is the position of the text in `ids`.
            torch.OutOfMemoryError: A batch of one text does not fit in the device's memory.
        """
        return self._rows(ids, progress, self.term_weights, self.dim)

    def _rows(
        self, ids: Sequence[list[int]], progress: Progress, compute: Callable[[PaddedBatch], Tensor], width: int
    ) -> csr_array:
        """Do the work of `encode` with `compute`, which returns (B, width) float32 for a batch."""
        if self._device.type != "cpu" and self._process != os.getpid():
            raise RuntimeError(
                f"an encoder on {self._device} must be used in the process that loaded it, got a forked process, "
                "which cannot use the GPU. Load the encoder in each process, and start processes with 'spawn'."
            )
        rows: list[csr_array] = []
        positions: list[int] = []
        for batch, encoded in self._encoded(ids, compute):
            if self._trimmer is not None:
                self._trimmer.after_batch()
            rows.append(_finite(encoded, batch))
            positions += batch
            if progress is not None:
                progress(len(batch))
        empty = [position for position, text_ids in enumerate(ids) if not text_ids]
        if empty:
            rows.append(from_rows([(np.empty(0, np.int32), np.empty(0, np.float32))] * len(empty), width))
            positions += empty
            if progress is not None:
                progress(len(empty))
        joined, order = concatenate(rows, width), np.argsort(positions)
        return joined if (np.diff(order) > 0).all() else joined[order]  # indexing copies, even in the same order

    def _encoded(
        self, ids: Sequence[list[int]], compute: Callable[[PaddedBatch], Tensor]
    ) -> Iterator[tuple[list[int], csr_array]]:
        """Encode all texts that have tokens. Yield the positions of each batch's texts, and their rows."""
        if self.transfer is not None:
            return self._transferred(self.transfer, deque(self._batches(ids)), ids, compute)
        threads = usable_threads(self._num_threads) if self._device.type == "cpu" else None
        if threads and (divided := self._divided(ids, threads)):
            return run_apart(partial(self._encode_next, deque(divided), ids, compute), threads)
        batches = self._batches(ids)
        if threads and threads > 1 and self._runs_apart and len(batches) == 1:
            return self._lone(batches[0], ids, compute, threads)
        step = partial(self._encode_next, deque(batches), ids, compute, threads)
        # Several callers take turns for each batch. If they all computed at the same time, each with all threads, they
        # would take the cores from each other.
        return iter(partial(run_together, step) if threads and threads > 1 else step, None)

    def _lone(
        self, batch: list[int], ids: Sequence[list[int]], compute: Callable[[PaddedBatch], Tensor], threads: int
    ) -> Iterator[tuple[list[int], csr_array]]:
        """Encode the only batch of a request, with the number of threads that was fastest for such batches so far.

        Threads that compute together wait for each other after each product. A thread without a core would make the
        others wait for milliseconds each time. So the choice depends on the number of free cores. If a lone batch of
        another caller already keeps them busy, this batch waits for its end in `run_together`.
        """
        batches = deque([batch])
        free = threads if computes_together() else free_cores(threads)
        with self._thread_choice.threads(threads, free, len(batch) * len(ids[batch[0]])) as number:
            encode = partial(self._encode_next, batches, ids, compute, number)
            first = run_together(encode) if number > 1 else run_alone(encode, threads)
        if first is not None:
            yield first
        yield from iter(partial(self._encode_next, batches, ids, compute, threads), None)  # left over if memory ran out

    def _batches(self, ids: Sequence[list[int]]) -> list[list[int]]:
        """Return, for each batch, the positions of its texts in `ids`. Texts without any tokens are left out."""
        return self._budget().batches([len(text_ids) for text_ids in ids])

    def _divided(self, ids: Sequence[list[int]], threads: int) -> list[list[int]]:
        """Return batches for threads that compute separately, or [] if this would not keep all threads busy."""
        if threads == 1 or not self._runs_apart:
            return []
        return self._budget(at_once=threads).fair_batches([len(text_ids) for text_ids in ids], threads)

    def _budget(self, at_once: int = 1) -> BatchBudget:
        """Return the limits of a batch, if `at_once` batches are in memory at the same time."""
        fitting = max(1, _BLOCK_BYTES // (4 * self.dim * at_once))
        texts = min(fitting, self._max_batch_texts or fitting)
        return BatchBudget(
            self.max_batch_tokens,
            texts,
            equal_lengths=not self._ignores_padding,
            skips_padding=self._skips_padding,
        )

    def _encode_next(
        self,
        batches: deque[list[int]],
        ids: Sequence[list[int]],
        compute: Callable[[PaddedBatch], Tensor],
        threads: int | None = None,
    ) -> tuple[list[int], csr_array] | None:
        """Encode the next batch, and return the positions of its texts and their rows, or None if no batch is left.

        Several threads may call this method at the same time. `threads` is the number of threads that compute each
        matrix product.
        """

        def encode(batch: list[int]) -> csr_array:
            return from_dense(self._compute(batch, ids, compute, threads).cpu().numpy())

        while (batch := self._next(batches, ids)) is not None:
            rows = self._unless_out_of_memory(partial(encode, batch), batch, ids)
            if rows is not None:
                return batch, rows
            batches.appendleft(batch)
        return None

    def _next(self, batches: deque[list[int]], ids: Sequence[list[int]]) -> list[int] | None:
        """Take the next batch. If memory ran out before, a batch above the lowered limit is halved until it fits."""
        while True:
            try:
                batch = batches.popleft()
            except IndexError:  # no check beforehand could prevent this, because another thread can take the last batch
                return None
            # The first text of a batch is its longest. So this multiplication counts the batch's tokens with padding.
            if len(batch) == 1 or len(batch) * len(ids[batch[0]]) <= self.max_batch_tokens:
                return batch
            half = (len(batch) + 1) // 2
            batches.extendleft((batch[half:], batch[:half]))

    def _compute(
        self,
        batch: list[int],
        ids: Sequence[list[int]],
        compute: Callable[[PaddedBatch], Tensor],
        threads: int | None = None,
    ) -> Tensor:
        with exact_float32(self._device, threads):
            return compute(PaddedBatch.of([ids[position] for position in batch], self._device, self._padding_id))

    def _transferred(
        self,
        transfer: CudaTransfer,
        batches: deque[list[int]],
        ids: Sequence[list[int]],
        compute: Callable[[PaddedBatch], Tensor],
    ) -> Iterator[tuple[list[int], csr_array]]:
        """Do the work of `_encoded` on CUDA, and copy the rows of one batch while the next batch is computed."""

        def started() -> Iterator[tuple[list[int], Callable[[], csr_array]]]:
            while (batch := self._next(batches, ids)) is not None:
                start = partial(self._start, transfer, batch, ids, compute)
                finish = self._unless_out_of_memory(start, batch, ids)
                if finish is None:
                    batches.appendleft(batch)
                else:
                    yield batch, finish

        while batches:  # the loop runs again if memory ran out for the rows of the last batch
            for batch, finish in _one_behind(started()):
                rows = self._unless_out_of_memory(finish, batch, ids)
                del finish  # because `finish` keeps the batch's weights on the device
                if rows is None:
                    batches.appendleft(batch)
                else:
                    yield batch, rows

    def _start(
        self,
        transfer: CudaTransfer,
        batch: list[int],
        ids: Sequence[list[int]],
        compute: Callable[[PaddedBatch], Tensor],
    ) -> Callable[[], csr_array]:
        return transfer.start(self._compute(batch, ids, compute))

    def _unless_out_of_memory(self, work: Callable[[], _T], batch: list[int], ids: Sequence[list[int]]) -> _T | None:
        """Return the result of `work` on a batch. If memory runs out, make all later batches smaller, and return None.

        Raises:
            torch.OutOfMemoryError: Memory runs out for a batch of one text.
        """
        device, longest = self._device, len(ids[batch[0]])
        try:
            return work()
        except (RuntimeError, MemoryError) as err:
            if not is_out_of_memory(err):
                raise
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


def _default_batch_tokens(device: torch.device, hidden_size: int) -> int:
    """Return the largest number of tokens of a batch, if the user sets no limit."""
    tokens = max(256, _BATCH_CELLS[device.type] // hidden_size)
    return min(tokens, _CPU_BATCH_TOKENS) if device.type == "cpu" else tokens


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


def _finite(rows: csr_array, batch: list[int]) -> csr_array:
    """Return `rows`, or raise NotFiniteError if a weight is NaN or infinite. Row r belongs to the text `batch[r]`."""
    finite = np.isfinite(rows.data)
    if not finite.all():
        row = int(np.searchsorted(rows.indptr, finite.argmin(), side="right")) - 1
        raise NotFiniteError(batch[row])
    return rows
