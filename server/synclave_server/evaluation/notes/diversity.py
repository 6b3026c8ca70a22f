"""How varied texts are: among one another (self-BLEU), and in their runs of words (distinct-n).

Both hang on how much text there is: compare sets of as many texts of like length.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from synclave_shared.text.note_plan import NOTE_WORDS

__all__ = ["distinct_n", "self_bleu"]

LONGEST_RUN: Final = 4
"""Words of the longest runs that BLEU compares."""


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU of each text against all others, in [0, 1]: 1 says that all are alike; NaN below two texts.

    BLEU-4 (Papineni et al. 2002) over words without case; runs of two words and more are counted with one more of
    each, so that a short text without a common run of four is not 0 (Lin and Och 2004). Self-BLEU: Zhu et al. 2018.
    """
    if len(texts) < 2:
        return math.nan
    words = [_words(text) for text in texts]
    lengths = sorted(map(len, words))
    scores = [0.0] * len(texts)
    for length in range(1, LONGEST_RUN + 1):
        counts = [Counter(_runs(own, length)) for own in words]
        # Of every run how often it stands in the text that has it most often, in the next one, and which the first is.
        most: defaultdict[tuple[str, ...], tuple[int, int, int]] = defaultdict(lambda: (0, 0, -1))
        for place, own in enumerate(counts):
            for run, count in own.items():
                first, second, holder = most[run]
                most[run] = (count, first, place) if count > first else (first, max(second, count), holder)
        for place, own in enumerate(counts):
            shared = sum(
                min(count, second if holder == place else first)
                for run, count in own.items()
                for first, second, holder in (most[run],)
            )
            more = int(length > 1)
            total = sum(own.values()) + more
            scores[place] += math.log((shared + more) / total) if shared + more and total else -math.inf
    return sum(
        math.exp(score / LONGEST_RUN) * _brevity(len(own), lengths) for score, own in zip(scores, words, strict=True)
    ) / len(texts)


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Different runs of ``n`` words over all runs of all texts, in (0, 1] (Li et al. 2016); NaN if there is none."""
    runs = [run for text in texts for run in _runs(_words(text), n)]
    return len(set(runs)) / len(runs) if runs else math.nan


def _words(text: str) -> list[str]:
    return [found.group().casefold() for found in NOTE_WORDS.finditer(text)]


def _runs(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(length)), strict=False)


def _brevity(own: int, lengths: Sequence[int]) -> float:
    """BLEU's penalty of a text that is shorter than the other one that is nearest in length."""
    others = list(lengths)
    others.remove(own)
    nearest = min(others, key=lambda length: (abs(length - own), length))
    return 1.0 if own >= nearest else math.exp(1 - nearest / own) if own else 0.0
