"""Which texts go through the model together. Knows lengths only: no texts, no tensors."""

from collections.abc import Iterator, Sequence

__all__ = ["token_budget_batches"]

# Few texts of many lengths are mostly padding in one batch. So one that holds this share of the budget, enough for
# products at full speed, takes no text that is shorter than this share of its longest.
_LEAST_FILLED = 1 / 8
_SIMILAR = 7 / 8


def token_budget_batches(
    lengths: Sequence[int], *, max_batch_tokens: int, max_batch_texts: int, equal_lengths: bool = False
) -> Iterator[list[int]]:
    """Group texts of similar length so that a padded batch stays within a token budget.

    Sorting by length, and a new batch where lengths have fallen by an eighth, leave almost no padding. The longest come
    first, so that memory peaks in the first batch and not an hour later.

    Args:
        lengths: Tokens of each text, special tokens included.
        max_batch_tokens: Most tokens of a batch, padding included: texts x longest. A longer text goes alone.
        max_batch_texts: Most texts of a batch.
        equal_lengths: Never put texts of different lengths together, so that there is no padding at all.
    Yields:
        Positions in `lengths`; every position exactly once.

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
