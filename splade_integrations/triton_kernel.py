"""The Triton kernel of `triton_head.py`. Imports Triton at its top, so import it only where a kernel is to run.

Knows tensors only. How the work is cut, and why:

- A program computes a tile of logits, BLOCK_V terms by BLOCK_T tokens, in registers, as the product of two slices that
  advance along the hidden size. When the product is complete it takes the maximum over each text's tokens, keeps the
  larger of that and the maximum so far, and goes to the texts' next tokens. What reaches memory is (B, V).
- Terms lie along the rows of the tile and tokens along its columns. A tensor core's result is spread over warps by
  rows, so a maximum over columns stays within four threads: no shared memory, no barrier.
- Texts are ragged, and a tile of one short text would be mostly empty. So a tile holds BLOCK_T / span texts, `span`
  tokens of each at a time; `_span` picks the power of two that needs the fewest tiles.
- There is no mask. Positions beyond a text's end are read from its last token, positions beyond the vocabulary's end
  from its last term: a repetition changes no maximum. Only a hidden size that BLOCK_K does not divide is masked.
- Programs run in the order of their number, so the numbering decides what the second-level cache holds. Some
  TOGETHER tiles of the vocabulary (2 to 3 MB) pass over all texts before the next ones are read: the decoder's weight
  comes from memory once, the hidden states from cache.
- One program writes each result, and sums in a fixed order: the same input gives the same bits, while the block sizes
  are the same. Triton times them once a machine and hidden size, and keeps what it found on disk.

A batch of 32 texts of 128 tokens makes 3 840 equal tiles at V = 30 522: 29.1 rounds of an H100's 132 processors, so
3 % are lost to the last one. Ragged batches come sorted by length (batching.py), so the texts of a tile end together.
"""

import threading
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["max_logits_ragged"]

# In Triton's interpreter (TRITON_INTERPRET=1) there is nothing to time, and small blocks are all the sooner done.
_INTERPRETED = bool(triton.knobs.runtime.interpret)
_BLOCK_T = 16 if _INTERPRETED else 128
# Triton's autotuner keeps a call's arguments in itself, so that calls of two threads must not overlap.
_launch_lock = threading.Lock()


def _config(terms: int, width: int, warps: int, stages: int) -> Any:
    blocks = {"BLOCK_V": terms, "BLOCK_T": _BLOCK_T, "BLOCK_K": width, "TOGETHER": 8}
    return triton.Config(blocks, num_warps=warps, num_stages=stages)


# The first two fill an H100's or A100's shared memory, the next suit smaller ones; those that do not fit are passed
# over. The last are for float32, which has no tensor core that computes it exactly.
_CONFIGS = (
    [_config(32, 32, 1, 1)]
    if _INTERPRETED
    else [
        _config(256, 64, 8, 4),
        _config(256, 64, 8, 3),
        _config(128, 64, 4, 4),
        _config(128, 64, 8, 3),
        _config(128, 32, 4, 4),
        _config(64, 32, 8, 3),
        _config(64, 16, 8, 2),
    ]
)


@triton.jit
def _larger(one, other):
    # A NaN must reach the encoder's check, which a plain maximum would hide.
    return tl.maximum(one, other, propagate_nan=tl.PropagateNan.ALL)


@triton.autotune(configs=_CONFIGS, key=["width"], cache_results=not _INTERPRETED)
@triton.heuristics({"WHOLE_BLOCKS": lambda arguments: arguments["width"] % arguments["BLOCK_K"] == 0})
@triton.jit(do_not_specialize=["batch"])  # else compiled again for batches of 1, and of multiples of 16
def _max_logits(
    tokens,
    starts,
    lengths,
    weight,
    maxima,
    batch,
    width,
    vocabulary,
    token_stride,
    weight_stride,
    SPAN: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TOGETHER: tl.constexpr,
    WHOLE_BLOCKS: tl.constexpr,
):
    TEXTS: tl.constexpr = BLOCK_T // SPAN
    groups = tl.cdiv(batch, TEXTS)
    tiles = tl.cdiv(vocabulary, BLOCK_V)
    program = tl.program_id(0)
    first_tile = program // (TOGETHER * groups) * TOGETHER
    together = tl.minimum(tiles - first_tile, TOGETHER)
    place = program % (TOGETHER * groups)
    first_text = place // together * TEXTS

    terms = (first_tile + place % together) * BLOCK_V + tl.arange(0, BLOCK_V)
    texts = first_text + tl.arange(0, TEXTS)
    longest = tl.max(tl.load(lengths + tl.minimum(texts, batch - 1)), axis=0)
    column = tl.arange(0, BLOCK_T)
    text_of_column = tl.minimum(first_text + column // SPAN, batch - 1)
    start = tl.load(starts + text_of_column)
    last = tl.load(lengths + text_of_column) - 1
    inner = tl.arange(0, BLOCK_K)
    row = tl.minimum(terms, vocabulary - 1).to(tl.int64) * weight_stride

    running = tl.full((BLOCK_V, TEXTS), float("-inf"), tl.float32)
    for token in range(0, longest, SPAN):
        position = (start + tl.minimum(token + column % SPAN, last)).to(tl.int64) * token_stride
        weight_block = weight + row[:, None] + inner[None, :]
        token_block = tokens + position[None, :] + inner[:, None]
        logits = tl.zeros((BLOCK_V, BLOCK_T), tl.float32)
        for done in range(0, width, BLOCK_K):
            if WHOLE_BLOCKS:
                w = tl.load(weight_block)
                h = tl.load(token_block)
            else:
                w = tl.load(weight_block, mask=(inner < width - done)[None, :], other=0.0)
                h = tl.load(token_block, mask=(inner < width - done)[:, None], other=0.0)
            logits = tl.dot(w, h, logits, input_precision="ieee")
            weight_block += BLOCK_K
            token_block += BLOCK_K
        logits_of_texts = tl.reshape(logits, (BLOCK_V, TEXTS, SPAN))
        running = _larger(running, tl.reduce(logits_of_texts, 2, _larger))
    inside = (terms < vocabulary)[:, None] & (texts < batch)[None, :]
    tl.store(maxima + texts[None, :].to(tl.int64) * vocabulary + terms[:, None], running, mask=inside)


def max_logits_ragged(tokens: Tensor, starts: Tensor, lengths: Tensor, weight: Tensor, *, longest: int) -> Tensor:
    """Each term's largest product with a text's tokens.

    Args:
        tokens: Token vectors of all texts, one after another, with or without padding between them. (T, H) of float16,
            bfloat16 or float32.
        starts: Where each text begins in `tokens`. (B,) int32.
        lengths: Tokens of each text, at least 1. (B,) int32.
        weight: Decoder weight. (V, H), of tokens' type.
        longest: The largest length, or more.
    Returns:
        max over t of weight[v] · tokens[starts[b] + t], summed in float32. (B, V) float32.
    """
    batch, (vocabulary, width) = len(starts), weight.shape
    if _INTERPRETED and tokens.dtype == torch.bfloat16:  # numpy, which the interpreter computes with, has no such type
        tokens, weight = tokens.float(), weight.float()
    tokens = tokens if tokens.stride(1) == 1 else tokens.contiguous()
    weight = weight if weight.stride(1) == 1 else weight.contiguous()
    maxima = torch.empty((batch, vocabulary), dtype=torch.float32, device=tokens.device)
    span = _span(batch, longest, [_BLOCK_T >> halvings for halvings in range(4)])
    groups = triton.cdiv(batch, _BLOCK_T // span)
    with _launch_lock, torch.cuda.device_of(tokens):  # Triton launches on the current device
        _max_logits[lambda blocks: (triton.cdiv(vocabulary, blocks["BLOCK_V"]) * groups,)](
            tokens,
            starts,
            lengths,
            weight,
            maxima,
            batch,
            width,
            vocabulary,
            tokens.stride(0),
            weight.stride(0),
            SPAN=span,
        )
    return maxima


def _span(batch: int, longest: int, spans: Sequence[int]) -> int:
    """Tokens of a text that a tile takes at a time: what needs the fewest tiles; the longest one of equals."""
    return min(spans, key=lambda span: triton.cdiv(batch, max(spans) // span) * triton.cdiv(longest, span))
