"""What a rewriting of one real note keeps, and what it masks: decided before any word is written.

Identifiers are masked, all of them, before any fill; so is every further place of their words. Kept are clinical
entities and numbers (or a share of them), section headings, words of negation and laterality, punctuation, numbers that
count a list, and the layout to the letter. Of the other words a share is masked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from synclave_shared.text.entities import headings
from synclave_shared.text.polarity import POLARITY
from synclave_shared.text.view import folded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from synclave_shared.text.entities import Entity
    from synclave_shared.text.identifying import Identifying
    from synclave_shared.text.replacements.draws import KeyedDraws
    from synclave_shared.text.spans import Span

__all__ = ["LONGEST_OVERLAP", "NOTE_WORDS", "NotePlan", "Role", "Word", "plan_note"]

LONGEST_OVERLAP: Final = 8
"""Words in a row, kept ones not counted, that a rewritten note may not share with its source."""

NOTE_WORDS: Final = re.compile(r"[^\W\d_]+|\d+")
"""Runs of letters, and runs of digits: what is kept or masked as a whole."""

LONGEST_NUMBER: Final = 4
"""Digits of a value or a dose; more are masked like a word, should the detector have missed an identifier."""

_COUNTS: Final = re.compile(r"(?m)^[ \t]*(\d{1,3})[.)]")


class Role(IntEnum):
    """What becomes of a word."""

    KEPT = 0
    """Entity, number, heading, negation, side: stays."""
    FREE = 1
    """Stays, and counts as copied."""
    MASKED = 2
    """Written anew; may come out as it was."""
    CHANGED = 3
    """Written anew, and another word than it was."""
    IDENTIFIER = 4
    """Replaced by a surrogate."""


@dataclass(slots=True)
class Word:
    """A word of the source: [start, end) of its text, and its role."""

    start: int
    end: int
    role: Role
    medical: bool = False
    """Part of a clinical mention: what is written in its place may be one, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotePlan:
    """A note before anything is written.

    Attributes:
        text: the source.
        spans: its identifiers, disjoint and in order.
        words: all of its words, in order.
        entities: how many clinical mentions there are, and how many of them are kept.
    """

    text: str
    spans: Sequence[Span]
    words: Sequence[Word]
    entities: tuple[int, int]


def plan_note(
    text: str,
    spans: Sequence[Span],
    entities: Sequence[Entity],
    draws: KeyedDraws,
    *,
    identifying: Identifying,
    ratio: float,
    keep_entities: float,
    attempt: str,
) -> NotePlan:
    """Decide what becomes of each word.

    Args:
        text: the source.
        spans: its identifiers.
        entities: its clinical mentions.
        draws: the patient's.
        identifying: the identifiers of all of the patient's notes.
        ratio: share of the words that are neither kept nor identifiers, which are masked.
        keep_entities: share of the clinical mentions, and of the other numbers, that are kept, each everywhere or
            nowhere.
        attempt: names the random numbers of this try.
    """
    words = [Word(match.start(), match.end(), Role.FREE) for match in NOTE_WORDS.finditer(text)]
    share = {one: draws.share("entity", folded(" ".join(text[one.start : one.end].split()))) for one in entities}
    kept = [one for one in entities if share[one] < keep_entities]
    lost = [(one.start, one.end) for one in entities if share[one] >= keep_entities]
    for word in _mark(words, lost, Role.CHANGED):
        word.medical = True
    _mark(words, [(one.start, one.end) for one in kept], Role.KEPT)
    _mark(words, [*headings(text), *(found.span(1) for found in _COUNTS.finditer(text))], Role.KEPT)
    for word in words:
        surface = text[word.start : word.end]
        if surface.casefold() in POLARITY:
            word.role = Role.KEPT
        elif word.role is Role.FREE and _is_value(text, word):
            # A number that changes is a wrong value: nobody sees that it was written by a model.
            word.role = Role.KEPT if draws.share("number", surface) < keep_entities else Role.CHANGED
    stream = draws.generator("words", attempt)
    for word, number in zip(words, stream.random(len(words)).tolist(), strict=True):
        if word.role is Role.FREE and number < ratio:
            word.role = Role.MASKED
    _mark(words, identifying.places(text), Role.CHANGED)
    _mark(words, [(one.start, one.end) for one in spans], Role.IDENTIFIER)
    _break_runs(words)
    return NotePlan(
        text=text,
        spans=spans,
        words=words,
        entities=(len(entities), len(kept)),
    )


def _is_value(text: str, word: Word) -> bool:
    """Digits, but not so many that they may be somebody's number; and letters that touch digits, as in T2N0M0."""
    if text[word.start].isdecimal():
        return word.end - word.start <= LONGEST_NUMBER
    return text[word.start - 1 : word.start].isdecimal() or text[word.end : word.end + 1].isdecimal()


def _mark(words: Sequence[Word], spans: Iterable[tuple[int, int]], role: Role) -> list[Word]:
    """Give every word that shares a letter with a span its role; returns them."""
    place = 0
    marked = []
    for start, end in sorted(spans):
        while place < len(words) and words[place].end <= start:
            place += 1
        at = place
        while at < len(words) and words[at].start < end:
            words[at].role = role
            marked.append(words[at])
            at += 1
    return marked


def _break_runs(words: Sequence[Word]) -> None:
    """Of every eight words that are not kept at least one becomes another one: the longest of a run, it says most."""
    run: list[Word] = []
    for word in words:
        if word.role is Role.KEPT:
            continue
        if word.role in (Role.CHANGED, Role.IDENTIFIER):
            run = []
            continue
        run.append(word)
        if len(run) == LONGEST_OVERLAP - 1:
            # Not only the last one: what follows the longest counts for the next run.
            longest = max(range(len(run)), key=lambda place: (run[place].end - run[place].start, place))
            run[longest].role = Role.CHANGED
            run = run[longest + 1 :]
