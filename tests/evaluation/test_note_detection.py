"""Scores of detection against counts made by hand."""

import math

import pytest

from synclave_server.evaluation.notes.detection import GoldSpan, MarkedNote, score_detection
from synclave_shared.text.spans import PhiClass, Span


def _span(start: int, end: int, phi: PhiClass = PhiClass.NAME) -> Span:
    return Span(start=start, end=end, phi=phi, kind="k", source="s", confidence=1.0)


#       0         1         2         3
#       0123456789012345678901234567890123456789
TEXT = "Mr John Smith Jr. took aspirin in Boston"


def test_recall_is_counted_by_token_entity_and_boundary() -> None:
    note = MarkedNote(
        text=TEXT,
        gold=[GoldSpan(start=3, end=17, label="NAME"), GoldSpan(start=34, end=40, label="CITY")],
        found=[_span(8, 17), _span(18, 22), _span(34, 40)],
        medicine=[(23, 30)],
    )
    score = score_detection([note], fits=lambda label, span: label == span.phi.name)
    name, city = score.classes["NAME"], score.classes["CITY"]
    assert (name.token_recall, name.full_recall, name.any_recall) == (pytest.approx(2 / 3), 0, 1)
    assert (city.token_recall, city.full_recall, city.strict_recall) == (1, 1, 0)
    assert score.all_classes.token_recall == pytest.approx(3 / 4)
    assert score.precision == pytest.approx(3 / 4)
    assert score.span_precision == pytest.approx(2 / 3)
    assert score.over_masked == pytest.approx(1 / 4)
    assert score.medicine_masked == 0
    assert score.worst(1) == ("NAME", pytest.approx(2 / 3))
    assert score.worst(30)[0] == ""


def test_a_mark_at_the_end_gives_nobody_away() -> None:
    note = MarkedNote(text=TEXT, gold=[GoldSpan(start=3, end=17, label="NAME")], found=[_span(3, 16)])
    assert score_detection([note]).all_classes.full_recall == 1


def test_nothing_gives_no_number() -> None:
    score = score_detection([])
    assert math.isnan(score.precision)
    assert score.intervals == {}


def test_intervals_hold_the_value_and_repeat() -> None:
    notes = [
        MarkedNote(text=TEXT, gold=[GoldSpan(start=3, end=17, label="NAME")], found=[_span(3, 17)] if n % 4 else [])
        for n in range(40)
    ]
    score = score_detection(notes)
    low, high = score.intervals["token_recall"]
    assert low < 0.75 < high
    assert score.intervals == score_detection(notes).intervals
