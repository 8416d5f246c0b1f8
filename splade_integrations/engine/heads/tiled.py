"""The SPLADE formula from logits to term weights, and the ways to compute it without storing all logits.

`splade_pool` is the formula in readable form. `MaxPoolHead` and `SumPoolHead` compute the same weights from hidden
states. They divide the vocabulary into parts, and compute the logits of one part after another. The logits of a part
are called a tile. `second_pass` is for heads that first find out which terms may have a positive weight. It computes
only the weights of these terms, which are called candidates.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from splade_integrations.engine.int8_gemm import QMAX_7BIT, multiply_int8, pack_int8

__all__ = [
    "FLOAT32",
    "MOST_CANDIDATES",
    "ROUNDINGS",
    "UNDERFLOW",
    "Decoder",
    "MaxPoolHead",
    "SumPoolHead",
    "activate",
    "max_logits",
    "norms",
    "repeat_first_token",
    "second_pass",
    "splade_pool",
    "sum_error",
]

# The number of logits in a tile. A tile takes 4 bytes per logit, and must stay in the cache until its maxima are taken.
# On a CPU, this is the number for each thread that computes, and the cache is that of one core. Larger tiles share
# another cache with all processes of the machine: with 2^21 logits, four processes on two cores encode at three
# quarters of the rate of one process. Larger tiles have two advantages: the matrix products read their inputs less
# often, and each kernel on a GPU runs long enough to hide the time of its launch.
TILE_CELLS = {"cpu": 2**18, "cuda": 2**23, "mps": 2**21}
# The same number for products with unsigned weights. Each such product first packs its weights, so there must be fewer
# products.
_UNSIGNED_TILE_CELLS = 2**19
# The largest number of tokens in a tile.
TILE_TOKENS = 2048
# If a batch has at most this number of tokens, the int8 product of its tokens and the decoder's weight is faster with
# the weight as the right factor than as the left factor.
_FEW_TOKENS = 64
# The least number of logits in a tile on a CPU for at most `_FEW_TOKENS` tokens. A query's products are so short that
# starting more of them would take longer than reading logits from a slower cache.
_FEW_TOKENS_TILE_CELLS = 2**21
# The unit roundoff of float32 (24 bits of significand).
FLOAT32 = 2.0**-24
# Heads with two passes compute upper bounds for logits. In addition to the roundings in a sum of H products, such a
# bound allows for this number of further roundings. The proof in `TwoPassHead` counts about ten further roundings, and
# the proof in `BFloat16Head` counts fewer.
ROUNDINGS = 64
# An amount that is added to these upper bounds to allow for numbers that underflow. These numbers are mostly the
# squares in a norm: the squares of numbers below 2^-63 are lost if the process flushes subnormal numbers to 0. If
# numbers below 2^-63 are multiplied by elements of up to 2^20, they add less than H 2^-41 to a sum of H products. With
# H <= 2^17, that is at most 2^-24, the added amount. It is far below any term weight that matters.
UNDERFLOW = 2.0**-24
# The largest share of terms that may be candidates. With more candidates, both passes together would take longer than
# the plain head, `MaxPoolHead`. So the plain head then computes the batch.
MOST_CANDIDATES = 1 / 16


class Decoder(NamedTuple):
    """The last linear layer of a masked LM's head, from hidden size H to vocabulary V.

    Args:
        weight: (V, H).
        bias: (V,) or None.
        centre: A vector close to most of the vectors that enter the layer, (H,) float32, or None for 0. A good centre
            makes some heads faster. It does not change the result.
    """

    weight: Tensor
    bias: Tensor | None = None
    centre: Tensor | None = None


def splade_pool(
    logits: Tensor, attention_mask: Tensor, pooling_strategy: str = "max", activation_function: str = "relu"
) -> Tensor:
    """Pool masked-LM logits into one weight per vocabulary term. This is the reference for all heads.

    weight[b, v] = max (or sum) over the real tokens t of log(1 + relu(logits[b, t, v])). Padding never contributes, so
    a text's embedding does not depend on its batch.

    Args:
        logits: The scores of the masked LM. (B, L, V).
        attention_mask: 1 for real tokens, 0 for padding. (B, L).
        pooling_strategy: "max" (SPLADE v2 and later) or "sum" (SPLADE v1).
        activation_function: "relu", or "log1p_relu" for log(1 + log(1 + relu(x))), as in OpenSearch v3.
    Returns:
        Term weights, 0 or more, on a natural log scale. (B, V) float32.
    Raises:
        ValueError: The mask's shape is not the (B, L) of the logits.
    Source:
        Formal et al., SPLADE v2, arXiv:2109.10086; v1, arXiv:2107.05720; log1p_relu, arXiv:2504.14839.

    Example:
        >>> logits = torch.tensor([[[0.0, 1.0], [2.0, -1.0], [9.0, 9.0]]])
        >>> splade_pool(logits, attention_mask=torch.tensor([[1, 1, 0]]))  # the third token is padding
        tensor([[1.0986, 0.6931]])
    """
    if logits.shape[:2] != attention_mask.shape:
        raise ValueError(
            f"attention_mask must have the shape {tuple(logits.shape[:2])}, the (texts, tokens) of the logits, "
            f"got {tuple(attention_mask.shape)}. Pass the mask that the model was given."
        )
    real = attention_mask.bool().unsqueeze(-1)  # (B, L, 1)
    weights = activate(logits.float().masked_fill(~real, float("-inf")), activation_function)  # (B, L, V)
    return weights.amax(dim=1) if pooling_strategy == "max" else weights.sum(dim=1)


def activate(logits: Tensor, activation_function: str) -> Tensor:
    """Return log(1 + relu(x)), or log(1 + log(1 + relu(x))) for "log1p_relu". Both are monotone, and 0 for x <= 0."""
    weights = torch.log1p(torch.relu(logits))
    return torch.log1p(weights) if activation_function == "log1p_relu" else weights


class MaxPoolHead:
    """Computes `splade_pool(hidden @ weight.T + bias, mask)` with max pooling, one tile of logits at a time.

    The bias and the activation are applied to the (B, V) maxima instead of to all logits. Both are monotone, so the
    result is the same.

    Args:
        decoder: The decoder. Its weight has the type of the hidden states, or another type that is converted tile by
            tile.
        activation_function: As in `splade_pool`.
    """

    pooling_strategy: ClassVar[str] = "max"

    def __init__(self, decoder: Decoder, activation_function: str = "relu") -> None:
        self._weight, self._bias, _ = decoder
        self._activation_function = activation_function

    @classmethod
    def suits(cls, weight: Tensor) -> bool:
        """Return True, because this head suits every decoder."""
        return True

    def __call__(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Pool one batch of hidden states, (B, L, H), with lengths, (B,). Returns (B, V) float32."""
        scores = max_logits(repeat_first_token(hidden, lengths), self._weight).T.float()  # (B, V)
        if self._bias is not None:
            scores = scores + self._bias.float()
        return activate(scores, self._activation_function)


class SumPoolHead:
    """Computes `splade_pool` with sum pooling. The bias and the activation are applied to each logit.

    The head pools the texts one by one and without their padding, so it needs no mask.

    Args:
        decoder: The decoder. Its weight has the type of the hidden states.
        activation_function: As in `splade_pool`.
    """

    pooling_strategy: ClassVar[str] = "sum"

    def __init__(self, decoder: Decoder, activation_function: str = "relu") -> None:
        self._weight, self._bias, _ = decoder
        self._activation_function = activation_function

    @classmethod
    def suits(cls, weight: Tensor) -> bool:
        """Return True, because this head suits every decoder."""
        return True

    def __call__(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Pool one batch of hidden states, (B, L, H), with lengths, (B,). Returns (B, V) float32."""
        vocabulary = self._weight.shape[0]
        pooled = torch.zeros((hidden.shape[0], vocabulary), dtype=torch.float32, device=hidden.device)
        for text, length in enumerate(lengths.tolist()):
            for first in range(0, length, TILE_TOKENS):
                tokens = hidden[text, first : min(first + TILE_TOKENS, length)]  # (l, H)
                rows = _tile_rows(tokens, self._weight.dtype)
                for start in range(0, vocabulary, rows):
                    tile = slice(start, start + rows)
                    pooled[text, tile] += self._summed(tokens, tile)
        return pooled

    def _summed(self, tokens: Tensor, tile: slice) -> Tensor:
        """Return the summed weights, (tile,), of the terms in one tile, for l tokens, (l, H)."""
        logits = linear(self._weight[tile], tokens).float()  # (tile, l)
        if self._bias is not None:
            logits += self._bias[tile].float().unsqueeze(1)
        return activate(logits, self._activation_function).sum(dim=1)


def repeat_first_token(hidden: Tensor, lengths: Tensor) -> Tensor:
    """Return `hidden`, (B, L, H), with padding replaced by each text's first token. Then a maximum needs no mask."""
    padding = torch.arange(hidden.shape[1], device=hidden.device) >= lengths.unsqueeze(1)  # (B, L)
    return torch.where(padding.unsqueeze(-1), hidden[:, :1], hidden)


def max_logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """Return each term's largest logit, without the bias, over each text's tokens.

    The logits are computed tile by tile, with a running maximum.

    Args:
        hidden: Token vectors, with padding already replaced by `repeat_first_token`. (B, L, H).
        weight: Decoder weight. (V, H), of hidden's type or of another type that is converted tile by tile. If hidden is
            int8, weight must be int8 as well, or the unsigned integers that `to_unsigned` makes.
    Returns:
        max over t of weight[v] · hidden[b, t]. (V, B), of hidden's type. For integers the type is int32, or float32 if
        weight is unsigned.
    """
    batch, longest, _ = hidden.shape
    vocabulary = weight.shape[0]
    if weight.dtype == torch.int8 and batch * longest <= _FEW_TOKENS:
        return torch._int_mm(hidden.flatten(0, 1), weight.T).view(batch, longest, vocabulary).amax(dim=1).T
    dtype = {torch.int8: torch.int32, torch.uint8: torch.float32}.get(weight.dtype, hidden.dtype)
    pooled = torch.empty((vocabulary, batch), dtype=dtype, device=hidden.device)
    for texts, tokens in _token_groups(batch, longest):
        group = hidden[texts, tokens]  # (b, l, H)
        b, length, _ = group.shape
        flat = group.reshape(b * length, -1)
        rows = min(_tile_rows(flat, weight.dtype), vocabulary)
        multiply = _product_with(flat, rows, weight.dtype)
        for start in range(0, vocabulary, rows):
            scores = multiply(weight[start : start + rows])  # (tile, b * l)
            running = pooled[start : start + rows, texts]
            if tokens.start == 0:
                torch.amax(scores.view(-1, b, length), dim=-1, out=running)
            else:
                torch.maximum(running, scores.view(-1, b, length).amax(dim=-1), out=running)
    return pooled


def _tile_rows(tokens: Tensor, weight_dtype: torch.dtype) -> int:
    """Return the number of terms in a tile of logits for these tokens, (n, H)."""
    cells = TILE_CELLS[tokens.device.type]
    if tokens.device.type == "cpu":
        cells = torch.get_num_threads() * (_UNSIGNED_TILE_CELLS if weight_dtype == torch.uint8 else cells)
        if len(tokens) <= _FEW_TOKENS:
            cells = max(cells, _FEW_TOKENS_TILE_CELLS)
    return max(256, cells // len(tokens))


def _product_with(tokens: Tensor, rows: int, weight_dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return a function that multiplies a tile of the weight, (at most `rows`, H), with tokens, (n, H).

    Each result of the function may overwrite the previous one.
    """
    if weight_dtype == torch.uint8:
        packed, ones = pack_int8(tokens), torch.ones(len(tokens), dtype=torch.float32, device=tokens.device)
        return lambda tile: multiply_int8(tile, QMAX_7BIT, packed, ones)
    product, dtype = (torch._int_mm, torch.int32) if tokens.dtype == torch.int8 else (torch.mm, tokens.dtype)
    logits = torch.empty((rows, len(tokens)), dtype=dtype, device=tokens.device)
    return lambda tile: product(tile.to(dtype=tokens.dtype), tokens.T, out=logits[: len(tile)])


def _token_groups(batch: int, longest: int) -> list[tuple[slice, slice]]:
    """Return pairs of slices (texts, tokens) that cover a batch, in groups of at most `TILE_TOKENS` tokens."""
    texts_a_group = max(1, TILE_TOKENS // longest)
    return [
        (slice(first, min(first + texts_a_group, batch)), slice(token, min(token + TILE_TOKENS, longest)))
        for first in range(0, batch, texts_a_group)
        for token in range(0, longest, TILE_TOKENS)
    ]


def second_pass(
    decoder: Decoder, activation_function: str, hidden: Tensor, lengths: Tensor, texts: Tensor, terms: Tensor
) -> Tensor:
    """Compute the term weights of candidates (pairs of a text and a term) in float32. All other weights are 0.

    Args:
        decoder: The decoder.
        activation_function: As in `splade_pool`.
        hidden: The hidden states that enter the decoder. (B, L, H) float32.
        lengths: The number of tokens of each text without padding. (B,).
        texts: The text of each candidate, in ascending order. (C,).
        terms: The term of each candidate. (C,).
    Returns:
        Term weights, 0 or more. (B, V) float32.
    """
    weight, bias, _ = decoder
    weights = torch.zeros((len(hidden), len(weight)), dtype=torch.float32, device=hidden.device)
    counts = texts.bincount(minlength=len(hidden)).tolist()
    for text, (length, found) in enumerate(zip(lengths.tolist(), torch.split(terms, counts), strict=True)):
        rows = weight.index_select(0, found).float()  # (c, H) of the text's c candidates. weight[found] is half as fast
        scores = linear(rows, hidden[text, :length]).amax(dim=1)  # (c, l) -> (c,)
        if bias is not None:
            scores = scores + bias[found].float()
        weights[text, found] = activate(scores, activation_function)
    return weights


def norms(vectors: Tensor) -> Tensor:
    """Return Euclidean norms along the last axis, rounded upward."""
    rounded: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return rounded * (1.0 + vectors.shape[-1] * 2.0**-22)


def sum_error(width: int) -> float:
    """Return g, the factor that bounds the error of a sum of products in float32.

    If a . b is a sum of `width` products, its error is at most g |a| |b|, in any order of summation.
    """
    summands = width + ROUNDINGS
    return summands * FLOAT32 / (1 - summands * FLOAT32)
