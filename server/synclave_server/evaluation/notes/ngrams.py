"""A language model of counted words: how much a note's next word surprises whoever has read other notes."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from synclave_server.evaluation.notes.writings import words_of

__all__ = ["CountedWords"]

ORDER: Final = 3
"""Words of a run: two before, and the next one."""


class CountedWords:
    """Runs of up to three words, interpolated after Witten and Bell (1991).

    Args:
        texts: what it has read.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._runs: list[Counter[tuple[str, ...]]] = [Counter() for _ in range(ORDER)]
        for text in texts:
            words = [""] * (ORDER - 1) + words_of(text)
            for at in range(ORDER - 1, len(words)):
                for length in range(ORDER):
                    self._runs[length][tuple(words[at - length : at + 1])] += 1
        self._times: defaultdict[tuple[str, ...], int] = defaultdict(int)
        self._kinds: defaultdict[tuple[str, ...], int] = defaultdict(int)
        for counts in self._runs:
            for run, count in counts.items():
                self._times[run[:-1]] += count
                self._kinds[run[:-1]] += 1
        # One more for all words that nobody has read.
        self._vocabulary = len(self._runs[0]) + 1

    def nats(self, texts: Sequence[str]) -> float:
        """Mean nats per word; NaN without a word."""
        total, count = 0.0, 0
        for text in texts:
            words = [""] * (ORDER - 1) + words_of(text)
            for at in range(ORDER - 1, len(words)):
                total -= math.log(self._probability(tuple(words[at - ORDER + 1 : at + 1])))
                count += 1
        return total / count if count else math.nan

    def _probability(self, run: tuple[str, ...]) -> float:
        found = 1 / self._vocabulary
        for length in range(ORDER):
            part = run[ORDER - 1 - length :]
            times, kinds = self._times.get(part[:-1], 0), self._kinds.get(part[:-1], 0)
            if times:
                found = (self._runs[length][part] + kinds * found) / (times + kinds)
        return found
