"""Whether a rewritten note may leave the rewriting: no identifier, no canary, no stretch of its source is in it.

The gate knows nothing of how the note was made. It reads the two texts and what the source's identifiers are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from synclave_shared.text.identifying import spaced
from synclave_shared.text.note_plan import LONGEST_OVERLAP, NOTE_WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synclave_shared.text.identifying import Identifying

__all__ = ["Leak", "LeakGate", "longest_overlap"]


class Leak(StrEnum):
    """Why a note is rejected."""

    IDENTIFIER = "identifier"
    OVERLAP = "overlap"
    CANARY = "canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakGate:
    """What no rewriting of a patient's notes may hold.

    Attributes:
        identifiers: of all of the patient's notes.
        canaries: strings that were put into notes to be found again.
    """

    identifiers: Identifying
    canaries: Sequence[str] = ()

    def check(
        self, source: str, kept: Sequence[tuple[int, int]], output: str, kept_there: Sequence[tuple[int, int]]
    ) -> Leak | None:
        """The first reason to reject, or None.

        Args:
            source: text of the note.
            kept: [start, end) of entities and headings in it, which may stay.
            output: the rewritten text.
            kept_there: where they stand in that.
        """
        plain = spaced(output)
        if any(spaced(canary) in plain for canary in self.canaries if canary.strip()):
            return Leak.CANARY
        if self.identifiers.surviving(output):
            return Leak.IDENTIFIER
        if longest_overlap(source, kept, output, kept_there) >= LONGEST_OVERLAP:
            return Leak.OVERLAP
        return None


def longest_overlap(
    source: str, kept: Sequence[tuple[int, int]], output: str, kept_there: Sequence[tuple[int, int]]
) -> int:
    """Words in a row that both texts share, where kept ones are left out of both; at most 64 are told apart."""
    one, other = _rest(source, kept), _rest(output, kept_there)
    best = 0
    for length in range(1, 65):
        runs = {tuple(one[at : at + length]) for at in range(len(one) - length + 1)}
        if not any(tuple(other[at : at + length]) in runs for at in range(len(other) - length + 1)):
            break
        best = length
    return best


def _rest(text: str, kept: Sequence[tuple[int, int]]) -> list[str]:
    words, place = [], 0
    spans = sorted(kept)
    for match in NOTE_WORDS.finditer(text):
        while place < len(spans) and spans[place][1] <= match.start():
            place += 1
        if place == len(spans) or match.end() <= spans[place][0]:
            words.append(match.group().casefold())
    return words
