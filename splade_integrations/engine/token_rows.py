"""Lays out the tokens of a padded batch as the rows of a matrix, without padding where that is faster.

All linear layers, norms and activations of a transformer treat each token alone. So they need no padding, and on a CPU
they can do without it. Only attention needs the tokens of each text in their places.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["TokenRows", "pad_rows", "rounded_up", "seen_tokens"]

# Padding is left out if it makes up at least this share of the batch. Leaving it out means that each layer moves the
# tokens to their places and back, which takes about as long as computing this share of them. The narrower a model is,
# the longer moving takes in comparison. (Measured with one thread at hidden sizes 128 and 768.)
_MUCH_PADDING = 1 / 16
_MUCH_PADDING_IF_NARROW = 1 / 6
_NARROW = 256


@dataclass(frozen=True)
class TokenRows:
    """The tokens of a batch of B texts, padded to L tokens, as the rows of a matrix.

    On a CPU, the matrix leaves out padding if there is much of it, and ends in a few rows of zeros (see `rounded_up`).

    Args:
        batch: The number of texts, B.
        length: The number of tokens of each text, padding included, L.
        rows: The number of rows, R.
        places: The positions of the rows' tokens in the flattened batch, without the rows at the end. (n,). None means
            that each token has a row, padding included.
        row_of: The row of each token of the flattened batch, (B · L,), or None as for `places`. Padding has the row of
            the token before it. Texts must be padded at the end, so this is a token of the same text.

    Example:
        >>> mask = torch.tensor([[True, True, False], [True, False, False]])
        >>> hidden = torch.arange(6.0).view(2, 3, 1).expand(2, 3, 64)
        >>> tokens = TokenRows.of(hidden, mask[:, None, None, :])
        >>> rows = tokens.taken_from(hidden)
        >>> rows[:, 0]
        tensor([0., 1., 3.])
        >>> tokens.put_back(rows)[:, :, 0]
        tensor([[0., 1., 1.],
                [3., 3., 3.]])
    """

    batch: int
    length: int
    rows: int
    places: Tensor | None = None
    row_of: Tensor | None = None

    @classmethod
    def of(cls, hidden: Tensor, mask: Tensor | None = None) -> "TokenRows":
        """Lay out a batch.

        Args:
            hidden: The hidden states before the first layer. (B, L, H).
            mask: The attention mask, as in `seen_tokens`. None means that there is no padding.
        """
        batch, length, width = hidden.shape
        cells = batch * length
        if hidden.device.type != "cpu":  # counting the real tokens would make the host wait for the GPU
            return cls(batch, length, cells)
        if mask is not None:
            flat = seen_tokens(mask).expand(batch, length).flatten()
            places = flat.nonzero().squeeze(1)
            if len(places) and cells - len(places) >= cells * (
                _MUCH_PADDING_IF_NARROW if width < _NARROW else _MUCH_PADDING
            ):
                row_of = (flat.cumsum(0) - 1).clamp_min_(0)
                return cls(batch, length, rounded_up(len(places)), places, row_of)
        return cls(batch, length, rounded_up(cells))

    def taken_from(self, texts: Tensor) -> Tensor:
        """Return the rows, (R, W), of the tokens of all texts, (B, L, W)."""
        flat = texts.flatten(0, 1)
        return pad_rows(flat if self.places is None else flat.index_select(0, self.places), self.rows)

    def put_back(self, rows: Tensor) -> Tensor:
        """Return the texts, (B, L, W), of rows, (R, W). Padding that has no row gets a copy of another row."""
        flat = rows[: self.batch * self.length] if self.row_of is None else rows.index_select(0, self.row_of)
        return flat.view(self.batch, self.length, -1)


def seen_tokens(mask: Tensor) -> Tensor:
    """Return which tokens an attention mask lets all tokens see.

    Args:
        mask: (B, 1, L, L) or (B, 1, 1, L), of bool or of numbers. Large negative numbers hide tokens. B may be 1, if
            the mask is the same for all texts.
    Returns:
        (B, L) bool.
    """
    rows = mask[:, 0, 0]
    return rows if rows.dtype == torch.bool else rows >= 0


def rounded_up(rows: int) -> int:
    """Round a number of rows up to one of a few fixed numbers. The result is at most a sixteenth above `rows`.

    oneDNN compiles a kernel for each number of rows, and keeps the kernel in memory. Compiling a kernel takes half a
    millisecond, and keeping it takes half a megabyte. Without rounding, batches of real texts would need hundreds of
    kernels.

    Example:
        >>> [rounded_up(rows) for rows in (25, 33, 1000, 6100)]
        [25, 34, 1024, 6144]
    """
    step = 1 << max(0, rows.bit_length() - 5)  # there are sixteen steps from each power of two to the next
    return -(-rows // step) * step


def pad_rows(tokens: Tensor, rows: int) -> Tensor:
    """Append zeros to `tokens`, (…, n, W), until it has `rows` rows. Return `tokens` itself if no rows are missing."""
    missing = rows - tokens.shape[-2]
    return pad(tokens, (0, 0, 0, missing)) if missing else tokens  # pad() copies even if there is nothing to add
