"""Which MTSamples notes serve for what where a language model of notes is measured: disjoint, copies kept together.

Three fifths of the notes are *public*: the embedded model begins with them. A fifth are the *patients* of private
training, a fifth the *reference*: nothing is trained on it. Many notes are near copies of others, and a copy in another
part would be a patient whom the reference knows; so notes that share many runs of words are one group, and a hash
deals out groups.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Final, Literal

__all__ = ["Part", "near_copies", "parts_of"]

Part = Literal["public", "patients", "reference"]

RUN: Final = 10
"""Words of a run that two notes may share."""

SHARED: Final = 0.2
"""Share of the shorter note's runs that makes two notes copies of one another."""

_PARTS: Final[tuple[Part, ...]] = ("reference", "patients", "public", "public", "public")


def parts_of(texts: Mapping[int, str]) -> dict[int, Part]:
    """The part of each note.

    Args:
        texts: of *all* notes by their numbers: a group is named by its smallest.
    """
    return {number: _part(group) for number, group in near_copies(texts).items()}


def near_copies(texts: Mapping[int, str]) -> dict[int, int]:
    """For each note the smallest number in its group of near copies, which is often its own."""
    runs = {number: _runs(text) for number, text in texts.items()}
    holders: defaultdict[int, list[int]] = defaultdict(list)
    for number in sorted(runs):
        for run in runs[number]:
            holders[run].append(number)
    shared: defaultdict[tuple[int, int], int] = defaultdict(int)
    for numbers in holders.values():
        # A phrase of the trade stands in many notes and makes no copy of any.
        for place, first in enumerate(numbers[:20]):
            for second in numbers[place + 1 : 20]:
                shared[first, second] += 1
    group = {number: number for number in texts}

    def head(number: int) -> int:
        while group[number] != number:
            group[number] = group[group[number]]
            number = group[number]
        return number

    for (first, second), count in shared.items():
        if count >= SHARED * min(len(runs[first]), len(runs[second])):
            low, high = sorted((head(first), head(second)))
            group[high] = low
    return {number: head(number) for number in texts}


def _runs(text: str) -> frozenset[int]:
    words = re.findall(r"[a-z]+", text.lower())
    return frozenset(hash(tuple(words[at : at + RUN])) for at in range(max(1, len(words) - RUN + 1)))


def _part(group: int) -> Part:
    return _PARTS[hashlib.sha256(f"notes-training:{group}".encode()).digest()[0] % len(_PARTS)]
