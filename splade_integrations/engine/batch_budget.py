"""Groups texts of similar length into batches of a limited number of tokens, and divides batches among threads.

This module sees only how many tokens each text has.
"""

import heapq
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil

__all__ = ["BatchBudget"]

# A batch of texts with very different lengths is mostly padding. So once a batch fills an eighth of its token budget
# (the largest number of tokens of a batch), it accepts only texts whose length is at least this share of the length of
# its longest text. With an eighth of the budget, matrix products already run at full speed.
_LEAST_FILLED = 1 / 8
_SIMILAR = 7 / 8
# The same share for a model whose layers skip padding. Attention and the head still compute padding, so the share is
# not 0. But smaller batches with less padding take longer, even with the tiny model, whose head takes most of the time.
_SIMILAR_IF_SKIPPED = 1 / 2
# Texts are divided among threads only if each thread gets at least this many tokens, in batches of at least this many
# tokens. With fewer tokens, all threads together compute the texts faster (measured on 2 cores, with the tiny model and
# at BERT-base's size). If the token budget is smaller, it takes the place of these numbers.
_FEWEST_TOKENS_EACH = 96
_FEWEST_TOKENS = 64
# The largest allowed ratio of the busiest thread's tokens to the average over all threads. With a larger ratio, the
# other threads would run out of work too early. In that case, the batches are not divided among threads, and all
# threads compute each matrix product together.
_FAIR = 1.05
# How many numbers of batches per thread are tried, upwards from the smallest possible one.
_DIVISIONS = 8
# If each thread gets at least this number of batches, batches of equal cost are not searched for.
_MANY_BATCHES = 8


@dataclass(frozen=True)
class BatchBudget:
    """The limits of a batch.

    Args:
        max_tokens: The largest number of tokens of a batch, padding included. A batch's tokens are counted as the
            number of its texts times the length of its longest text. A text with more tokens than this limit gets a
            separate batch.
        max_texts: The largest number of texts of a batch.
        equal_lengths: Whether all texts of a batch must have the same length, so that there is no padding.
        skips_padding: Whether the model's layers skip padding. Then a batch may have more of it.

    Example:
        >>> BatchBudget(max_tokens=40, max_texts=8).batches([8, 20, 7, 2])
        [[1], [0, 2], [3]]
    """

    max_tokens: int
    max_texts: int
    equal_lengths: bool = False
    skips_padding: bool = False

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group texts of similar length.

        Texts are sorted by length, the longest first. Once a batch fills an eighth of its budget, it accepts only texts
        of similar length. So there is little padding, unless the model skips it. Memory use peaks in the first batch,
        which has the longest texts. So if memory runs out, it runs out at once and not after an hour.

        Args:
            lengths: The number of tokens of each text, special tokens included.
        Returns:
            For each batch, the positions of its texts in `lengths`. The positions of texts without any tokens are left
            out, and every other position occurs exactly once.
        """
        order = _longest_first(lengths)
        return _divided(order, self._sizes([lengths[position] for position in order], self.max_tokens))

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
        share = sum(lengths) / threads
        if len(lengths) < threads or share < min(_FEWEST_TOKENS_EACH, self.max_tokens):
            return []
        order = _longest_first(lengths)
        ordered = [lengths[position] for position in order]
        for sizes in self._divisions(ordered, share, threads):
            loads = [0] * threads
            for batch in _divided(ordered, sizes):
                heapq.heapreplace(loads, loads[0] + self._cost(sum(batch), len(batch) * batch[0]))
            if max(loads) <= _FAIR * sum(loads) / threads:
                return _divided(order, sizes)
        return []

    def _divisions(self, lengths: Sequence[int], share: float, threads: int) -> Iterator[list[int]]:
        """Yield the sizes of batches for several ways of dividing the texts among threads, the fewest batches first.

        Args:
            lengths: The number of tokens of each text, in descending order.
            share: The number of tokens for each thread.
            threads: The number of threads.
        """
        fewest = max(1, ceil(share / self.max_tokens))
        for batches_each in range(fewest, fewest + _DIVISIONS):
            # The factor 1.1 leaves room for padding. Without it, a thread's last text would go into a further batch.
            budget = min(self.max_tokens, int(1.1 * share / batches_each))
            if batches_each > fewest and budget < min(_FEWEST_TOKENS, self.max_tokens):
                return
            if batches_each < _MANY_BATCHES:
                yield from self._equal_sizes(lengths, batches_each * threads)
            yield self._sizes(lengths, budget)

    def _equal_sizes(self, lengths: Sequence[int], number: int) -> Iterator[list[int]]:
        """Yield the sizes of at most `number` batches of about equal cost, if the texts can be divided in this way."""
        least = ceil(sum(lengths) / number)
        budgets = range(least, min(self.max_tokens, least * 5 // 4) + 1)
        best = bisect_left(budgets, True, key=lambda budget: len(self._sizes(lengths, budget)) <= number)
        if best < len(budgets):
            yield self._sizes(lengths, budgets[best])

    def _sizes(self, lengths: Sequence[int], budget: int) -> list[int]:
        """Return the number of texts of each batch.

        Args:
            lengths: The number of tokens of each text, in descending order.
            budget: The largest cost of a batch, unless a single text costs more.
        """
        sizes: list[int] = []
        size = longest = tokens = 0
        for length in lengths:
            cells = (size + 1) * longest
            full = cells > self.max_tokens or size >= self.max_texts or self._cost(tokens + length, cells) > budget
            if size and (full or self._too_short(length, longest, size * longest, budget)):
                sizes.append(size)
                size = tokens = 0
            if not size:
                longest = length
            size += 1
            tokens += length
        return [*sizes, size] if size else sizes

    def _cost(self, tokens: int, cells: int) -> int:
        """Return the cost of a batch that has `cells` tokens with padding, and `tokens` tokens without padding.

        The padding that the head computes is left out on purpose. If it were counted, texts would be divided into
        smaller batches, which take longer.
        """
        return tokens if self.skips_padding else cells

    def _too_short(self, length: int, longest: int, cells: int, budget: int) -> bool:
        """Return whether a text is too short for a batch of `cells` tokens, whose longest text is `longest`."""
        if self.equal_lengths:
            return length < longest
        similar = _SIMILAR_IF_SKIPPED if self.skips_padding else _SIMILAR
        return cells >= _LEAST_FILLED * budget and length < longest * similar


def _longest_first(lengths: Sequence[int]) -> list[int]:
    """Return the positions of all texts that have tokens, the longest text first."""
    return sorted(filter(lengths.__getitem__, range(len(lengths))), key=lambda position: -lengths[position])


def _divided(items: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Divide items into consecutive parts of these sizes."""
    remaining = iter(items)
    return [list(islice(remaining, size)) for size in sizes]
