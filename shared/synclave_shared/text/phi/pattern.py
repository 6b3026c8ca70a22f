"""What a written pattern is: an expression, what it finds, how sure it is, and a check that shapes alone cannot make.

Every expression here and in the locales is bounded: starts are anchored behind a look-behind and repeats have limits or
consume disjoint letters, so that searching a text takes time in proportion to its length, whatever the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synclave_shared.text.spans import PhiClass, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["IDENTIFIER", "Pattern", "digits", "labelled"]

IDENTIFIER = r"[A-Z0-9](?:[A-Z0-9]|[-./_](?=[A-Z0-9])|[ ](?=\d{3,4}(?![\dA-Z/.-]))){1,29}"
"""The usual shape of a number behind its label; at least two of its letters must be digits (:func:`digits`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One expression.

    Attributes:
        name: for the report and for rules that switch it off.
        phi, kind, confidence: of what it finds.
        regex: compiled; a group ``v`` is the identifier itself if the expression reads its context, too.
        check: says of the identifier's text whether it can be one; None accepts all.
    """

    name: str
    phi: PhiClass
    kind: str
    regex: re.Pattern[str]
    confidence: float
    check: Callable[[str], bool] | None = None

    def find(self, text: str) -> Iterator[Span]:
        """All places in ``text``, in order."""
        group = "v" if "v" in self.regex.groupindex else 0
        for found in self.regex.finditer(text):
            start, end = found.span(group)
            if start < end and (self.check is None or self.check(text[start:end])):
                yield Span(
                    start=start,
                    end=end,
                    phi=self.phi,
                    kind=self.kind,
                    source=f"pattern:{self.name}",
                    confidence=self.confidence,
                )


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
    return Pattern(
        name=name,
        phi=phi,
        kind=kind,
        regex=re.compile(rf"(?i)(?<![^\W_])(?:{words})(?![^\W\d_]){gap}(?P<v>{value})"),
        confidence=confidence,
        check=digits(2) if check is None else check,
    )
