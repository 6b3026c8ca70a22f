"""Dates as people write them, for any language that gives its words: a locale supplies names, this file the shapes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synclave_shared.text.phi.pattern import DIGITS, Pattern, first_runs, shipped
from synclave_shared.text.spans import PhiClass

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DateWords", "date_patterns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DateWords:
    """The words of one language, as pieces of expressions without groups.

    Attributes:
        months: full names and abbreviations.
        weekdays: full names and abbreviations.
        ordinals: ``st|nd|rd|th`` behind a number.
        days: days of the month in words.
        years: years in words.
        of: between day, month and year.
        before: words that a date follows (``on``, ``since``, ``dated``); they let through what is ambiguous.
        on_the: before a day without a month (``on the 14th``).
        labels: of date fields (``admission``), before a colon.
        not_before: what behind ``4/5`` makes it a strength, a pressure, a score.
        year_confidence: of a year alone. The Safe Harbor rule lets years stand; other rules do not.
        ambiguous: months that are words, with what must stand around them.
        seasons: and feasts; with a year or one of ``before``.
    """

    months: str
    weekdays: str
    ordinals: str
    days: str
    years: str
    of: str
    before: str
    on_the: str
    labels: str
    not_before: str
    seasons: str
    feasts: str
    year_confidence: float
    ambiguous: Sequence[str] = ()


_YEAR = r"(?:(?:1[89]|20)\d\d|['´]\d\d)"


def _plausible(found: str) -> bool:
    """Day and month in either order."""
    numbers = [int(number) for number in re.findall(r"\d+", found)]
    if len(str(numbers[0])) > 2:
        numbers = numbers[1:]
    first, second = numbers[0], numbers[1]
    return 1 <= first <= 31 and 1 <= second <= 31 and min(first, second) <= 12


def _month_and_year(found: str) -> bool:
    numbers = [int(number) for number in re.findall(r"\d+", found)]
    return 1 <= min(numbers) <= 12


def date_patterns(words: DateWords) -> tuple[Pattern, ...]:
    """All shapes, most explicit first."""
    m, d, of = rf"(?:{words.months})\b\.?", rf"\d{{1,2}} ?(?:{words.ordinals})?", rf"(?:(?:{words.of})\b[ ]?)?"
    weekday = rf"(?:(?:{words.weekdays})\b\.?,?[ ]{{1,2}}(?:{words.of}|the)?[ ]?)?"
    year, gap = _YEAR, r"[ ,.\-/]{1,3}"
    days, years = words.days, words.years

    months, weekdays, before = first_runs(words.months), first_runs(words.weekdays), first_runs(words.before)
    in_words, labels, on_the = first_runs(words.days), first_runs(words.labels), first_runs(words.on_the)

    def make(name: str, regex: str, confidence: float, *, kind: str = "date", **more: Any) -> Pattern:
        return shipped(f"date-{name}", PhiClass.DATE, kind, rf"(?i){regex}", confidence, **more)

    return (
        make(
            "iso",
            r"(?<![\w.-])(?:1[89]|20)\d\d([-/.])\d{1,2}\1\d{1,2}(?!\d|[-/]\d)",
            0.99,
            check=_plausible,
            first=DIGITS,
        ),
        make(
            "numeric",
            r"(?<![\w/.-])\d{1,2} ?([/.-]) ?\d{1,2} ?\1 ?(?:1[89]|20)\d\d(?!\d|[-/]\d)",
            0.99,
            check=_plausible,
            first=DIGITS,
        ),
        make(
            "numeric-short",
            r"(?<![\w/.-])\d{1,2}([/-])\d{1,2}\1['´]?\d\d(?![\d/]|-\d|[ ]?(?:mg|ml|mm|cm)\b)",
            0.95,
            check=_plausible,
            first=DIGITS,
        ),
        make(
            "numeric-dots", r"(?<![\w/.-])\d{1,2}\.\d{1,2}\.\d\d(?![\w/]|[-.]\d)", 0.8, check=_plausible, first=DIGITS
        ),
        make(
            "numeric-glued",
            r"(?<![\w/.-])\d{1,2}([/-])\d{1,2}\1(?:(?:19|20)\d\d|\d\d)(?=[A-Za-z])(?!\d)",
            0.7,
            check=_plausible,
            first=DIGITS,
        ),
        make(
            "compact",
            rf"(?<!\w)(?:{words.before})\b[ :]{{0,2}}(?P<v>(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))(?!\d)",
            0.8,
            first=before,
        ),
        make(
            "day-month-year",
            rf"(?<![\w/]){weekday}{d}{gap}{of}(?:{words.months})\b{gap}(?:(?:{words.of})\b[ ]?)?(?:{year}|\d\d)(?![\w%/]|[.,]\d)",
            0.98,
            first=_either(weekdays, DIGITS),
        ),
        make(
            "month-day-year",
            rf"(?<!\w){weekday}{m}[ .\-]{{0,3}}(?:the )?{d}[ ,.\-]{{1,4}}{of}(?:{year}|\d\d(?=[-.,;)]?(?:\s|$)))(?![\w%])",
            0.98,
            first=_either(weekdays, months),
        ),
        make(
            "month-days-year",
            rf"(?<!\w){m}[ ]\d{{1,2}}(?: and |, | & |[ ]?-[ ]?| to )\d{{1,2}},? (?:19|20)\d\d(?!\w)",
            0.95,
            first=months,
        ),
        make(
            "day-month",
            rf"(?<![\w/.]){weekday}{d}[ .\-]{{0,2}}{of}(?:{words.months})\b(?!\w)",
            0.9,
            first=_either(weekdays, DIGITS),
        ),
        make(
            "month-day",
            rf"(?<!\w){weekday}(?:{words.months})\b\.?[ ]{{1,2}}(?:the )?\d{{1,2}}(?:[ ]?(?:{words.ordinals}))?(?![\w%/]|[.,]\d|[ ]?(?:mg|ml|mm|cm|kg)\b)",
            0.9,
            first=_either(weekdays, months),
        ),
        make(
            "month-year",
            rf"(?<!\w)(?:{words.months})\b\.?[ ,\-/]{{1,3}}{of}(?:(?:1[89]|20)\d\d|['´]\d\d)(?!\w)",
            0.9,
            first=months,
        ),
        make(
            "month-slash-year",
            r"(?<![\w/.-])(?:0?[1-9]|1[0-2]) ?[/-] ?(?:19|20)\d\d(?![\d/-])",
            0.9,
            check=_month_and_year,
            first=DIGITS,
        ),
        make(
            "year-slash-month",
            r"(?<![\w/.-])(?:19|20)\d\d[/-](?:0[1-9]|1[0-2])(?![\d/-])",
            0.75,
            check=_month_and_year,
            first=DIGITS,
        ),
        make(
            "words-day-month",
            rf"(?<!\w){weekday}(?:the )?(?:{days})[ ]{of}(?:{words.months})\b(?:,?[ ]{of}(?:{year}|{years}))?(?!\w)",
            0.9,
            first=_either(weekdays, in_words, frozenset({"the"})),
        ),
        make(
            "words-month-day",
            rf"(?<!\w){weekday}(?:{words.months})[ ](?:the )?(?:{days})\b(?:,?[ ]{of}(?:{year}|{years}))?(?!\w)",
            0.9,
            first=_either(weekdays, months),
        ),
        make("words-month-year", rf"(?<!\w)(?:{words.months}),?[ ]{of}(?:{years})(?!\w)", 0.9, first=months),
        make(
            "partial",
            rf"(?<!\w)(?:{words.before})\b[:,]?[ ]{{1,2}}(?:(?:{words.weekdays})\b)?,?[ ]?(?P<v>\d{{1,2}}/\d{{1,2}})(?![\w/%]|[.,-]\d|[ ]?(?:{words.not_before}))",
            0.85,
            check=_plausible,
            first=before,
        ),
        make(
            "partial-time",
            r"(?<![\w/.,+-])(?P<v>\d{1,2}/\d{1,2})(?=,?[ ](?:at )?(?:[01]?\d|2[0-3])(?::[0-5]\d|[0-5]\d(?= ?h))(?!\d))",
            0.7,
            check=_plausible,
            first=DIGITS,
        ),
        make(
            "partial-labelled",
            rf"(?<!\w)(?:{words.labels})(?: of [a-z]{{3,12}})?[ ]?[:=][ ]{{0,3}}(?P<v>\d{{1,2}}[/-]\d{{1,2}})(?![\w/%-])",
            0.9,
            check=_plausible,
            first=labels,
        ),
        make(
            "partial-slash",
            rf"(?<![\w/.,+-])(?<!\b[xX] )(?P<v>(?:0?[1-9]|1[0-2])/(?:1[1-9]|2[1-9]|3[01]|0[1-9]))(?![\w/%]|[.,-]\d|[ ]?(?:{words.not_before}))",
            0.5,
            check=_plausible,
            first=DIGITS,
        ),
        make(
            "partial-range",
            r"(?<![\w/.-])(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12]\d|3[01])[ ]?(?:-|to|through|thru|a|al)[ ]?(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12]\d|3[01])(?:/\d\d(?:\d\d)?)?(?![\w/%]|[ ]?(?:inch|in\b|cm|mm|of an?\b))",
            0.8,
            first=DIGITS,
        ),
        make(
            "weekday-date",
            rf"(?<!\w)(?:{words.weekdays})\b\.?,?[ ]{{1,2}}(?:the |el )?(?:\d{{1,2}}(?:{words.ordinals})|\d{{1,2}}[/-]\d{{1,2}})(?![\w/%])",
            0.9,
            first=weekdays,
        ),
        make(
            "day-ordinal",
            rf"(?<!\w)(?:{words.on_the})[ ](?P<v>(?:\d{{1,2}}(?:{words.ordinals})|(?:{days})))(?![\w]|[ ](?:or|and|to|grade|pass|attempt|postoperative|stage|dose|try|level|side|time|one|two|trimester|\d|hospital day|day|week|month|year|rib|toe|finger|percentile|centile|floor|digit|metatarsal|intercostal|nerve|interspace|vertebra))",
            0.6,
            first=on_the,
        ),
        make(
            "year",
            rf"(?<!\w)(?:{words.before})[ ](?:the[ ]year[ ])?(?P<v>(?:19|20)\d\d)(?![\w%/]|[.,-]\d|[ ]?(?:mg|ml|cc|mm|g|kcal|calories|units|hours|hrs)\b)",
            words.year_confidence,
            kind="year",
            first=before,
        ),
        make(
            "year-range",
            r"(?<![\w/.-])(?:19|20)\d\d ?- ?(?:(?:19|20)\d\d|\d\d)(?![\w/-]|\.\d)",
            words.year_confidence,
            kind="year",
            first=DIGITS,
        ),
        make("season", rf"(?<!\w)(?:{words.seasons})\b,?[ ]{of}(?:the[ ]year[ ])?(?:19|20)\d\d(?!\w)", 0.85),
        make("feast", rf"(?<!\w)(?:{words.feasts})(?!\w)", 0.6, kind="feast"),
        make(
            "weekday",
            rf"(?<!\w)(?:{words.before})[ ](?P<v>(?:{words.weekdays}))(?![\w]|[, /-]{{1,2}}(?:{words.weekdays}|and|y|or)\b)",
            0.6,
            kind="weekday",
            first=before,
        ),
        *(
            make(f"month-{place}", regex, 0.65, kind="month", first=_leading(regex))
            for place, regex in enumerate(words.ambiguous)
        ),
    )


def _either(*firsts: frozenset[str] | None) -> frozenset[str] | None:
    known = [first for first in firsts if first is not None]
    return frozenset().union(*known) if len(known) == len(firsts) else None


def _leading(regex: str) -> frozenset[str] | None:
    """The first runs of an expression that begins with a group of words, whole ones."""
    group = re.match(r"(?:\(\?-i:)?\(\?<!\\w\)\(\?:([^()]+)\)(?:\(\?!\\w\)|\[ |[ ])", regex)
    return first_runs(group.group(1)) if group else None
