"""Finds what identifies a patient in a note: all sources, one answer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from synclave_shared.text.phi.consistency import find_again
from synclave_shared.text.phi.locales import locale_for
from synclave_shared.text.phi.names import find_names
from synclave_shared.text.phi.pattern import Reading
from synclave_shared.text.phi.places import find_facilities, find_places
from synclave_shared.text.phi.record import RecordIdentifiers, find_record
from synclave_shared.text.phi.rules import Rules
from synclave_shared.text.phi.universal import UNIVERSAL
from synclave_shared.text.phi.words import Lexicon, Word, lexicon_of, split_words
from synclave_shared.text.spans import PhiClass, Span, merged
from synclave_shared.text.view import plain_view

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from synclave_shared.text.phi.locale import Locale
    from synclave_shared.text.phi.pattern import Pattern

__all__ = ["Detector", "SpanTagger"]


class SpanTagger(Protocol):
    """Anything that marks spans in a text, for instance the trained tagger."""

    def spans(self, text: str) -> list[Span]:
        """Its own findings, with confidences."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A detector for one language, one site's rules and, if known, one patient.

    Detection is a pure function of the text and these fields, in time proportional to the text's length.

    Attributes:
        locale: language.
        identifiers: of the patient whose notes are read; None if unknown.
        rules: of the site.
        tagger: a trained tagger; None for patterns, lists and context alone.
        lists: whether names and places are looked for by lists and context; off, only patterns are used.
    """

    locale: Locale
    identifiers: RecordIdentifiers | None = None
    rules: Rules = field(default_factory=Rules)
    tagger: SpanTagger | None = None
    lists: bool = True

    @classmethod
    def for_locale(
        cls,
        code: str,
        *,
        identifiers: RecordIdentifiers | None = None,
        rules: Rules | None = None,
        tagger: SpanTagger | None = None,
    ) -> Detector:
        """A detector for a language by its code, ``en`` or ``es``.

        Raises:
            ConfigurationError: if the language is not known.
        """
        return cls(locale=locale_for(code), identifiers=identifiers, rules=rules or Rules(), tagger=tagger)

    def of_patient(self, identifiers: RecordIdentifiers) -> Detector:
        """The same detector for the notes of one patient."""
        return replace(self, identifiers=identifiers)

    def detect(self, text: str) -> list[Span]:
        """Disjoint spans in order, in the offsets of ``text``."""
        view = plain_view(text)
        plain, words = view.text, split_words(view.text)
        lexicon = self._lexicon()
        reading = Reading.of(plain)
        found = [span for pattern in self._patterns() for span in pattern.find(reading)]
        if self.lists:
            found.extend(find_names(reading, words, self.locale, lexicon))
            found.extend(find_facilities(plain, words, self.locale, lexicon))
            found.extend(find_places(plain, words, self.locale, lexicon))
            found.extend(_listed(words, self.rules))
        if self.tagger is not None:
            cased = _cased(words)
            found.extend(
                kept
                for span in self.tagger.spans(plain)
                for kept in _bared(span, plain, self.locale, lexicon, cased=cased)
            )
        known = []
        if self.identifiers is not None:
            known = list(find_record(plain, words, self.identifiers, self.locale, lexicon))
        found = [
            span
            for span in found
            if span.confidence >= self.rules.threshold
            and not _kept(span, plain, self.rules.keep)
            and not (span.source == "tagger" and _medicine(span, plain, self.locale, lexicon))
        ]
        found = merged([*found, *known])
        if self.lists:
            again = find_again(plain, words, found, self.locale, lexicon)
            found = merged([*found, *(span for span in again if span.confidence >= self.rules.threshold)])
        return [_original(span, *view.original(span.start, span.end)) for span in _trimmed(found, plain)]

    def _patterns(self) -> Iterator[Pattern]:
        for pattern in (*UNIVERSAL, *self.locale.patterns, *self.rules.patterns):
            if pattern.name not in self.rules.off:
                yield pattern

    def _lexicon(self) -> Lexicon:
        lexicon = lexicon_of(self.locale)
        return replace(lexicon, keep=self.rules.keep) if self.rules.keep else lexicon


def _listed(words: Sequence[Word], rules: Rules) -> Iterator[Span]:
    """Words of the site's own lists; entries of several words match word by word."""
    for entries, phi, kind in ((rules.names, PhiClass.NAME, "person"), (rules.places, PhiClass.PLACE, "place")):
        firsts: dict[str, list[list[str]]] = {}
        for entry in sorted(entries):
            parts = [word.key for word in split_words(entry)]
            if parts:
                firsts.setdefault(parts[0], []).append(parts)
        for place, word in enumerate(words if firsts else ()):
            for parts in firsts.get(word.key, ()):
                if [part.key for part in words[place : place + len(parts)]] == parts:
                    end = words[place + len(parts) - 1].end
                    yield Span(start=word.start, end=end, phi=phi, kind=kind, source="rules", confidence=0.95)


def _kept(span: Span, text: str, keep: frozenset[str]) -> bool:
    """Whether a span of words consists of words that the site keeps."""
    if not keep or span.source == "rules":
        return False
    keys = [word.key for word in split_words(text[span.start : span.end])]
    return bool(keys) and all(key in keep for key in keys)


def _medicine(span: Span, text: str, locale: Locale, lexicon: Lexicon) -> bool:
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


def _cased(words: Sequence[Word]) -> bool:
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


def _bared(span: Span, text: str, locale: Locale, lexicon: Lexicon, *, cased: bool) -> Iterator[Span]:
    """What the tagger found without the words of the language at its ends: it takes ``Tel`` and ``pharmacy`` along."""
    parts = split_words(text[span.start : span.end])
    if span.phi is PhiClass.DATE and span.kind == "date" and not parts and span.length < 5:
        # A score, a page, an hour: no date by itself.
        return
    if span.kind == "street" and not parts and span.length < 5:
        return
    if span.kind == "age" and not parts and not _old(span, text):
        return
    if cased and span.phi in (PhiClass.NAME, PhiClass.PLACE) and parts and not any(word.capital for word in parts):
        # In a text with capitals a name in small letters is one that a list has.
        if not all(lexicon.name(word) for word in parts) and not any(
            sign.isdigit() for sign in text[span.start : span.end]
        ):
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
        if name and word.shouted and word.key in locale.not_names:
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


_SURE_AT_START: Final = 0.9
"""Confidence from which the tagger alone makes a name of a word that begins a sentence and is in no list."""


def _trimmed(spans: Iterable[Span], text: str) -> Iterator[Span]:
    """Without spaces at the ends, and without what is nothing but marks."""
    for span in spans:
        surface = text[span.start : span.end]
        opening = " \t\n,;:" if ")" in surface else " \t\n,;:("
        closing = " \t\n,;:" if "(" in surface else " \t\n,;:)"
        start = span.start + len(surface) - len(surface.lstrip(opening))
        end = span.end - len(surface) + len(surface.rstrip(closing))
        if end - start > 1 and text[end - 1] == "." and text[end - 2].isdigit():
            end -= 1
        if start < end and any(letter.isalnum() for letter in text[start:end]):
            yield replace(span, start=start, end=end)


def _original(span: Span, start: int, end: int) -> Span:
    return span if (start, end) == (span.start, span.end) else replace(span, start=start, end=end)
