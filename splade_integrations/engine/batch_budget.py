"""Groups texts of similar length into batches of a limited number of tokens, and divides batches among threads.

This module sees only how many tokens each text has.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

__all__ = ["BatchBudget"]

# A batch of texts with very different lengths is mostly padding. So once a batch fills an eighth of its token budget
# (the largest number of tokens of a batch), it accepts only texts that have at least seven eighths of the length of its
# longest text. With an eighth of the budget, matrix products already run at full speed.
_LEAST_FILLED = 1 / 8
_SIMILAR = 7 / 8
# Texts are divided among threads only if each thread gets at least this many tokens, in batches of at least this many
# tokens. With fewer tokens, all threads together compute the texts faster (measured on 2 cores, with the tiny model and
# at BERT-base's size). If the token budget is smaller, it takes the place of these numbers.
_FEWEST_TOKENS_EACH = 128
_FEWEST_TOKENS = 64
# The largest allowed ratio of the busiest thread's tokens to the average over all threads. With a larger ratio, the
# other threads would run out of work too early. In that case, the batches are not divided among threads, and all
# threads compute each matrix product together.
_FAIR = 1.05
# How many ways of dividing the texts are tried. Each way makes smaller batches than the way before it.
_DIVISIONS = 8


@dataclass(frozen=True)
class BatchBudget:
    """The limits of a batch.

    Args:
        max_tokens: The largest number of tokens of a batch, padding included. A batch's tokens are counted as the
            number of its texts times the length of its longest text. A text with more tokens than this limit gets a
            separate batch.
        max_texts: The largest number of texts of a batch.
        equal_lengths: Whether all texts of a batch must have the same length, so that there is no padding.

    Example:
        >>> BatchBudget(max_tokens=40, max_texts=8).batches([8, 20, 7, 2])
        [[1], [0, 2], [3]]
    """

    max_tokens: int
    max_texts: int
    equal_lengths: bool = False

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group texts of similar length.

        Texts are sorted by length, the longest first. Once a batch fills an eighth of its budget, it accepts only texts
        that have at least seven eighths of the length of its longest text. So there is little padding. Memory use peaks
        in the first batch, which has the longest texts. So if memory runs out, it runs out at once and not after an
        hour.

        Args:
            lengths: The number of tokens of each text, special tokens included.
        Returns:
            For each batch, the positions of its texts in `lengths`. The positions of texts without any tokens are left
            out, and every other position occurs exactly once.
        """
        return list(self._batches(lengths, self.max_tokens))

    def fair_batches(self, lengths: Sequence[int], threads: int) -> list[list[int]]:
        """Group texts as `batches` does, but into batches that keep several threads equally busy.

        Each thread computes its own batches, separately from the other threads.

        Args:
            lengths: The number of tokens of each text, special tokens included.
            threads: The number of threads. Each thread takes the next batch when it has finished its previous batch.
        Returns:
            The batches. The result is empty if no fair division is found, or if a thread would get only a few tokens.

        Example:
            >>> BatchBudget(max_tokens=600, max_texts=8).fair_batches([400, 200, 200], threads=2)
            [[0], [1, 2]]
        """
        if len(lengths) < threads:
            return []
        share = sum(lengths) / threads
        if share < min(_FEWEST_TOKENS_EACH, self.max_tokens):
            return []
        fewest = max(1, ceil(share / self.max_tokens))
        for batches_each in range(fewest, fewest + _DIVISIONS):
            # The factor 1.1 leaves room for padding. Without it, a thread's last text would go into a further batch.
            budget = min(self.max_tokens, int(1.1 * share / batches_each))
            if budget < min(_FEWEST_TOKENS, self.max_tokens):
                break
            batches = list(self._batches(lengths, budget))
            loads = [0] * threads
            for batch in batches:
                heapq.heapreplace(loads, loads[0] + len(batch) * lengths[batch[0]])
            if max(loads) <= _FAIR * sum(loads) / threads:
                return batches
        return []

    def _batches(self, lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
        batch: list[int] = []
        longest = 0
        for position in sorted(filter(lengths.__getitem__, range(len(lengths))), key=lambda p: -lengths[p]):
            full = len(batch) >= self.max_texts or (len(batch) + 1) * longest > max_tokens
            filled = self.equal_lengths or len(batch) * longest >= _LEAST_FILLED * max_tokens
            shorter = lengths[position] < longest * (1 if self.equal_lengths else _SIMILAR)
            if batch and (full or (filled and shorter)):
                yield batch
                batch = []
            if not batch:
                longest = lengths[position]
            batch.append(position)
        if batch:
            yield batch
