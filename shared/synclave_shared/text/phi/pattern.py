"""What a written pattern is: an expression, what it finds, how sure it is, and a check that shapes alone cannot make.

Every expression here and in the locales is bounded: starts are anchored behind a look-behind and repeats have limits or
consume disjoint letters, so that searching a text takes time in proportion to its length, whatever the text.

A hundred expressions over one text would still be most of the detector's time. Two things make them quick and change no
answer: a pattern knows with which words its matches begin and looks at those places only, and where case is ignored a
text in small letters is read by an expression in small letters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

from synclave_shared.text.spans import PhiClass, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "DIGITS",
    "IDENTIFIER",
    "Pattern",
    "Reading",
    "digits",
    "first_runs",
    "in_small_letters",
    "labelled",
    "shipped",
]

DIGITS: Final = frozenset("0")
"""As ``first`` of a :class:`Pattern`: its matches begin with a run of digits."""

_RUN: Final = re.compile(r"[^\W\d_]+|\d+")

IDENTIFIER = r"[A-Z0-9](?:[A-Z0-9]|[-./_](?=[A-Z0-9])|(?<=\d)[ ](?=\d{3,4}(?![\dA-Z/.-]))){1,29}"
"""The usual shape of a number behind its label; at least two of its letters must be digits (:func:`digits`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A text as patterns read it.

    Attributes:
        text: the text.
        small: in small letters, character by character; None where case is more than that (beyond Latin-1).
        starts: where each run of letters, in small letters, begins, in order; runs of digits under ``0``.
    """

    text: str
    small: str | None
    starts: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, text: str) -> Reading:
        """One linear pass."""
        if max(text, default="") > "\xff":
            return cls(text=text, small=None, starts={})
        small = text.lower()
        starts: dict[str, list[int]] = {}
        for found in _RUN.finditer(small):
            run = found.group()
            starts.setdefault("0" if run[0].isdigit() else run, []).append(found.start())
        return cls(text=text, small=small, starts=starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One expression.

    Attributes:
        name: for the report and for rules that switch it off.
        phi, kind, confidence: of what it finds.
        regex: compiled; a group ``v`` is the identifier itself if the expression reads its context, too.
        check: says of the identifier's text whether it can be one; None accepts all.
        small: the same expression for texts in small letters; None where case counts.
        first: the whole runs of letters, small, or :data:`DIGITS`, that every match begins with; None for any.
    """

    name: str
    phi: PhiClass
    kind: str
    regex: re.Pattern[str]
    confidence: float
    check: Callable[[str], bool] | None = None
    small: re.Pattern[str] | None = None
    first: frozenset[str] | None = None

    def find(self, reading: Reading) -> Iterator[Span]:
        """All places in the text, in order."""
        group = "v" if "v" in self.regex.groupindex else 0
        for found in self._matches(reading):
            start, end = found.span(group)
            if start < end and (self.check is None or self.check(reading.text[start:end])):
                yield Span(
                    start=start,
                    end=end,
                    phi=self.phi,
                    kind=self.kind,
                    source=f"pattern:{self.name}",
                    confidence=self.confidence,
                )

    def _matches(self, reading: Reading) -> Iterator[re.Match[str]]:
        """What ``regex.finditer`` gives."""
        if reading.small is None:
            yield from self.regex.finditer(reading.text)
            return
        regex, text = (self.regex, reading.text) if self.small is None else (self.small, reading.small)
        if self.first is None:
            yield from regex.finditer(text)
            return
        known = self.first & reading.starts.keys()
        behind = 0
        for start in sorted(start for run in known for start in reading.starts[run]):
            found = regex.match(text, start) if start >= behind else None
            if found is not None:
                behind = found.end()
                yield found


def shipped(
    name: str,
    phi: PhiClass,
    kind: str,
    regex: str,
    confidence: float,
    *,
    check: Callable[[str], bool] | None = None,
    first: frozenset[str] | None = None,
) -> Pattern:
    """A pattern of ours; ``regex`` may begin with ``(?i)``."""
    return Pattern(
        name=name,
        phi=phi,
        kind=kind,
        regex=re.compile(regex),
        confidence=confidence,
        check=check,
        small=in_small_letters(regex),
        first=first,
    )


def in_small_letters(regex: str) -> re.Pattern[str] | None:
    """``regex``, which ignores case, for texts in small letters; None if case counts anywhere in it."""
    flags = re.match(r"\(\?(?:i|im)\)", regex)
    if flags is None or "(?-i" in regex:
        return None
    rest = re.sub(
        r"\\.|\(\?P<|[A-ZÀ-ÖØ-Þ]",
        lambda found: found.group() if len(found.group()) > 1 else found.group().lower(),
        regex[flags.end() :],
    )
    return re.compile(rest, re.MULTILINE if "m" in flags.group() else 0)


def first_runs(*expressions: str) -> frozenset[str] | None:
    """The whole runs of letters that the alternatives of ``expressions`` begin with; None where that cannot be told.

    Understands letters and sets of letters (``d[ií]a``) before the first other sign.
    """
    runs: set[str] = set()
    for alternative in "|".join(expressions).split("|"):
        begun = re.match(r"(?:\(\?:)?((?:[^\W\d_]|\[[^\W\d_]+\])+)((?:\\.|.)?[?*+{]?)", alternative)
        # What may be left out, repeat or be any sign: the run may be another.
        if begun is None or re.match(r"[?*+{.(\[]|.+[?*+{]", begun.group(2)):
            return None
        parts = re.findall(r"\[(\w+)\]|(\w)", begun.group(1))
        runs.update("".join(letters).lower() for letters in product(*(several or one for several, one in parts)))
    return frozenset(runs)


def digits(least: int, most: int = 40) -> Callable[[str], bool]:
    """A check: between ``least`` and ``most`` digits."""
    return lambda found: least <= sum(letter.isdigit() for letter in found) <= most


def labelled(
    name: str,
    phi: PhiClass,
    kind: str,
    labels: Sequence[str],
    *,
    value: str = IDENTIFIER,
    fillers: str = r"number|numbers|num|nbr|nos?|nr|id|ids|code|card|is|was|of|are|the",
    confidence: float = 0.9,
    check: Callable[[str], bool] | None = None,
) -> Pattern:
    """A value behind one of its labels: ``MRN: 12 34 56``, ``medical record number is 123456``, ``Acct # 99-1``."""
    words = "|".join(sorted(labels, key=len, reverse=True))
    gap = rf"(?:[ \t]*(?:(?:{fillers})\b\.?|[:#=()\[\]-]|\.(?!\d))){{0,5}}[ \t]*\n?[ \t]*"
    return shipped(
        name,
        phi,
        kind,
        rf"(?i)(?<![^\W_])(?:{words})(?![^\W\d_]){gap}(?P<v>{value})",
        confidence,
        check=digits(2) if check is None else check,
        first=first_runs(*labels),
    )
