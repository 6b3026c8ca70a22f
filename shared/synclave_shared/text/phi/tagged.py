"""What the tagger found, without what it takes along: labels, degrees, words of the language, medicine.

It reads by the surroundings, and errs at the ends of names and where medicine looks like a name. All here is about its
spans alone: what a pattern, a list or the patient's record says stands as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from synclave_shared.text.phi.words import split_words
from synclave_shared.text.spans import PhiClass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synclave_shared.text.phi.locale import Locale
    from synclave_shared.text.phi.words import Lexicon, Word
    from synclave_shared.text.spans import Span

__all__ = ["bared", "has_case", "medicine"]

_SURE_AT_START: Final = 0.8
"""Confidence from which the tagger alone makes a name of a word that begins a sentence and is in no list."""


def medicine(span: Span, text: str, locale: Locale, lexicon: Lexicon) -> bool:
    """Whether what the tagger takes for a name is medicine: one word known as a drug or eponym, or ``Osler's nodes``.

    Cues find those of them that are names.
    """
    if span.phi not in (PhiClass.NAME, PhiClass.PLACE):
        return False
    words = split_words(text[span.start : span.end])
    if words and all(word.key in locale.not_names for word in words):
        return True
    # Osler's nodes, Wisconsin Card Sorting Test: a head behind the name, directly or behind further capitals.
    for place, word in enumerate(split_words(text[span.end : span.end + 48])[:4]):
        if (
            word.gap.strip("'- ")
            or "\n" in word.gap
            or (place and not word.capital and word.key not in locale.eponym_heads)
        ):
            break
        if word.key in locale.eponym_heads:
            return not any(lexicon.given_name(word) for word in words)
    return len(words) == 1 and words[0].key in lexicon.eponyms


def has_case(words: Sequence[Word]) -> bool:
    """Whether small letters tell anything: some words of the text have capitals and others have not."""
    capitals = sum(word.capital for word in words)
    return len(words) / 20 < capitals < len(words) / 2


def _labels(word: Word, locale: Locale) -> bool:
    return not word.shouted or word.key in locale.not_names


def _old(span: Span, text: str) -> bool:
    """Whether a number can be an age over 89, and is no part of another number."""
    surface = text[span.start : span.end].strip()
    return (
        surface.isdigit()
        and 89 < int(surface) < 125
        and text[max(0, span.start - 1) : span.start] not in (".", ",", "/")
    )


def bared(span: Span, text: str, locale: Locale, lexicon: Lexicon, *, cased: bool) -> Iterator[Span]:
    """What the tagger found without the words of the language at its ends: it takes ``Tel`` and ``pharmacy`` along."""
    parts = split_words(text[span.start : span.end])
    if span.phi is PhiClass.DATE and span.kind == "date" and not parts and span.length < 5 and not _old(span, text):
        # A score, a page, an hour: no date by itself.
        return
    if span.kind == "street" and not parts and span.length < 5 and not _old(span, text):
        return
    if span.kind == "age" and not parts and not _old(span, text):
        return
    if cased and _small(span, text, parts, lexicon):
        return
    if span.phi is PhiClass.NAME and len(parts) == 1 and span.confidence < _SURE_AT_START:
        # "Historically, ..." begins a sentence as a name would.
        before = text[max(0, span.start - 3) : span.start]
        if not lexicon.name(parts[0]) and (before.endswith((". ", ".  ", "\n")) or not before):
            return
    if (
        cased
        and span.phi is PhiClass.NAME
        and all(
            word.shouted and len(word.text) < 5 and not lexicon.name(word) and word.text not in locale.states
            for word in parts
        )
    ):
        # ICA, EMDR: an abbreviation. Initials have patterns of their own.
        return
    if span.phi in (PhiClass.PHONE, PhiClass.OTHER):
        # Labels before numbers; letters that are part of one have a digit or a hyphen beside them.
        while len(parts) and parts[0].start == 0 and len(parts[0].text) > 1 and _labels(parts[0], locale):
            behind = text[span.start + parts[0].end : span.end]
            rest = len(behind) - len(behind.lstrip(" .:#\n\t"))
            if not rest or not any(letter.isdigit() for letter in behind):
                break
            span = replace(span, start=span.start + parts[0].end + rest)
            parts = split_words(text[span.start : span.end])
        yield span
        return
    if span.phi not in (PhiClass.NAME, PhiClass.PLACE):
        yield span
        return
    name = span.phi is PhiClass.NAME

    def idle(word: Word) -> bool:
        if word.key in locale.particles:
            return False
        if name and (word.key in locale.titles or word.key in locale.credentials or word.key in locale.roles):
            return not (word.capital and lexicon.name(word)) or word.shouted
        if len(word.text) > 1 and word.key in locale.not_names and not lexicon.name(word):
            return True
        if word.capital or not lexicon.plain(word):
            return name and len(word.text) == 1 and not word.capital
        return cased or (name and not lexicon.name(word))

    first, last = 0, len(parts)
    while (
        first < last and idle(parts[first]) and not text[span.start : span.start + parts[first].start].strip(" .,-'\"")
    ):
        first += 1
    while (
        last > first
        and idle(parts[last - 1])
        and not text[span.start + parts[last - 1].end : span.end].strip(" .,-'\"")
    ):
        last -= 1
    if parts and first == last:
        # Numbers are left to those who know what they count.
        return
    if not name and parts and all(word.key in locale.facility_heads for word in parts[first:last]):
        return
    start = span.start + (parts[first].start if first else 0)
    end = span.start + parts[last - 1].end if last < len(parts) else span.end
    yield replace(span, start=start, end=end)


def _small(span: Span, text: str, parts: Sequence[Word], lexicon: Lexicon) -> bool:
    """Whether a name is in small letters, in a text with capitals, and in no list."""
    return (
        span.phi in (PhiClass.NAME, PhiClass.PLACE)
        and bool(parts)
        and not any(word.capital for word in parts)
        and not all(lexicon.name(word) for word in parts)
        and not any(sign.isdigit() for sign in text[span.start : span.end])
    )
