"""Do synthetic notes hold pieces of training notes? Runs of words, linkage, identifiers.

Whatever is sought among training notes is sought among as many held-out notes too: there it is chance.
Legend: N notes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation.notes.writings import words_of
from synclave_shared.text.note_plan import LONGEST_OVERLAP

__all__ = ["COPIED_WORDS", "LONGEST_RUN", "link_threshold", "longest_runs", "with_strings"]

LONGEST_RUN: Final = 64
"""Longest run that is told apart from a longer one: a note that shares it is a copy."""

COPIED_WORDS: Final = 2 * LONGEST_OVERLAP
"""Words in a row that are no phrase of the trade any more."""

FALSE_LINKS: Final = 0.01
"""Share of held-out notes to which the linkage attack wrongly gives a training note as source."""

_BASE: Final = np.uint64(0x9E3779B97F4A7C15)


def longest_runs(texts: Sequence[str], among: Sequence[str]) -> NDArray[np.int64]:
    """Words of the longest run that each text shares with any text of ``among``, at most :data:`LONGEST_RUN`; [N].

    Runs are compared by 64-bit hashes of their words in small letters.
    """
    numbers: dict[str, int] = {}
    rows, others = (
        [np.array([numbers.setdefault(word, len(numbers) + 1) for word in words_of(text)], np.uint64) for text in part]
        for part in (texts, among)
    )
    found = np.zeros(len(texts), dtype=np.int64)
    alive = list(range(len(texts)))
    mine, theirs = [np.zeros_like(row) for row in rows], [np.zeros_like(row) for row in others]
    for length in range(1, LONGEST_RUN + 1):
        theirs = [_longer(hashes, row, length) for hashes, row in zip(theirs, others, strict=True)]
        known = np.unique(np.concatenate([*theirs, np.zeros(0, np.uint64)]))
        still = []
        for row in alive:
            mine[row] = _longer(mine[row], rows[row], length)
            if len(mine[row]) and len(known) and _any_known(mine[row], known):
                found[row] = length
                still.append(row)
        alive = still
        if not alive:
            break
    return found


def _any_known(hashes: NDArray[np.uint64], known: NDArray[np.uint64]) -> bool:
    """Whether one of them is in ``known``, which is sorted."""
    places = np.searchsorted(known, hashes).clip(max=len(known) - 1)
    return bool((known[places] == hashes).any())


def _longer(hashes: NDArray[np.uint64], words: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """Hashes of all runs of ``length`` words, from those of runs a word shorter."""
    count = max(0, len(words) - length + 1)
    with np.errstate(over="ignore"):
        found: NDArray[np.uint64] = (hashes[:count] + words[length - 1 : length - 1 + count]) * _BASE
        return found ^ (found >> np.uint64(29))


def link_threshold(distances: NDArray[np.float32]) -> float:
    """Distance below which an attacker calls the nearest note the source, wrongly so in :data:`FALSE_LINKS` of cases.

    Args:
        distances: of held-out notes, who have no source there, to their nearest training note [N], at least one.
    """
    return float(np.quantile(distances, FALSE_LINKS))


def with_strings(texts: Sequence[str], strings: Iterable[str]) -> NDArray[np.bool_]:
    """Which texts hold one of the strings as whole words in a row, whatever case and punctuation; bool [N]."""
    runs = {tuple(words) for string in strings if (words := words_of(string))}
    lengths = sorted({len(run) for run in runs})
    found = np.zeros(len(texts), dtype=bool)
    for place, text in enumerate(texts):
        words = words_of(text)
        found[place] = any(
            tuple(words[at : at + length]) in runs for length in lengths for at in range(len(words) - length + 1)
        )
    return found
