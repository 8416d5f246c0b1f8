"""Which texts go through the model together. Knows lengths only: no texts, no tensors."""

from collections.abc import Iterator, Sequence

__all__ = ["token_budget_batches"]


def token_budget_batches(
    lengths: Sequence[int], *, max_batch_tokens: int, max_batch_texts: int, equal_lengths: bool = False
) -> Iterator[list[int]]:
    """Group texts of similar length so that a padded batch stays within a token budget.

    Sorting by length leaves almost no padding; the longest come first, so that memory peaks in the first batch and
    not an hour later.

    Args:
        lengths: Tokens of each text, special tokens included.
        max_batch_tokens: Most tokens of a batch, padding included: texts x longest. A longer text goes alone.
        max_batch_texts: Most texts of a batch.
        equal_lengths: Never put texts of different lengths together, so that there is no padding at all.
    Yields:
        Positions in `lengths`; every position exactly once.

    Example:
        >>> list(token_budget_batches([2, 9, 3, 2], max_batch_tokens=9, max_batch_texts=8))
        [[1], [2, 0, 3]]
    """
    batch: list[int] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda p: -lengths[p]):
        full = len(batch) >= max_batch_texts or (len(batch) + 1) * longest > max_batch_tokens
        if batch and (full or (equal_lengths and lengths[position] != longest)):
            yield batch
            batch = []
        if not batch:
            longest = lengths[position]
        batch.append(position)
    if batch:
        yield batch
