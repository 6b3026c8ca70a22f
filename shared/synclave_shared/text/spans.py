"""Marked stretches of a text, and how several sources' marks become one reading.

Offsets are those of Python strings: characters (code points) of the text as it was handed in, end exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PhiClass", "Span", "covers", "merged"]


class PhiClass(StrEnum):
    """The 18 identifiers of the HIPAA Safe Harbor rule, 45 CFR 164.514(b)(2)(i)(A) to (R), in its order.

    Ages over 89 belong to (C), as the rule has them: :attr:`DATE` with kind ``age``.
    """

    NAME = "name"
    PLACE = "place"
    DATE = "date"
    PHONE = "phone"
    FAX = "fax"
    EMAIL = "email"
    SSN = "ssn"
    MRN = "mrn"
    HEALTH_PLAN = "health-plan"
    ACCOUNT = "account"
    LICENCE = "licence"
    VEHICLE = "vehicle"
    DEVICE = "device"
    URL = "url"
    IP = "ip"
    BIOMETRIC = "biometric"
    PHOTO = "photo"
    OTHER = "other"


_RANK: Final = {phi: place for place, phi in enumerate(PhiClass)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One identifier in a text.

    Attributes:
        start: of the first character.
        end: behind the last character.
        phi: its class under HIPAA.
        kind: what it is more finely, in the source's words: ``patient``, ``facility``, ``zip``, ``birth``, ``age``.
        source: who found it: ``pattern:NAME``, ``names``, ``places``, ``record``, ``tagger``, ``document``, ``rules``.
        confidence: in (0, 1]; comparable between sources only roughly.
    """

    start: int
    end: int
    phi: PhiClass
    kind: str
    source: str
    confidence: float

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a span needs 0 <= start < end, not [{self.start}, {self.end})")

    @property
    def length(self) -> int:
        """In characters."""
        return self.end - self.start


def covers(outer: Span, inner: Span) -> bool:
    """Whether every character of ``inner`` lies in ``outer``."""
    return outer.start <= inner.start and inner.end <= outer.end


def merged(spans: Iterable[Span]) -> list[Span]:
    """Disjoint spans in order that cover every character any span covers: nothing found is ever uncovered again.

    Of spans that overlap the most confident one, then the longest, names the class; the others lend it the characters
    that they have beyond it if they are of the same class, and otherwise keep those as a span of their own.
    """
    taken: list[Span] = []
    best_first = sorted(
        spans, key=lambda span: (-span.confidence, -span.length, span.start, _RANK[span.phi], span.kind)
    )
    by_start: list[Span] = []
    for group in _touching(best_first):
        by_start.extend(_resolved(group))
    taken.extend(sorted(by_start, key=lambda span: span.start))
    return taken


def _touching(spans: list[Span]) -> list[list[Span]]:
    """Groups of spans that hang together by overlap; within a group the order given is kept."""
    order = {id(span): place for place, span in enumerate(spans)}
    groups: list[list[Span]] = []
    end = -1
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if span.start >= end:
            groups.append([])
        groups[-1].append(span)
        end = max(end, span.end)
    for group in groups:
        group.sort(key=lambda span: order[id(span)])
    return groups


def _resolved(group: list[Span]) -> list[Span]:
    kept: list[Span] = []
    for span in group:
        pieces = [span]
        for winner in kept:
            pieces = [part for piece in pieces for part in _outside(piece, winner)]
        for piece in pieces:
            neighbour = next(
                (
                    place
                    for place, winner in enumerate(kept)
                    if winner.phi == piece.phi and (winner.end == piece.start or piece.end == winner.start)
                ),
                None,
            )
            if neighbour is None or piece is span:
                kept.append(piece)
            else:
                winner = kept[neighbour]
                kept[neighbour] = replace(winner, start=min(winner.start, piece.start), end=max(winner.end, piece.end))
    return kept


def _outside(piece: Span, winner: Span) -> list[Span]:
    """The parts of ``piece`` that ``winner`` does not cover."""
    if piece.end <= winner.start or winner.end <= piece.start:
        return [piece]
    parts = []
    if piece.start < winner.start:
        parts.append(replace(piece, end=winner.start))
    if winner.end < piece.end:
        parts.append(replace(piece, start=winner.end))
    return parts
