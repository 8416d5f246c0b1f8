"""One side of a model, documents or queries, ready to encode: what is asked of it, and the one that is a transformer.

Knows loaded models, batches and heads; nothing of prompts, pruning, windows of texts or adapters.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import linear

from splade_integrations.encoding.tokenizer import TextTokenizer, TokenIds
from splade_integrations.engine.batching import token_budget_batches
from splade_integrations.engine.heads.tiled import activate, splade_pool, sum_pool_head
from splade_integrations.engine.heads.triton import PoolingHead, fastest_max_pool_head
from splade_integrations.engine.heads.two_pass import TwoPassHead
from splade_integrations.engine.int8_gemm import int8_products_pay
from splade_integrations.engine.load import LoadedMaskedLM
from splade_integrations.engine.memory import HeapTrimmer
from splade_integrations.engine.precision import exact_float32
from splade_integrations.engine.transfer import SparseExtraction
from splade_integrations.models.spec import MaskedLM
from splade_integrations.sparse import concatenate, from_rows

__all__ = ["EncodingSide", "Progress", "TransformerSide"]

logger = logging.getLogger(__name__)

# Tokens x hidden size of a batch: on a CPU activations that stay in its caches (1 024 tokens of BERT-base), on a GPU
# enough work to fill it.
_BATCH_CELLS = {"cpu": 3 * 2**18, "cuda": 24 * 2**20, "mps": 3 * 2**20}
# Most bytes of one (B, V) block of weights, and of the logits of a head that has to write them.
_BLOCK_BYTES = 64 * 2**20
_LOGITS_BYTES = 256 * 2**20

_T = TypeVar("_T")
Progress = Callable[[int], object]  # told how many more texts are done


class EncodingSide(Protocol):
    """What the encoder asks of a side."""

    dim: int
    max_length: int
    tokenizer: Any
    tokenize: TextTokenizer

    def encode(self, token_ids: TokenIds, progress: Progress) -> csr_array:
        """Term weights of the windows, in their order. (W, dim)."""
        ...

    def locate(self, ids: list[int], terms: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Which token of a text gives each of these terms the most of its weight, and which share of it. (K,) each."""
        ...


class TransformerSide:
    """A masked LM with SPLADE pooling.

    Args:
        description: How its logits are pooled.
        loaded: The model.
        max_length: Most tokens of a text.
        max_batch_tokens: Most tokens of a batch, padding included, or None for what suits device and model.
        max_batch_texts: Most texts of a batch, or None.
    """

    def __init__(
        self,
        description: MaskedLM,
        loaded: LoadedMaskedLM,
        *,
        max_length: int,
        max_batch_tokens: int | None,
        max_batch_texts: int | None,
    ) -> None:
        self.dim = loaded.dim
        self.max_length = max_length
        self.tokenizer = loaded.tokenizer
        self.tokenize = TextTokenizer(loaded.tokenizer, max_length, lower_case=description.lower_case)
        self._description = description
        self._loaded = loaded
        self._max_batch_texts = max(1, min(max_batch_texts or _BLOCK_BYTES, _BLOCK_BYTES // (4 * self.dim)))
        self._max_batch_tokens = max_batch_tokens or _batch_tokens(loaded)
        self._two_pass: TwoPassHead | None = None
        self._head: PoolingHead = sum_pool_head
        if loaded.weight is not None and _two_pass_suits(description, loaded.weight):
            with exact_float32(loaded.weight.device):
                usual = loaded.usual_hidden_state()
                self._two_pass = TwoPassHead(loaded.weight, loaded.bias, description.activation_function, usual)
        if loaded.weight is None:
            self._max_batch_tokens = max(1, min(self._max_batch_tokens, _LOGITS_BYTES // (4 * self.dim)))
        elif description.pooling_strategy == "max":
            self._head = fastest_max_pool_head(loaded.weight)
        self._extraction = SparseExtraction(loaded.model.device)
        self._trimmer = HeapTrimmer() if loaded.model.device.type == "cpu" else None

    def encode(self, token_ids: TokenIds, progress: Progress) -> csr_array:
        """Encode by batches of similar length, and put the rows back in order. (N, dim).

        Raises:
            ValueError: Weights are not finite.
            torch.OutOfMemoryError: One text alone does not fit the device.
        """
        ids = token_ids.ids
        rows: list[csr_array] = []
        positions: list[int] = []
        batches = deque(self._batches(ids))
        while batches:  # also when the last batch's rows did not fit the device
            for batch, extracted in _one_behind(self._started(batches, ids)):
                found = self._unless_out_of_memory(extracted, batch, ids)
                del extracted  # it keeps the batch's weights on the device
                if found is None:
                    batches.appendleft(batch)
                    continue
                if not np.isfinite(found.data).all():
                    raise ValueError(
                        "term weights must be finite, got NaN or infinity. Use dtype='float32', or 'bfloat16', whose "
                        "range is as wide, where float16 may be too narrow; with backend='openvino' try 'torch'."
                    )
                rows.append(found)
                positions += batch
                if self._trimmer is not None:
                    self._trimmer.after_batch()
                progress(len(batch))
        empty = [position for position, text_ids in enumerate(ids) if not text_ids]
        if empty:
            rows.append(from_rows([(np.empty(0, np.int32), np.empty(0, np.float32))] * len(empty), self.dim))
            positions += empty
            progress(len(empty))
        return concatenate(rows, self.dim)[np.argsort(positions)]

    def _batches(self, ids: list[list[int]]) -> Iterator[list[int]]:
        """Positions in `ids` of each batch, without texts of no tokens: a tokenizer may add no special ones."""
        present = [position for position, text_ids in enumerate(ids) if text_ids]
        for batch in token_budget_batches(
            [len(ids[position]) for position in present],
            max_batch_tokens=self._max_batch_tokens,
            max_batch_texts=self._max_batch_texts,
            equal_lengths=not self._loaded.ignores_padding,
        ):
            yield [present[place] for place in batch]

    def _started(
        self, batches: deque[list[int]], ids: list[list[int]]
    ) -> Iterator[tuple[list[int], Callable[[], csr_array]]]:
        """Take the batches, start each, and give a function that waits for its rows.

        A batch that does not fit the device's memory is halved until it does, and so is every later one.
        """
        while batches:
            batch = batches.popleft()
            if len(batch) > 1 and len(batch) * len(ids[batch[0]]) > self._max_batch_tokens:  # the first is the longest
                half = (len(batch) + 1) // 2
                batches.extendleft((batch[half:], batch[:half]))
                continue

            def start(batch: list[int] = batch) -> Callable[[], csr_array]:
                return self._extraction.start(self._term_weights([ids[position] for position in batch]))

            started = self._unless_out_of_memory(start, batch, ids)
            if started is None:
                batches.appendleft(batch)
            else:
                yield batch, started

    def _unless_out_of_memory(self, work: Callable[[], _T], batch: list[int], ids: list[list[int]]) -> _T | None:
        """What `work` makes of a batch. None where the device's memory is too small: batches are smaller from then on.

        Raises:
            torch.OutOfMemoryError: The batch is one text.
        """
        device, longest = self._loaded.model.device, len(ids[batch[0]])
        try:
            return work()
        except torch.OutOfMemoryError as err:
            if len(batch) == 1:
                raise torch.OutOfMemoryError(
                    f"a text must fit the memory of {device}, got one of {longest} tokens that does not, in a batch of "
                    "its own, so a smaller max_batch_tokens cannot help. Use a smaller max_length, a 16-bit dtype, or "
                    "free memory on the device."
                ) from err
        self._max_batch_tokens = min(self._max_batch_tokens, (len(batch) + 1) // 2 * longest)
        logger.warning(
            "Out of memory on %s with a batch of %d tokens: batches have at most %d from now on. To save the "
            "failed attempt, set max_batch_tokens.",
            device, len(batch) * longest, self._max_batch_tokens,
        )  # fmt: skip
        return None

    def locate(self, ids: list[int], terms: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The token with each term's largest logit. Under max pooling its share is 1. (K,) each."""
        loaded, device = self._loaded, self._loaded.model.device
        input_ids, rows = torch.tensor([ids], device=device), torch.as_tensor(terms, dtype=torch.long, device=device)
        with torch.inference_mode(), exact_float32(device):
            output = loaded.model(
                input_ids=input_ids, attention_mask=torch.ones_like(input_ids), return_dict=True
            ).logits[0]
            if loaded.weight is None:
                logits = output[:, rows].float()  # (L, K)
            else:
                bias = None if loaded.bias is None else loaded.bias[rows]
                logits = linear(output, loaded.weight[rows], bias).float()  # (L, K)
            tokens = logits.argmax(dim=0)
            shares = torch.ones(len(rows), device=device)
            if self._description.pooling_strategy == "sum":
                parts = activate(logits, self._description.activation_function)
                shares = parts.amax(dim=0) / parts.sum(dim=0).clamp_min(torch.finfo(parts.dtype).tiny)
        return tokens.cpu().numpy(), shares.cpu().numpy()

    def _term_weights(self, ids: list[list[int]]) -> Tensor:
        """Run one batch through the model. (B, V) float32."""
        device = self._loaded.model.device
        longest = max(map(len, ids))
        padded = np.full((len(ids), longest), self.tokenizer.pad_token_id or 0)
        for row, text_ids in zip(padded, ids, strict=True):
            row[: len(text_ids)] = text_ids
        input_ids = _sent_to(device, padded)
        lengths = _sent_to(device, np.array([len(text_ids) for text_ids in ids]))
        attention_mask = (torch.arange(longest, device=device) < lengths.unsqueeze(1)).long()  # (B, L)
        loaded = self._loaded
        pooling, activation = self._description.pooling_strategy, self._description.activation_function
        with exact_float32(device):
            output = loaded.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).logits
            if loaded.weight is None:
                return splade_pool(output, attention_mask, pooling, activation)
            if self._two_pass is not None:
                return self._two_pass(output, lengths)
            return self._head(output, lengths, loaded.weight, loaded.bias, activation)


def _sent_to(device: torch.device, numbers: NDArray[np.int64]) -> Tensor:
    """Numbers on their way to a device; to CUDA from page-locked memory, so that the host need not wait."""
    tensor = torch.from_numpy(numbers)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _one_behind(items: Iterator[_T]) -> Iterator[_T]:
    """Each item when the next one has been started: on a GPU it is then copied while the next one is computed."""
    started = deque(islice(items, 1))
    for item in items:
        started.append(item)
        yield started.popleft()
    yield from started


def _batch_tokens(loaded: LoadedMaskedLM) -> int:
    hidden = 768 if loaded.weight is None else loaded.weight.shape[1]
    return max(256, _BATCH_CELLS[loaded.model.device.type] // hidden)


def _two_pass_suits(description: MaskedLM, weight: Tensor) -> bool:
    return description.pooling_strategy == "max" and int8_products_pay(weight.device)
