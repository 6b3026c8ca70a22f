"""The identifiers in a patient's own record, found in that patient's notes in whatever way they are written there.

The largest single gain of all sources: the hospital knows whom the note is about. Nothing of it leaves the site; the
values are an argument of the detector and never a setting that is logged or sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synclave_shared.text.spans import PhiClass, Span
from synclave_shared.text.view import folded

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterator, Sequence

    from synclave_shared.text.phi.locale import Locale
    from synclave_shared.text.phi.words import Lexicon, Word

__all__ = ["RecordIdentifiers", "find_record"]

_FUZZY_FROM: Final = 5
"""Letters; shorter names have too many neighbours at one edit's distance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordIdentifiers:
    """What a site knows of one patient. Everything may be left out.

    Attributes:
        names: of the patient, any order, one string per name (``"Maria J. Lopez"``, ``"Lopez, Maria"``).
        relatives: names of relatives and contacts.
        doctors: names of the staff who treat the patient.
        birth_date, dates: written in any way in the note.
        mrns: record numbers; ``numbers``: accounts, policies, licences, devices and whatever else is a number.
        phones, emails: in any layout.
        addresses: whole addresses, parts separated by commas or line breaks.
        facilities: hospitals, employers, schools.
    """

    names: tuple[str, ...] = ()
    relatives: tuple[str, ...] = ()
    doctors: tuple[str, ...] = ()
    birth_date: datetime.date | None = None
    dates: tuple[datetime.date, ...] = ()
    mrns: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    facilities: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Without the values: a traceback or a log line must not show them."""
        return "RecordIdentifiers(...)"


def find_record(
    text: str, words: Sequence[Word], identifiers: RecordIdentifiers, locale: Locale, lexicon: Lexicon
) -> Iterator[Span]:
    """Every place where one of ``identifiers`` stands."""
    yield from _names(text, words, identifiers, locale, lexicon)
    yield from _dates(text, identifiers)
    for values, phi, kind in (
        (identifiers.mrns, PhiClass.MRN, "mrn"),
        (identifiers.numbers, PhiClass.OTHER, "number"),
        (identifiers.phones, PhiClass.PHONE, "phone"),
    ):
        for value in values:
            yield from _number(text, value, phi, kind)
    for value in identifiers.emails:
        yield from _literal(text, value, PhiClass.EMAIL, "email")
    for value in identifiers.addresses:
        for part in re.split(r"[,;\n]", value):
            yield from _literal(text, part, PhiClass.PLACE, "address")
    for value in identifiers.facilities:
        yield from _literal(text, value, PhiClass.PLACE, "facility")


def _names(
    text: str, words: Sequence[Word], identifiers: RecordIdentifiers, locale: Locale, lexicon: Lexicon
) -> Iterator[Span]:
    parts: dict[str, str] = {}
    glued: list[tuple[str, str]] = []
    for values, kind in (
        (identifiers.doctors, "doctor"),
        (identifiers.relatives, "relative"),
        (identifiers.names, "patient"),
    ):
        for value in values:
            tokens = [folded(part) for part in re.findall(r"[^\W\d_]+(?:['-][^\W\d_]+)*", value)]
            tokens = [token for token in tokens if token not in locale.titles and token not in locale.credentials]
            for token in tokens:
                for piece in {token, *token.split("-"), token.replace("'", "")}:
                    if len(piece) > 1 and piece not in locale.particles:
                        parts[piece] = kind
            if len(tokens) > 1:
                glued.append(("".join(tokens), kind))
                initials = [token[0] for token in tokens]
                yield from _initials(text, initials, kind)
    long = [part for part in parts if len(part) >= _FUZZY_FROM]
    near = _neighbourhood(long)
    taken: list[tuple[int, int, str, float]] = []
    for place, word in enumerate(words):
        key = word.key.replace("'", "") if word.key not in parts else word.key
        who = parts.get(key)
        confidence = 0.95
        if who is None and "-" in key:
            who = next((parts[piece] for piece in key.split("-") if piece in parts), None)
        if who is None and len(key) >= _FUZZY_FROM and key not in lexicon.ordinary and key not in lexicon.eponyms:
            match = _near(key, near)
            who, confidence = (parts[match], 0.8) if match else (None, 0.0)
        if who is None:
            continue
        if key in lexicon.ordinary or len(key) < 3:
            # "Cool", "An": a word of the language counts with a capital only, and not where all have one.
            if not word.capital or (word.shouted and not _neighbour_known(words, place, parts)):
                continue
            confidence = 0.7
        taken.append((word.start, word.end, who, confidence))
    yield from _with_initials(text, taken)
    for name, kind in glued:
        # User names and file names: mariajlopez
        for found in re.finditer(re.escape(name), text, re.IGNORECASE):
            yield _span(found.start(), found.end(), PhiClass.NAME, kind, 0.9)


def _neighbour_known(words: Sequence[Word], place: int, parts: dict[str, str]) -> bool:
    return any(
        words[other].key in parts and words[other].key != words[place].key
        for other in range(max(0, place - 2), min(len(words), place + 3))
    )


def _with_initials(text: str, taken: list[tuple[int, int, str, float]]) -> Iterator[Span]:
    """Each name with the initials and names that hang on it: ``Maria J. Lopez`` is one span."""
    joined: list[tuple[int, int, str, float]] = []
    for start, end, kind, confidence in taken:
        if joined:
            before = joined[-1]
            if re.fullmatch(r"(?:,? ?(?:[A-Z]\.?[ ])?| ?, ?|-)", text[before[1] : start]) and start - before[1] <= 5:
                joined[-1] = (before[0], end, before[2], max(before[3], confidence))
                continue
        joined.append((start, end, kind, confidence))
    for start, end, kind, confidence in joined:
        tail = re.compile(r",? [A-Z](?:\.|(?![\w'.]))").match(text, end)
        ahead = re.search(r"(?<!\w)(?:[A-Z]\.? ){1,2}$", text[max(0, start - 6) : start])
        if tail and tail.group().strip(" ,.") not in ("I", "A"):
            end = tail.end()
        if ahead and not re.fullmatch(r"[AI] ", ahead.group()):
            start -= len(ahead.group())
        yield _span(start, end, PhiClass.NAME, kind, confidence)


def _initials(text: str, initials: Sequence[str], kind: str) -> Iterator[Span]:
    """``J.D.``, ``J. D.``, and ``JD`` alone between brackets or behind a label."""
    letters = [letter.upper() for letter in initials]
    dotted = r"\. ?".join(letters) + r"\."
    bare = "".join(letters)
    for expression in (
        rf"(?<![\w.]){dotted}(?!\w)",
        rf"(?:[(/:]|initials? |pt |patient ) ?(?P<v>{bare})(?=[)/,.;:\s]|$)",
    ):
        for found in re.finditer(expression, text):
            start, end = found.span("v") if "v" in found.re.groupindex else found.span()
            yield _span(start, end, PhiClass.NAME, kind, 0.75)


def _neighbourhood(parts: Sequence[str]) -> dict[str, str]:
    """Each name with one letter left out -> the name: two words within one edit share such a form."""
    forms: dict[str, str] = {}
    for part in parts:
        forms[part] = part
        for place in range(len(part)):
            forms.setdefault(part[:place] + part[place + 1 :], part)
    return forms


def _near(key: str, forms: dict[str, str]) -> str | None:
    if key in forms and abs(len(forms[key]) - len(key)) <= 1:
        return forms[key]
    for place in range(len(key)):
        short = key[:place] + key[place + 1 :]
        match = forms.get(short)
        if match is not None and _one_edit(key, match):
            return match
    return None


def _one_edit(one: str, other: str) -> bool:
    """Whether one letter changed, lost, added, or two neighbours swapped make one the other."""
    if abs(len(one) - len(other)) > 1:
        return False
    head = 0
    while head < min(len(one), len(other)) and one[head] == other[head]:
        head += 1
    a, b = one[head:], other[head:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[:2][::-1] and a[2:] == b[2:])


def _number(text: str, value: str, phi: PhiClass, kind: str) -> Iterator[Span]:
    """The letters and digits of ``value`` with any separators between them."""
    letters = [letter for letter in value if letter.isalnum()]
    if len(letters) < 4 or len(letters) > 64:
        return
    if phi is PhiClass.PHONE and len(letters) == 10:
        # With or without the country's code and brackets.
        yield from _number(text, value[-8:], phi, kind) if len([x for x in value[-8:] if x.isdigit()]) == 7 else ()
    expression = r"[ ().,/_-]{0,2}".join(map(re.escape, letters))
    for found in re.finditer(
        rf"(?<![^\W_]){'[(]?' if phi is PhiClass.PHONE else ''}{expression}(?![^\W_])", text, re.IGNORECASE
    ):
        yield _span(found.start(), found.end(), phi, kind, 0.99)


def _literal(text: str, value: str, phi: PhiClass, kind: str) -> Iterator[Span]:
    tokens = re.findall(r"\w+|[^\w\s]", value)
    if len("".join(tokens)) < 4:
        return
    expression = r"\s{0,3}".join(map(re.escape, tokens))
    for found in re.finditer(rf"(?<!\w){expression}(?!\w)", text, re.IGNORECASE):
        yield _span(found.start(), found.end(), phi, kind, 0.95)


def _dates(text: str, identifiers: RecordIdentifiers) -> Iterator[Span]:
    """Only what the patterns for dates would not take by themselves: digits run together."""
    for value in (identifiers.birth_date, *identifiers.dates):
        if value is None:
            continue
        kind = "birth" if value == identifiers.birth_date else "date"
        y, m, d = f"{value.year:04}", f"{value.month:02}", f"{value.day:02}"
        layouts = {y + m + d, m + d + y, d + m + y, m + d + y[2:], d + m + y[2:]}
        for layout in sorted(layouts):
            for found in re.finditer(rf"(?<!\w){layout}(?!\w)", text):
                yield _span(found.start(), found.end(), PhiClass.DATE, kind, 0.9)
        month, day = value.month, value.day
        for expression in (
            rf"(?<![\d/])0?{month}\s?[-/.]\s?0?{day}\s?[-/.]\s?(?:{y}|{y[2:]})(?!\d)",
            rf"(?<![\d/])0?{day}\s?[-/.]\s?0?{month}\s?[-/.]\s?(?:{y}|{y[2:]})(?!\d)",
            rf"(?<![\d/])0?{month}/0?{day}(?![\d/])",
        ):
            for found in re.finditer(expression, text):
                yield _span(found.start(), found.end(), PhiClass.DATE, kind, 0.97)


def _span(start: int, end: int, phi: PhiClass, kind: str, confidence: float) -> Span:
    return Span(start=start, end=end, phi=phi, kind=kind, source="record", confidence=confidence)
