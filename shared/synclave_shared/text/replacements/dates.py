"""A patient's dates moved by one number of days, each written as it was.

The number is so chosen that months, days and weekdays all change: from 60 to 300 days either way, no multiple of 7.
Day and month without a year are read in the patient's own year, so that intervals stay.
"""

from __future__ import annotations

import calendar
import re
from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synclave_shared.text.replacements.draws import KeyedDraws

__all__ = ["DateShift", "shift_of"]

_MONTHS: Final = {
    "en": tuple(calendar.month_name[1:]),
    "es": (
        "enero",
        "febrero",
        "marzo",
        "abril",
        "mayo",
        "junio",
        "julio",
        "agosto",
        "septiembre",
        "octubre",
        "noviembre",
        "diciembre",
    ),
}
_DAYS: Final = {
    "en": tuple(calendar.day_name),
    "es": ("lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"),
}
_ORDINALS: Final = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
    "twentieth",
    "twenty-first",
    "twenty-second",
    "twenty-third",
    "twenty-fourth",
    "twenty-fifth",
    "twenty-sixth",
    "twenty-seventh",
    "twenty-eighth",
    "twenty-ninth",
    "thirtieth",
    "thirty-first",
]
_USUAL_YEAR: Final = 2015
"""In which days without any year are moved: no leap year."""

_NUMERIC: Final = re.compile(
    r"(?<!\d)(?:(?P<y1>(?:18|19|20)\d\d)(?P<s1> ?[-/.] ?)(?P<m1>\d{1,2})(?P<s2> ?[-/.] ?)(?P<d1>\d{1,2})"
    r"|(?P<a>\d{1,2})(?P<s3> ?[-/.] ?)(?P<b>\d{1,2})(?P<s4> ?[-/.] ?)['´]?(?P<y2>(?:18|19|20)\d\d|\d\d)"
    r"|(?P<y3>(?:19|20)\d\d)(?P<s5>[/-])(?P<m3>\d{1,2})|(?P<m4>\d{1,2})(?P<s6> ?[/-] ?)(?P<y4>(?:19|20)\d\d)"
    r"|(?P<y5>(?:19|20)\d\d)(?P<m5>[01]\d)(?P<d5>[0-3]\d)"
    r"|(?P<c>\d{1,2})(?P<s7>[-/.])(?P<e>\d{1,2}))(?!\d)"
)
_WORD: Final = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)?|\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class DateShift:
    """One patient's shift.

    Attributes:
        days: added to every date.
        year: of dates that have none.
        language: ``en`` or ``es``.
    """

    days: int
    year: int
    language: str

    def of(self, surface: str) -> str | None:
        """The date as it is written, moved; None if it cannot be read."""
        moved, count = _NUMERIC.subn(self._numeric, surface)
        if not count:
            found = self._words(surface)
            return None if found == surface else found
        return None if moved == surface else moved

    def _moved(self, year: int, month: int, day: int) -> date:
        last = calendar.monthrange(year, month)[1]
        return date(year, month, min(max(day, 1), last)) + timedelta(days=self.days)

    def _numeric(self, found: re.Match[str]) -> str:
        part = found.groupdict()
        if part["y1"] or part["y5"]:
            kind = "1" if part["y1"] else "5"
            year, month, day = (int(part[f"{letter}{kind}"]) for letter in "ymd")
            if not 1 <= month <= 12:
                return found.group()
            new = self._moved(year, month, day)
            if kind == "5":
                return f"{new:%Y%m%d}"
            return f"{new.year}{part['s1']}{_padded(new.month, part['m1'])}{part['s2']}{_padded(new.day, part['d1'])}"
        if part["y3"] or part["y4"]:
            year, month = (int(part["y3"]), int(part["m3"])) if part["y3"] else (int(part["y4"]), int(part["m4"]))
            if not 1 <= month <= 12:
                return found.group()
            new = self._moved(year, month, 15)
            if part["y3"]:
                return f"{new.year}{part['s5']}{_padded(new.month, part['m3'])}"
            return f"{_like(new.month, part['m4'], part['m4'])}{part['s6']}{new.year}"
        first, second = (part["a"], part["b"]) if part["a"] else (part["c"], part["e"])
        turned = self.language == "es" or int(first) > 12
        if int(second) > 12:
            turned = False
        month_text, day_text = (second, first) if turned else (first, second)
        if not 1 <= int(month_text) <= 12:
            return found.group()
        year_text = part["y2"]
        year = self.year if not year_text else int(year_text)
        if year_text and len(year_text) == 2:
            year += 1900 if year > 40 else 2000
        new = self._moved(year, int(month_text), int(day_text))
        month_day = tuple(_like(one, first, second) for one in (new.month, new.day))
        one, other = month_day[::-1] if turned else month_day
        if not year_text:
            return f"{one}{part['s7']}{other}"
        short = f"{new.year % 100:02}" if len(year_text) == 2 else str(new.year)
        return found.group()[: found.start("a") - found.start()] + f"{one}{part['s3']}{other}{part['s4']}{short}"

    def _words(self, surface: str) -> str:
        """Days, months and years in words and numbers, each in its place."""
        pieces = [(match.start(), match.end(), *self._read(match.group())) for match in _WORD.finditer(surface)]
        read = {kind: value for _, _, kind, value in pieces if kind}
        if not read:
            return surface
        year = read.get("year", self.year)
        if "month" in read:
            new = self._moved(year, read["month"], read.get("day", 15))
        elif "day" in read:
            # A day of an unknown month: June has an odd distance to both its neighbours.
            new = self._moved(year, 6, read["day"])
        else:
            new = self._moved(year, 7, 1)
        day = new.day
        if "month" not in read and read.get("day") == day:
            day = day % 28 + 1
        shown_year = (
            new.year if new.year != read.get("year") or "month" in read else new.year + (1 if self.days > 0 else -1)
        )
        out, at = "", 0
        for start, end, kind, value in pieces:
            out += surface[at:start]
            out += self._written(surface[start:end], kind, value, new.month, day, shown_year)
            at = end
        return out + surface[at:]

    def _read(self, word: str) -> tuple[str, int]:
        plain = word.casefold()
        if plain.isdecimal():
            number = int(plain)
            if len(plain) == 4:
                return "year", number
            if 1 <= number <= 31:
                return "day", number
            # '62
            return ("year", number + (1900 if number > 40 else 2000)) if len(plain) == 2 else ("", 0)
        if plain in _ORDINALS:
            return "day", _ORDINALS.index(plain) + 1
        for kind, names in (("month", _MONTHS), ("weekday", _DAYS)):
            for language in ("en", "es"):
                for number, name in enumerate(names[language], 1):
                    if plain == name.casefold() or (
                        len(plain) >= 3 and plain != "may" and name.casefold().startswith(plain)
                    ):
                        return kind, number
        return "", 0

    def _written(self, word: str, kind: str, value: int, month: int, day: int, year: int) -> str:
        if kind == "year":
            return f"{year % 100:02}" if len(word) == 2 else str(year)
        if kind == "day":
            return _like(day, word, word) if word.isdecimal() else _cased(_ORDINALS[day - 1], word)
        if kind in ("month", "weekday"):
            names = _MONTHS if kind == "month" else _DAYS
            spanish = word.casefold() not in " ".join(names["en"]).casefold()
            list_of = names["es" if spanish else "en"]
            number = month if kind == "month" else (value - 1 + self.days) % 7 + 1
            name = list_of[number - 1]
            whole = word.casefold() == list_of[value - 1].casefold()
            return _cased(name if whole else name[: max(3, len(word))], word)
        if word.casefold() in ("st", "nd", "rd", "th"):
            return _cased("th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th"), word)
        return word


def shift_of(draws: KeyedDraws, surfaces: Iterable[str], language: str, attempt: int = 0) -> DateShift:
    """A patient's shift, and the commonest year of all its dates; ``attempt`` for another one."""
    days = [number for number in range(60, 301) if number % 7]
    number = days[draws.number(len(days), "shift", attempt)]
    years = Counter(int(year) for surface in surfaces for year in re.findall(r"(?<!\d)(?:19|20)\d\d(?!\d)", surface))
    year = max(years, key=lambda one: (years[one], one)) if years else _USUAL_YEAR
    return DateShift(days=number if draws.number(2, "direction", attempt) else -number, year=year, language=language)


def _like(number: int, *written: str) -> str:
    """A number with a zero before it where the numbers of the date have one."""
    return f"{number:02}" if any(one.startswith("0") for one in written) else str(number)


def _padded(number: int, written: str) -> str:
    """Behind a year both have two digits, or none has to."""
    return f"{number:02}" if len(written) == 2 else str(number)


def _cased(word: str, like: str) -> str:
    if like.isupper():
        return word.upper()
    return word.capitalize() if like[0].isupper() else word.lower()
