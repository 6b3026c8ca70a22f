"""A name found once in a document is masked everywhere in it: alone, possessive, in headings, as initials."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from synclave_shared.text.phi.words import split_words
from synclave_shared.text.spans import PhiClass, Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synclave_shared.text.phi.locale import Locale
    from synclave_shared.text.phi.words import Lexicon, Word

__all__ = ["find_again"]

_SURE: Final = 0.65
"""Confidence from which a name is looked for in the rest of the document."""

_SURE_TAGGER: Final = 0.9
"""The same of what the tagger alone says: an error of it would be found again and again."""

_INITIALS: Final = re.compile(r" ?\(((?:[A-Z]\.?){2,3})\)")

_MOST_PLACES: Final = 200
"""Different places and numbers that are looked for again; a note has a handful, a hostile text has thousands."""


def find_again(
    text: str, words: Sequence[Word], found: Sequence[Span], locale: Locale, lexicon: Lexicon
) -> Iterator[Span]:
    """The further places of what ``found`` names for sure."""
    names: dict[str, Span] = {}
    initials: dict[str, Span] = {}
    shouted: set[str] = set()
    others: dict[str, Span] = {}
    for span in found:
        if span.confidence < _SURE or (span.source == "tagger" and span.confidence < _SURE_TAGGER):
            continue
        if span.phi is PhiClass.NAME:
            parts = split_words(text[span.start : span.end])
            for part in parts:
                if part.key in locale.not_names:
                    continue
                if len(part.key) > 2 and part.key not in locale.particles and part.key not in locale.titles:
                    names.setdefault(part.key, span)
                    if part.shouted:
                        shouted.add(part.key)
                    for piece in part.key.split("-"):
                        if len(piece) > 3:
                            names.setdefault(piece, span)
            # Maria Lopez (ML)
            behind = _INITIALS.match(text, span.end)
            if behind and len(parts) > 1 and behind.group(1)[0] == parts[0].text[0].upper():
                yield _copy(span, *behind.span(1), 0.7)
            if 2 <= len(parts) <= 3 and all(part.capital for part in parts):
                initials.setdefault(r"\. ?".join(part.text[0].upper() for part in parts), span)
        elif (span.phi is PhiClass.PLACE and span.kind in ("facility", "city", "street")) or span.phi is PhiClass.OTHER:
            surface = text[span.start : span.end]
            if len(surface) > 4 and len(others) < _MOST_PLACES:
                others.setdefault(surface, span)
    yield from _words_again(words, names, shouted, lexicon)
    for letters, span in list(initials.items())[:_MOST_PLACES]:
        for again in re.finditer(rf"(?<![\w.]){letters}\.(?![\w])", text):
            yield _copy(span, again.start(), again.end(), 0.65)
    yield from _literally_again(text, others)


def _words_again(words: Sequence[Word], names: dict[str, Span], shouted: set[str], lexicon: Lexicon) -> Iterator[Span]:
    for place, word in enumerate(words):
        span = names.get(word.key) or names.get(word.key.split("-")[0] if "-" in word.key else "")
        if span is None:
            continue
        # In small letters only what is long and no word of the language.
        if not word.capital and (lexicon.plain(word) or len(word.text) < 5):
            continue
        # ROS, ANA, LBP: short and in capitals it is an abbreviation, unless the name was in capitals, too.
        if word.shouted and len(word.text) < 5 and word.key not in shouted:
            continue
        if lexicon.plain(word):
            # A name that is also a word: only inside a sentence, where a capital is no accident.
            before = words[place - 1] if place else None
            if word.shouted or before is None or word.gap not in (" ", ", ") or before.shouted:
                continue
            if word.key in lexicon.eponyms and word.key not in lexicon.given:
                continue
        yield _copy(span, word.start, word.end, 0.7 if not lexicon.plain(word) else 0.55)


def _literally_again(text: str, others: dict[str, Span]) -> Iterator[Span]:
    if not others:
        return
    expression = "|".join(re.escape(surface) for surface in sorted(others, key=len, reverse=True))
    folded_others = {surface.lower(): span for surface, span in others.items()}
    for again in re.finditer(rf"(?<!\w)(?:{expression})(?!\w)", text, re.IGNORECASE):
        surface = again.group()
        span = folded_others.get(surface.lower())
        if span is not None and (surface[0].isupper() or not surface[0].isalpha()):
            yield _copy(span, again.start(), again.end(), 0.6)


def _copy(span: Span, start: int, end: int, confidence: float) -> Span:
    return Span(start=start, end=end, phi=span.phi, kind=span.kind, source="document", confidence=confidence)
