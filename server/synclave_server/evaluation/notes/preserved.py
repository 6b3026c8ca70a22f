"""What of a note's medicine is in another text: its mentions, and whether they are still denied or affirmed.

Negation and side are read by cues near a finding (Chapman et al. 2001): this is a reading of words that is wrong now
and then, the same way in both texts. What it is asked is whether the texts differ.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synclave_shared.text.note_plan import NOTE_WORDS

if TYPE_CHECKING:
    from synclave_shared.text.entities import Entity

__all__ = ["Flips", "Preserved", "entity_preservation", "flips"]

_BEFORE: Final = 6
_AFTER: Final = 4
"""Words before and behind a finding in which a cue counts, in the same clause."""

# Of its own, and longer than the list that rewriting guards by: a measure that shared it would find nothing.
_DENIALS: Final = """
no not nor non none never nothing neither without absent absence denies denied deny denying denial declines declined
refuses refused negative negatives neg negated lacks lacking lack rules ruled unlikely doubt doubtful excluded
exclude excludes excluding cannot isn aren wasn weren doesn don didn hasn haven hadn couldn wouldn won unable fails
failed free resolved resolves resolving cleared clears gone disappeared disappears ceased subsided stopped
discontinued discontinue hardly barely rather instead avoid avoided avoids prevent prevented nobody void devoid
abnormal abnormalities unremarkable
"""
_DENYING: Final = frozenset(_DENIALS.split())
_SIDES: Final = {
    word: side
    for side, words in {
        "left": "left lt leftward sinister",
        "right": "right rt rightward",
        "both": "bilateral bilaterally both",
        "upper": "upper superior",
        "lower": "lower inferior",
        "inner": "medial medially",
        "outer": "lateral laterally",
        "front": "anterior anteriorly",
        "back": "posterior posteriorly",
        "near": "proximal proximally",
        "far": "distal distally",
    }.items()
    for word in words.split()
}

_CLAUSE_END: Final = re.compile(r"[.;!?](?=\s|$)|\n|\bbut\b|\bhowever\b", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preserved:
    """Mentions that two sets of texts share.

    Attributes:
        source: mentions in the sources.
        output: mentions in the outputs.
        shared: in both, each as often as in the one that has it less often.
    """

    source: int
    output: int
    shared: int

    @property
    def recall(self) -> float:
        """Share of the sources' mentions that are in the outputs."""
        return self.shared / self.source if self.source else math.nan

    @property
    def precision(self) -> float:
        """Share of the outputs' mentions that are in their sources."""
        return self.shared / self.output if self.output else math.nan

    @property
    def f1(self) -> float:
        """Their harmonic mean."""
        both = self.source + self.output
        return 2 * self.shared / both if both else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Flips:
    """Findings that stand in both texts, and those of which the texts say another thing.

    Attributes:
        findings: in both texts.
        negation: denied in one and affirmed in the other.
        side: on other sides.
        either: with at least one of the two.
    """

    findings: int
    negation: int
    side: int
    either: int


def entity_preservation(
    sources: Sequence[tuple[str, Sequence[tuple[int, int]]]], outputs: Sequence[tuple[str, Sequence[tuple[int, int]]]]
) -> Preserved:
    """Which mentions of each source are in its output, by their words in any case.

    Args:
        sources: texts, and [start, end) of their mentions: gold ones, or those of an ``EntityFinder``.
        outputs: of each source its output, with mentions found the same way.
    """
    source = output = shared = 0
    for one, other in zip(sources, outputs, strict=True):
        before, after = (Counter(_surface(text, span) for span in spans) for text, spans in (one, other))
        source += before.total()
        output += after.total()
        shared += (before & after).total()
    return Preserved(source=source, output=output, shared=shared)


def flips(source: str, findings: Sequence[Entity], output: str, there: Sequence[Entity]) -> Flips:
    """Findings of a source that its output turns into their opposite, or moves to another side.

    Args:
        source: a text.
        findings: its mentions, in order.
        output: what was made of it.
        there: mentions of that. The first of the same words is taken for the first one of the source, and so on: order
            is kept by a rewriting.
    """
    waiting: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for one in there:
        waiting[_surface(output, (one.start, one.end))].append((one.start, one.end))
    before, after = _Words(source), _Words(output)
    found = negation = side = either = 0
    for one in findings:
        same = waiting[_surface(source, (one.start, one.end))]
        if not same:
            continue
        place = same.pop(0)
        denied, sides = before.reading(one.start, one.end)
        denied_there, sides_there = after.reading(*place)
        found += 1
        negation += denied != denied_there
        side += sides != sides_there
        either += denied != denied_there or sides != sides_there
    return Flips(findings=found, negation=negation, side=side, either=either)


class _Words:
    """The words of a text, clause by clause."""

    def __init__(self, text: str) -> None:
        ends = [match.start() for match in _CLAUSE_END.finditer(text)]
        self._words: list[tuple[int, int, str, int]] = []
        clause = 0
        for match in NOTE_WORDS.finditer(text):
            while clause < len(ends) and ends[clause] < match.start():
                clause += 1
            self._words.append((*match.span(), match.group().casefold(), clause))

    def reading(self, start: int, end: int) -> tuple[bool, frozenset[str]]:
        """Whether what stands at [start, end) is denied, and on which sides it is."""
        near = list(self._near(start, end))
        inside = [word for first, last, word, _ in self._words if first < end and start < last]
        sides = frozenset(_SIDES[word] for word in [*near, *inside] if word in _SIDES)
        # Two deny one another: "has not resolved".
        return sum(word in _DENYING for word in near) % 2 == 1, sides

    def _near(self, start: int, end: int) -> Iterator[str]:
        inside = [place for place, (first, last, _, _) in enumerate(self._words) if first < end and start < last]
        if not inside:
            return
        first, last = inside[0], inside[-1]
        for place in [*range(max(0, first - _BEFORE), first), *range(last + 1, last + 1 + _AFTER)]:
            if place < len(self._words) and self._words[place][3] == self._words[first][3]:
                yield self._words[place][2]


def _surface(text: str, span: tuple[int, int]) -> str:
    return " ".join(text[span[0] : span[1]].casefold().split())
