"""The strings that identify a patient, in all of the patient's notes: what no rewriting may hold anywhere.

Whole identifiers and, of names, their words. A string of ordinary words alone ("Long", "Medical Arts Building") is
looked for as it is written, any other one in whatever case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from synclave_shared.text.phi.words import lexicon_of
from synclave_shared.text.view import folded, plain_view

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from synclave_shared.text.phi.locale import Locale
    from synclave_shared.text.spans import Span

__all__ = ["Identifying", "spaced"]

_SHORTEST: Final = 4
"""Letters and digits of a string that is looked for: a shorter one stands in many places by chance. Where found as
an identifier it is replaced all the same."""

_WORDS: Final = re.compile(r"[^\W\d_]+")
_NUMBERS: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifying:
    """Strings of one patient.

    Attributes:
        any_case: expression for those that count in whatever case, or None.
        as_written: expression for the others, or None.
        words: folded words of names, ordinary ones among them, and numbers of identifiers: no model may write them.
    """

    any_case: re.Pattern[str] | None
    as_written: re.Pattern[str] | None
    words: frozenset[str]

    @classmethod
    def of(cls, notes: Iterable[tuple[str, Sequence[Span]]], locale: Locale) -> Self:
        """From the texts of a patient's notes and what the detector found in them."""
        lexicon = lexicon_of(locale)
        fixed = {*locale.titles, *locale.credentials, *locale.particles, *locale.not_names}
        heads = {
            part
            for head in (*locale.facility_heads, *locale.facility_first, *locale.facility_links)
            for part in head.split()
        }
        strings: dict[str, bool] = {}
        words: set[str] = set()
        for text, spans in notes:
            for span in spans:
                surface = " ".join(plain_view(text[span.start : span.end]).text.split())
                parts = [found.group() for found in _WORDS.finditer(surface)]
                generic = (
                    parts
                    and not any(letter.isdecimal() for letter in surface)
                    and {folded(part) for part in parts} <= heads
                )
                if not generic:
                    strings[surface] = _ordinary(parts, lexicon.ordinary) and not any(map(str.isdecimal, surface))
                words |= {number for number in _NUMBERS.findall(surface) if len(number) > 1}
                if span.phi.value == "name":
                    for part in parts:
                        if len(part) > 2 and folded(part) not in fixed:
                            words.add(folded(part))
                            strings[part] = folded(part) in lexicon.ordinary
        long = {one: exact for one, exact in strings.items() if sum(map(str.isalnum, one)) >= _SHORTEST}
        return cls(
            any_case=_expression(
                {form for one, exact in long.items() if not exact for form in (one, spaced(one))}, re.I
            ),
            as_written=_expression({one for one, exact in long.items() if exact}),
            words=frozenset(words),
        )

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where they stand in a text, [start, end)."""
        view = plain_view(text)
        found = []
        for regex in (self.any_case, self.as_written):
            if regex is not None:
                found += [view.original(*match.span()) for match in regex.finditer(view.text)]
        return found

    def surviving(self, text: str) -> list[str]:
        """Which of them stand in a text, accents and spaces made alike."""
        plain = " ".join(plain_view(text).text.split())
        found = [] if self.any_case is None else self.any_case.findall(spaced(text))
        return found + ([] if self.as_written is None else self.as_written.findall(plain))


def spaced(text: str) -> str:
    """A text folded, with one space for any number."""
    return folded(" ".join(plain_view(text).text.split()))


def _ordinary(parts: Sequence[str], ordinary: frozenset[str]) -> bool:
    return bool(parts) and all(folded(part) in ordinary or len(part) < 2 for part in parts)


def _expression(strings: Iterable[str], flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str] | None:
    longest_first = sorted(strings, key=lambda one: (-len(one), one))
    if not longest_first:
        return None
    whole = "|".join(re.sub(r"(?:\\ )+", r"\\s+", re.escape(one)) for one in longest_first)
    return re.compile(rf"(?<!\w)(?:{whole})(?!\w)", flags)
