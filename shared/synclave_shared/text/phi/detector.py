"""Finds what identifies a patient in a note: all sources, one answer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from synclave_shared.text.phi.consistency import find_again
from synclave_shared.text.phi.locales import locale_for
from synclave_shared.text.phi.names import find_names
from synclave_shared.text.phi.pattern import Reading
from synclave_shared.text.phi.places import find_facilities, find_places
from synclave_shared.text.phi.record import RecordIdentifiers, find_record
from synclave_shared.text.phi.rules import Rules
from synclave_shared.text.phi.tagged import bared, has_case, medicine
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
            cased = has_case(words)
            found.extend(
                kept
                for span in self.tagger.spans(plain)
                for kept in bared(span, plain, self.locale, lexicon, cased=cased)
            )
        known = []
        if self.identifiers is not None:
            known = list(find_record(plain, words, self.identifiers, self.locale, lexicon))
        found = [
            span
            for span in found
            if span.confidence >= self.rules.threshold
            and not _kept(span, plain, self.rules.keep)
            and not (span.source == "tagger" and medicine(span, plain, self.locale, lexicon))
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
