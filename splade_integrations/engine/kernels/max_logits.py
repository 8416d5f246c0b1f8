"""The Triton kernel of `heads/triton.py`, which finds each term's largest logit over a text's tokens.

The logits are never written to memory. This is how the work is divided, and why:

- A tile holds the logits of BLOCK_V terms for BLOCK_T tokens. It is computed in registers as a sum of products. Each
  product multiplies a slice of the decoder's weight with a slice of the hidden states, and the slices advance along the
  hidden size. When the sum is complete, only the maximum over each text's tokens is stored.
- Each row of a tile belongs to a term, and each column to a token. If a tensor core's result is spread over warps by
  rows, as on Hopper, the maximum of a row involves only four threads. It needs neither shared memory nor a barrier.
- Texts differ in length, and a tile with one short text would be mostly empty. So a tile holds BLOCK_T / SPAN texts,
  with SPAN tokens of each. SPAN is a power of two, and `tokens_per_tile` picks the one that needs the fewest tiles. A
  text that is longer than SPAN is divided into spans of SPAN tokens, and each span gets its own maximum. Afterwards the
  largest of a text's maxima is taken. If texts have several spans, SPAN is at least 32, and the batch is computed part
  by part to save memory.
- Loads need no mask at the end of a text or of the vocabulary. Positions beyond the end of a text read its last token,
  which does not change its maximum. Positions beyond the end of the vocabulary read its last term, and their results
  are not stored. Loads use a mask only if the hidden size is not a multiple of BLOCK_K.
- The kernel is persistent: it is launched with as many programs as the GPU has multiprocessors, and each program
  computes tile after tile in one flattened loop. So the first slices of a tile load while the previous tile is being
  finished, which saves a tenth of the time on an H100.
- The order of tiles decides what the L2 cache holds. The decoder's weight is divided into blocks of BLOCK_V terms. A
  group of TOGETHER blocks (1 to 2 MB) is multiplied with all texts before the next group is read. So the weight is read
  from memory once, and hidden states come from the L2 cache.
- Each result is written by one program that sums in a fixed order, so a text gets the same results, to the last bit, in
  any batch.
"""

from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from splade_integrations.forks import ForkSafeLock

__all__ = ["max_logits_ragged"]

# Whether Triton's interpreter runs the kernel (TRITON_INTERPRET=1). The interpreter is faster with small blocks.
_INTERPRETED = bool(triton.knobs.runtime.interpret)
# The smallest SPAN for a text that needs several spans. Each span has its own maximum. With shorter spans, there would
# be too many maxima.
LEAST_SPAN_OF_SEVERAL = 32
# The largest number of bytes that the maxima of spans take in memory at a time, if texts have several spans.
MAXIMA_BYTES = 64 * 2**20
# The interpreter replaces Triton's functions while it runs a kernel, so launches of two threads must not overlap.
_interpreter_lock: Any = ForkSafeLock() if _INTERPRETED else nullcontext()


class _Blocks(NamedTuple):
    """The sizes of a kernel's tiles and slices, its number of warps, and the number of slices that load at a time."""

    terms: int
    tokens: int
    width: int
    warps: int
    stages: int

    def bytes(self, item_size: int) -> int:
        """Return the number of bytes of shared memory that the slices take, if each number takes `item_size` bytes."""
        return self.stages * (self.terms + self.tokens) * self.width * item_size


# The largest blocks come first, because kernels with larger blocks read less memory. The first entry that fits the GPU
# is used. In 16 bits, the first entry fits an H100 and an A100. The measurements were made on an H100. The other
# entries fit GPUs with 99 KiB of shared memory.
BLOCKS = (_Blocks(128, 256, 64, 8, 3), _Blocks(128, 128, 64, 8, 3), _Blocks(128, 128, 32, 8, 2))
INTERPRETER_BLOCKS = _Blocks(32, 32, 32, 1, 1)


@triton.jit
def _larger(one, other):
    # A plain maximum would hide a NaN. The encoder's check for finite weights needs to see it.
    return tl.maximum(one, other, propagate_nan=tl.PropagateNan.ALL)


# Without these settings, Triton would compile the kernel again if `batch` or `longest` is 1 or a multiple of 16, and if
# `lengths` is not aligned.
@triton.jit(do_not_specialize=["batch", "longest"], do_not_specialize_on_alignment=["lengths"])
def max_logits_kernel(
    hidden,
    lengths,
    weight,
    maxima,
    batch,
    longest,
    width,
    vocabulary,
    SPAN: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TOGETHER: tl.constexpr,
    PROGRAMS: tl.constexpr,
    WHOLE_BLOCKS: tl.constexpr,
):
    TEXTS: tl.constexpr = BLOCK_T // SPAN
    spans = tl.cdiv(longest, SPAN)
    groups = tl.cdiv(batch, TEXTS) * spans
    tiles = tl.cdiv(vocabulary, BLOCK_V)
    column = tl.arange(0, BLOCK_T)
    inner = tl.arange(0, BLOCK_K)
    for tile in tl.range(tl.program_id(0), tiles * groups, PROGRAMS, flatten=True):
        first_tile = tile // (TOGETHER * groups) * TOGETHER
        together = tl.minimum(tiles - first_tile, TOGETHER)
        place = tile % (TOGETHER * groups)
        first_text = place // together // spans * TEXTS
        span = place // together % spans

        terms = (first_tile + place % together) * BLOCK_V + tl.arange(0, BLOCK_V)
        text = tl.minimum(first_text + column // SPAN, batch - 1)
        token = tl.minimum(span * SPAN + column % SPAN, tl.load(lengths + text) - 1)
        row = tl.minimum(terms, vocabulary - 1).to(tl.int64) * width
        position = (text.to(tl.int64) * longest + token) * width
        weight_block = weight + row[:, None] + inner[None, :]
        token_block = hidden + position[None, :] + inner[:, None]
        logits = tl.zeros((BLOCK_V, BLOCK_T), tl.float32)
        for done in range(0, width, BLOCK_K):
            if WHOLE_BLOCKS:
                w = tl.load(weight_block + done)
                h = tl.load(token_block + done)
            else:
                w = tl.load(weight_block + done, mask=(inner < width - done)[None, :], other=0.0)
                h = tl.load(token_block + done, mask=(inner < width - done)[:, None], other=0.0)
            logits = tl.dot(w, h, logits, input_precision="ieee")
        of_texts = tl.reduce(tl.reshape(logits, (BLOCK_V, TEXTS, SPAN)), 2, _larger)
        texts = first_text + tl.arange(0, TEXTS)
        inside = (terms < vocabulary)[:, None] & (texts < batch)[None, :]
        result = (texts.to(tl.int64) * spans + span) * vocabulary
        tl.store(maxima + result[None, :] + terms[:, None], of_texts, mask=inside)


def max_logits_ragged(hidden: Tensor, lengths: Tensor, weight: Tensor) -> Tensor:
    """Return each term's largest product with a text's tokens.

    Args:
        hidden: Token vectors, padded at the end. (B, L, H) of float16, bfloat16 or float32.
        lengths: The number of tokens of each text, at least 1. (B,) int32.
        weight: Decoder weight. (V, H), of hidden's type.
    Returns:
        max over t < lengths[b] of weight[v] · hidden[b, t], summed in float32. (B, V) float32.
    """
    (batch, longest, _), vocabulary = hidden.shape, weight.shape[0]
    if _INTERPRETED and hidden.dtype == torch.bfloat16:  # the interpreter computes with numpy, which has no bfloat16
        hidden, weight = hidden.float(), weight.float()
    hidden, weight = hidden.contiguous(), weight.contiguous()
    maxima = torch.empty((batch, vocabulary), dtype=torch.float32, device=hidden.device)
    blocks, _ = _cut(hidden.device, hidden.element_size())
    span = tokens_per_tile(batch, longest, blocks.tokens)
    spans = triton.cdiv(longest, span)
    if spans == 1:
        _launch(hidden, lengths, weight, maxima.unsqueeze(1), span)
        return maxima
    texts = max(1, MAXIMA_BYTES // (4 * spans * vocabulary))
    for first in range(0, batch, texts):
        some = slice(first, min(first + texts, batch))
        of_spans = maxima.new_empty((some.stop - first, spans, vocabulary))
        _launch(hidden[some], lengths[some], weight, of_spans, span)
        torch.amax(of_spans, dim=1, out=maxima[some])
    return maxima


def _launch(hidden: Tensor, lengths: Tensor, weight: Tensor, maxima: Tensor, span: int) -> None:
    """Run the kernel, which fills `maxima`, (B, spans, V)."""
    batch, longest, width = hidden.shape
    _, spans, vocabulary = maxima.shape
    blocks, programs = _cut(hidden.device, hidden.element_size())
    tiles = triton.cdiv(vocabulary, blocks.terms) * triton.cdiv(batch, blocks.tokens // span) * spans
    with _interpreter_lock, torch.cuda.device_of(hidden):  # Triton launches on the current device
        max_logits_kernel[(min(programs, tiles),)](
            hidden,
            lengths,
            weight,
            maxima,
            batch,
            longest,
            width,
            vocabulary,
            SPAN=span,
            BLOCK_V=blocks.terms,
            BLOCK_T=blocks.tokens,
            BLOCK_K=blocks.width,
            TOGETHER=8,
            PROGRAMS=programs,
            WHOLE_BLOCKS=width % blocks.width == 0,
            num_warps=blocks.warps,
            num_stages=blocks.stages,
        )


@cache
def _cut(device: torch.device, item_size: int) -> tuple[_Blocks, int]:
    """Return the blocks that suit a device and an item size in bytes, and the number of programs to run."""
    if _INTERPRETED:
        return INTERPRETER_BLOCKS, 3
    found = triton.runtime.driver.active.utils.get_device_properties(device.index)
    fitting = (blocks for blocks in BLOCKS if blocks.bytes(item_size) <= found["max_shared_mem"])
    return next(fitting, BLOCKS[-1]), found["multiprocessor_count"]


def tokens_per_tile(batch: int, longest: int, tokens: int) -> int:
    """Return the SPAN (the number of tokens per text in a tile) that needs the fewest tiles.

    If several numbers need equally few tiles, the largest of them is returned.
    """
    spans = [tokens >> halvings for halvings in range(6)]
    fitting = [span for span in spans if span >= min(longest, LEAST_SPAN_OF_SEVERAL)]
    return min(fitting, key=lambda span: triton.cdiv(batch, tokens // span) * triton.cdiv(longest, span))
