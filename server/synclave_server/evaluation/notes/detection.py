"""How much of what identifies patients a detector finds, by class, and how much else it masks.

Recall is asked three ways of each gold identifier: its share of tokens masked (``token``), masked to the last letter
(``full``: the honest one, since half a name is a name), masked anywhere (``any``). ``strict`` asks for the same
boundaries and a class that fits, too. Precision is the share of masked tokens that gold marks.

Intervals are percentile bootstraps over notes, since identifiers of one note stand or fall together.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from synclave_shared.text.spans import Span

__all__ = ["ClassCounts", "DetectionScore", "GoldSpan", "MarkedNote", "score_detection"]

_TOKEN: Final = re.compile(r"\w+")

_ROUNDS: Final = 500
"""Bootstrap rounds: the third digit of an interval's ends is not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldSpan:
    """A marked identifier and its class in the data set's words."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedNote:
    """A note, its gold, what was found, and optionally the stretches that carry medicine."""

    text: str
    gold: Sequence[GoldSpan]
    found: Sequence[Span]
    medicine: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCounts:
    """Of one class: identifiers, tokens, and how many of them were found each way."""

    entities: int
    tokens: int
    tokens_found: int
    full: int
    touched: int
    strict: int

    @property
    def token_recall(self) -> float:
        """Share of the class's tokens that are masked."""
        return self.tokens_found / self.tokens if self.tokens else float("nan")

    @property
    def full_recall(self) -> float:
        """Share of its identifiers masked to the last letter."""
        return self.full / self.entities if self.entities else float("nan")

    @property
    def any_recall(self) -> float:
        """Share of its identifiers with any letter masked."""
        return self.touched / self.entities if self.entities else float("nan")

    @property
    def strict_recall(self) -> float:
        """Share of its identifiers found with their boundaries and a class that fits."""
        return self.strict / self.entities if self.entities else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionScore:
    """All of it.

    Attributes:
        classes: by label.
        all_classes: their sum.
        precision: share of masked tokens that gold marks.
        span_precision: share of spans that touch gold.
        over_masked: share of tokens outside gold that are masked.
        medicine_masked: share of the tokens of ``medicine``, outside gold, that are masked; NaN without medicine.
        intervals: 95 % by bootstrap over notes, of ``token_recall``, ``full_recall``, ``precision``, ``over_masked``.
    """

    classes: Mapping[str, ClassCounts]
    all_classes: ClassCounts
    precision: float
    span_precision: float
    over_masked: float
    medicine_masked: float
    intervals: Mapping[str, tuple[float, float]]

    def worst(self, least: int = 30) -> tuple[str, float]:
        """The class of at least ``least`` identifiers with the lowest token recall, and that recall."""
        large = {label: one.token_recall for label, one in self.classes.items() if one.entities >= least}
        label = min(large, key=lambda name: (large[name], name), default="")
        return label, large.get(label, float("nan"))


_COLUMNS: Final = 6
_MASKED, _TRUE, _OUTSIDE, _OVER, _MEDICINE, _MEDICINE_OVER, _SPANS, _SPANS_TRUE = range(8)


def score_detection(
    notes: Sequence[MarkedNote],
    *,
    fits: Callable[[str, Span], bool] = lambda _label, _span: True,
    seed: int = 0,
) -> DetectionScore:
    """The score of ``notes``.

    Args:
        notes: read notes.
        fits: whether a span's class is right for a gold label, for the strict measure.
        seed: of the bootstrap.
    """
    by_label: defaultdict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros((len(notes), _COLUMNS), np.int64))
    rest = np.zeros((len(notes), 8), np.int64)
    for place, note in enumerate(notes):
        _count(note, place, by_label, rest, fits)
    total = np.sum(list(by_label.values()), axis=0) if by_label else np.zeros((len(notes), _COLUMNS), np.int64)
    sums = rest.sum(0)
    return DetectionScore(
        classes={label: _counts(rows.sum(0)) for label, rows in sorted(by_label.items())},
        all_classes=_counts(total.sum(0)),
        precision=_share(sums[_TRUE], sums[_MASKED]),
        span_precision=_share(sums[_SPANS_TRUE], sums[_SPANS]),
        over_masked=_share(sums[_OVER], sums[_OUTSIDE]),
        medicine_masked=_share(sums[_MEDICINE_OVER], sums[_MEDICINE]),
        intervals=_intervals(total, rest, seed),
    )


def _count(
    note: MarkedNote,
    place: int,
    by_label: defaultdict[str, NDArray[np.int64]],
    rest: NDArray[np.int64],
    fits: Callable[[str, Span], bool],
) -> None:
    length = len(note.text)
    gold, found, medicine = (np.zeros(length + 1, bool) for _ in range(3))
    for one in note.gold:
        gold[one.start : one.end] = True
    for span in note.found:
        found[span.start : span.end] = True
    for start, end in note.medicine:
        medicine[start:end] = True
    exact = {(span.start, span.end): span for span in note.found}
    tokens = [match.span() for match in _TOKEN.finditer(note.text)]
    for one in note.gold:
        inside = [match.span() for match in _TOKEN.finditer(note.text[one.start : one.end])]
        masked = sum(bool(found[one.start + start : one.start + end].all()) for start, end in inside)
        # Marks at the ends ("Jr.") give nobody away.
        letters = np.array([letter.isalnum() for letter in note.text[one.start : one.end]], bool)
        covered = found[one.start : one.end]
        same = exact.get((one.start, one.end))
        by_label[one.label][place] += np.array(
            [
                1,
                len(inside),
                masked,
                bool(covered[letters].all()),
                bool(covered.any()),
                same is not None and fits(one.label, same),
            ],
            np.int64,
        )
    for start, end in tokens:
        is_gold, is_found = bool(gold[start:end].any()), bool(found[start:end].any())
        rest[place, _MASKED] += is_found
        rest[place, _TRUE] += is_found and is_gold
        rest[place, _OUTSIDE] += not is_gold
        rest[place, _OVER] += is_found and not is_gold
        if not is_gold and medicine[start:end].any():
            rest[place, _MEDICINE] += 1
            rest[place, _MEDICINE_OVER] += is_found
    rest[place, _SPANS] = len(note.found)
    rest[place, _SPANS_TRUE] = sum(bool(gold[span.start : span.end].any()) for span in note.found)


def _counts(row: NDArray[np.int64]) -> ClassCounts:
    entities, tokens, tokens_found, full, touched, strict = (int(value) for value in row)
    return ClassCounts(
        entities=entities, tokens=tokens, tokens_found=tokens_found, full=full, touched=touched, strict=strict
    )


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _intervals(total: NDArray[np.int64], rest: NDArray[np.int64], seed: int) -> dict[str, tuple[float, float]]:
    if not len(total):
        return {}
    generator = np.random.default_rng(seed)
    drawn: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(_ROUNDS):
        rows = generator.integers(0, len(total), len(total))
        gold, sums = total[rows].sum(0), rest[rows].sum(0)
        drawn["token_recall"].append(_share(gold[2], gold[1]))
        drawn["full_recall"].append(_share(gold[3], gold[0]))
        drawn["precision"].append(_share(sums[_TRUE], sums[_MASKED]))
        drawn["over_masked"].append(_share(sums[_OVER], sums[_OUTSIDE]))
    return {
        name: (float(np.nanpercentile(values, 2.5)), float(np.nanpercentile(values, 97.5)))
        for name, values in drawn.items()
    }
