"""All that stands in for one patient's identifiers, over all of the patient's notes."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

from synclave_shared.text.identifying import spaced
from synclave_shared.text.phi.lexicon import word_lists
from synclave_shared.text.replacements.dates import shift_of
from synclave_shared.text.replacements.names import NAME_PARTS, NameMap, Naming, sex_of_context
from synclave_shared.text.replacements.numbers import replaced_number
from synclave_shared.text.slots import slot_of
from synclave_shared.text.spans import PhiClass
from synclave_shared.text.view import folded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synclave_shared.text.phi.locale import Locale
    from synclave_shared.text.replacements.draws import KeyedDraws
    from synclave_shared.text.spans import Span

__all__ = ["Replacements"]

_FEASTS: Final = {
    "en": ("Labor Day", "Memorial Day", "Thanksgiving", "Halloween", "Easter"),
    "es": ("Navidad", "Semana Santa", "Reyes", "Todos los Santos"),
}
_SHIFTS: Final = 40
_FACILITY_WORDS: Final = {"en": "Medical Center", "es": "Hospital"}
_WORDS_OF_STREETS: Final = frozenset(
    [
        "street",
        "st",
        "avenue",
        "ave",
        "road",
        "rd",
        "lane",
        "ln",
        "drive",
        "dr",
        "blvd",
        "boulevard",
        "court",
        "ct",
        "way",
        "terrace",
        "place",
        "pl",
        "circle",
        "parkway",
        "close",
        "apt",
        "suite",
        "unit",
        "box",
        "po",
        "north",
        "south",
        "east",
        "west",
        "n",
        "s",
        "e",
        "w",
        "highway",
        "hwy",
        "calle",
        "avenida",
        "plaza",
        "paseo",
        "carretera",
        "piso",
        "de",
        "la",
        "del",
    ]
)


class Replacements:
    """One patient's.

    Args:
        draws: of the patient, by the site's key.
        locale: language of the notes.
        notes: text and identifiers of every note of the patient.
    """

    def __init__(self, draws: KeyedDraws, locale: Locale, notes: Sequence[tuple[str, Sequence[Span]]]) -> None:
        self._draws, self._locale = draws, locale
        spans = [(text, span) for text, found in notes for span in found]
        self._taken = frozenset(folded(word) for text, _ in notes for word in NAME_PARTS.findall(text))
        # Of the patient the whole notes speak, of others the words before their names.
        patient = {"women": "she", "men": "he"}.get(sex_of_context(" ".join(text for text, _ in notes)), "")
        namings = [
            Naming(
                text[span.start : span.end],
                patient if span.kind == "patient" and patient else text[max(0, span.start - 24) : span.start],
            )
            for text, span in spans
            if span.phi is PhiClass.NAME
        ]
        self._names = NameMap(draws, locale, namings, self._taken)
        dates = [text[span.start : span.end] for text, span in spans if span.phi is PhiClass.DATE]
        for attempt in range(_SHIFTS):
            self._shift = shift_of(draws, dates, locale.code, attempt)
            new = spaced(" ; ".join(self._shift.of(one) or "" for one in dates))
            # A date moved to where another one of the patient's was would look as if that one were still there.
            if not any(spaced(one) in new for one in dates):
                break

    @property
    def days(self) -> int:
        """By which the patient's dates are moved."""
        return self._shift.days

    def of(self, span: Span, surface: str) -> str:
        """What stands in for an identifier: the same for the same, and never the same string."""
        new = self._made(span, surface)
        if spaced(new) == spaced(surface):
            return slot_of(span.phi.value, span.kind)
        return new

    def _made(self, span: Span, surface: str) -> str:
        match span.phi:
            case PhiClass.NAME:
                return self._names.of(surface)
            case PhiClass.DATE if span.kind == "age":
                return "90+"
            case PhiClass.DATE if span.kind == "feast":
                others = [feast for feast in _FEASTS[self._locale.code] if folded(feast) not in folded(surface)]
                return self._draws.choice(others, "feast", folded(surface))
            case PhiClass.DATE:
                return self._shift.of(surface) or slot_of("date")
            case PhiClass.PLACE:
                return self._place(span.kind, surface)
        return replaced_number(self._draws, span.phi, surface)

    def _place(self, kind: str, surface: str) -> str:
        if any(letter.isdecimal() for letter in surface):
            return self._address(surface)
        if (two := surface.strip().upper()) in self._locale.states and len(two) == 2:
            others = [state for state in self._locale.states if state != two]
            # Not another state of the notes either: it would look as if that one had stayed.
            free = [state for state in others if folded(state) not in self._taken]
            return self._draws.choice(free or others, "state", two)
        if kind in ("facility", "employer"):
            return self._facility(surface)
        # A town, its state behind it, or a road without a number: part by part.
        return re.sub(r"[^,\n]+", lambda found: self._named(found.group()), surface)

    def _named(self, part: str) -> str:
        bare = part.strip()
        if not bare:
            return part
        if bare.upper() in self._locale.states and len(bare) == 2:
            return part.replace(bare, self._place("", bare))
        words = bare.split()
        tail = words[-1] if len(words) > 1 and folded(words[-1]).strip(".") in _WORDS_OF_STREETS else ""
        regions = self._locale.regions
        if folded(bare) in regions:
            new = self._drawn(tuple(sorted(region.title() for region in regions)), "region", bare)
        else:
            new = self._drawn(_towns(self._locale.places, self._locale.ordinary), "town", bare)
        whole = f"{new} {tail}".strip()
        return part.replace(bare, whole.upper() if bare.isupper() and len(bare) > 2 else whole)

    def _facility(self, surface: str) -> str:
        words = surface.split()
        heads = self._locale.facility_heads | self._locale.facility_first
        kept = [
            word for word in words if folded(word).strip(".,'") in {part for head in heads for part in head.split()}
        ]
        if len(kept) == len(words):
            # "University General Hospital": all of such a name would stay.
            kept = kept[:1] if self._locale.code == "es" else kept[-1:]
        name = self._drawn(_towns(self._locale.places, self._locale.ordinary), "facility", surface)
        kind = " ".join(kept) or _FACILITY_WORDS[self._locale.code]
        new = f"{kind} {name}" if self._locale.code == "es" else f"{name} {kind}"
        return new.upper() if surface.isupper() else new

    def _address(self, surface: str) -> str:
        """Numbers by other numbers, names of streets by names of towns, the words of streets as they are."""

        def other(found: re.Match[str]) -> str:
            word = found.group()
            if word.isdecimal():
                return replaced_number(self._draws, PhiClass.OTHER, word)
            # "LA" is a state before it is an article.
            if word in self._locale.states and len(word) == 2:
                return self._place("", word)
            if folded(word) in _WORDS_OF_STREETS:
                return word
            if len(word) < 3:
                return word
            new = self._drawn(_towns(self._locale.places, self._locale.ordinary), "street", word)
            return new.upper() if word.isupper() else new

        return re.sub(r"\d+|[^\W\d_]+", other, surface)

    def _drawn(self, pool: Sequence[str], kind: str, original: str) -> str:
        key = folded(original)
        for attempt in range(200):
            new = self._draws.choice(pool, kind, key, attempt)
            if not {folded(word) for word in new.split()} & self._taken:
                return new
        return new


@cache
def _towns(lists: tuple[str, ...], ordinary: tuple[str, ...]) -> tuple[str, ...]:
    """Names of towns of one word that is no word of the language."""
    found = (word for word in word_lists(lists) - word_lists(ordinary) if word.isalpha() and 4 <= len(word) <= 12)
    return tuple(word.title() for word in sorted(found))
